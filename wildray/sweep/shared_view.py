"""How MLflow's UI shows a sweep at first: columns, order and charts, as a view that is shared by a link.

In: a sweep. Out: the tag of its experiment and the address that asks for it. MLflow keeps no default columns of an
experiment; what its button for sharing a view makes is such a tag (mlflow 3.17,
hooks/useSharedExperimentViewState.tsx and runs-charts/runs-charts.types.ts of its UI). Where a later version no longer
reads it, the page shows what it shows without.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from wildray.sweep.spec import SweepSpec

KEY = "wildray"
TAG = f"mlflow.sharedViewState.{KEY}"
FINAL, COURSE = "final/mAP", "mAP"
"""Metrics of the last measurement, and of each."""
SECTION = "wildray-sweep"


def view_of(spec: SweepSpec) -> dict[str, Any]:
    """The view: trials alone, the best first, what was searched beside what it cost and came to."""
    params = list(spec.search)
    columns = [
        *(f"params.`{name}`" for name in params),
        *(f"metrics.`{name}`" for name in (FINAL, f"{FINAL}_low", f"{FINAL}_high", "cost/core_hours", "data/samples")),
        "tags.`wildray.status`",
        "attributes.`Duration`",
    ]
    charts = [
        {**_chart("PARALLEL", "What goes with a good mAP"), "selectedParams": params, "selectedMetrics": [FINAL],
         "showAllRuns": True},
        {**_chart("LINE", "mAP of every measurement"), "metricKey": COURSE, "selectedMetricKeys": [COURSE]},
        {**_chart("LINE", "Loss"), "metricKey": "loss", "selectedMetricKeys": ["loss"]},
        {**_chart("BAR", "mAP at the end"), "metricKey": FINAL},
        {**_chart("SCATTER", "mAP against what it cost"), "xaxis": {"key": "cost/core_hours", "type": "METRIC"},
         "yaxis": {"key": FINAL, "type": "METRIC"}},
    ]  # fmt: skip
    return {
        "searchFilter": "tags.stage = 'trial'",
        "orderByKey": f"metrics.`{FINAL}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": SECTION, "name": "The sweep", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
    }


def tag_of(spec: SweepSpec) -> str:
    """The tag's value: the view as JSON, compressed as the UI compresses it, since tags are short."""
    packed = zlib.compress(json.dumps(view_of(spec), separators=(",", ":")).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def address_of(experiment_url: str, *, charts: bool = True) -> str:
    """Where the view of an experiment is seen: its charts, or its table."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{experiment_url}/runs?viewStateShareKey={KEY}{mode}"


def _chart(kind: str, title: str) -> dict[str, Any]:
    return {
        "uuid": f"{SECTION}-{title.lower().replace(' ', '-')}",
        "type": kind,
        "displayName": title,
        "metricSectionId": SECTION,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }

"""The stage report: one page of what the stages found.

In: a store. Out: ``reports/<name>.html``, which holds everything it shows, its charts as PNG in ``reports/<name>/``
(to be logged, or put into a paper), and ``metrics.json``. What has not run yet is said on the page, with the command
that runs it. A notebook would need a kernel to be read and would be wrong as soon as the store goes on.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass

from wildray import __version__
from wildray.config import Config
from wildray.report import learned, mined, places
from wildray.report.evaluation import Evaluation, read_evaluation
from wildray.report.figures import Chart
from wildray.report.gather import Findings, gather
from wildray.report.page import Html, document
from wildray.report.pictures import write_picture
from wildray.runlog import RunLog
from wildray.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportResult:
    """What report wrote.

    Attributes:
        page: Path of the page.
        pictures: Paths of the charts as PNG.
        metrics: Path of ``metrics.json``: counts and figures, flat.
        missing: Stages that have not run: detect, mine, pretrain, evaluate.
        seconds: Wall-clock time.
    """

    page: str
    pictures: list[str]
    metrics: str
    missing: list[str]
    seconds: float


def report(
    config: Config, store: Store, *, run: str | None = None, detections: str | None = None, pairs: str | None = None
) -> ReportResult:
    """Write the page.

    Args:
        config: Shown where the run has no configuration of its own.
        store: What is read, and takes the page.
        run: Name of the run; default the one worked on last.
        detections: Digest of a detection run; default that of the pairs, else the newest.
        pairs: Digest of a pair set; default the newest.

    Raises:
        ConfigError: A name was given that the store does not hold.
        StoreError: A table cannot be read, or the page cannot be written.
    """
    begun = time.monotonic()
    found = gather(config, store, run=run, detections=detections, pairs=pairs)
    evaluation = read_evaluation(store, found.run)
    logger.info("report: run %s, detections %s, pairs %s", found.run, found.detections_digest, found.pairs_digest)
    sections, charts = _sections(found, evaluation)
    # from the run's name alone, so that the next page of the run replaces this one
    name = re.sub(r"[^A-Za-z0-9._-]", "_", found.run) if found.run else "overview"
    title = f"wildray: {found.run}" if found.run else "wildray: what the footage holds"
    subtitle = (
        f"{found.media.num_rows:,} media, {found.pairs.num_rows:,} pairs, made on {time.strftime('%Y-%m-%d %H:%M')}"
    )
    page = document(title, subtitle, sections, f"wildray {__version__} · store {store.root}")
    pictures = [str(write_picture(store, name, chart)) for chart in charts]
    metrics = store.write_text(json.dumps(_metrics(found, evaluation), indent=1), "reports", name, "metrics.json")
    path = store.write_text(page, "reports", f"{name}.html")
    seconds = time.monotonic() - begun
    logger.info("report: %s, %.1f MB, %d charts, %.1f s", path, len(page) / 1e6, len(charts), seconds)
    return ReportResult(
        page=str(path), pictures=pictures, metrics=str(metrics), missing=_missing(found, evaluation), seconds=seconds
    )


def log_pictures(result: ReportResult, log: RunLog) -> None:
    """Put the page, its charts and its figures into a run's artefacts."""
    for path in (result.page, result.metrics, *result.pictures):
        log.artifact(path, "report")


def _sections(found: Findings, evaluation: Evaluation | None) -> tuple[dict[str, Html], list[Chart]]:
    results, result_charts = learned.results(evaluation)
    when, when_charts = mined.when(found)
    distributions, distribution_charts = mined.distributions(found)
    training, training_charts = learned.training(found)
    vectors, vector_charts = learned.vector_map(evaluation)
    groups, group_charts = learned.groups(evaluation)
    sections = {
        "summary": mined.summary(found),
        "results": results,
        "pairs": mined.pairs(found),
        "static": places.static(found),
        "when": when,
        "distributions": distributions,
        "training": training,
        "answers": learned.answers(evaluation),
        "map": vectors,
        "groups": groups,
        "settings": learned.settings(found),
    }
    return sections, [
        *result_charts,
        *when_charts,
        *distribution_charts,
        *training_charts,
        *vector_charts,
        *group_charts,
    ]


def _metrics(found: Findings, evaluation: Evaluation | None) -> dict[str, float]:
    counts = {
        "num_media": found.media.num_rows,
        "num_frames": found.frames.num_rows,
        "num_detections": found.detections.num_rows,
        "num_pairs": found.pairs.num_rows,
        "num_static": sum(found.static["static"].to_pylist()),
    }
    last = {key: value for key, value in (found.history[-1] if found.history else {}).items() if key != "epoch"}
    trained = {key: float(value) for key, value in last.items() if isinstance(value, int | float)}
    return {
        **{key: float(value) for key, value in counts.items()},
        **trained,
        **(evaluation.figures if evaluation and not evaluation.stale else {}),
    }


def _missing(found: Findings, evaluation: Evaluation | None) -> list[str]:
    there = {
        "detect": found.detections_digest is not None,
        "mine": found.pairs_digest is not None,
        "pretrain": bool(found.history),
        "evaluate": evaluation is not None,
    }
    return [stage for stage, done in there.items() if not done]

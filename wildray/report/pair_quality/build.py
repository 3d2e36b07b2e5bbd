"""The page of a study of pair quality, and its tables as Markdown.

In: a store and a study's name. Out: ``reports/purity-<name>/``: ``index.html``, which holds everything it shows, its
charts as PNG, ``table.md`` for documentation, and ``advice.json``. It is made of what the study recorded.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

from wildray import __version__
from wildray.report.figures import Chart
from wildray.report.mined import drawn
from wildray.report.page import Html, document, missing, section, table, tag
from wildray.report.pair_quality.advice import Advice, advise
from wildray.report.pair_quality.charts import heat_charts, pareto_chart, rate_chart
from wildray.report.pair_quality.records import Study, read_study
from wildray.report.pair_quality.tables import Rows, by_interval, by_rate, markdown, of_fronts
from wildray.report.pair_quality.words import SECTIONS
from wildray.report.pictures import write_picture
from wildray.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairQualityPage:
    """What report_pair_quality wrote.

    Attributes:
        page: The page.
        table: The tables as Markdown.
        figures: The charts as PNG.
        advice: A sentence for each number of animals in the frame.
        pareto: Settings that no other beats, by interval.
    """

    page: str
    table: str
    figures: tuple[str, ...]
    advice: tuple[str, ...]
    pareto: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def report_pair_quality(store: Store, name: str) -> PairQualityPage:
    """Write the page of a study; it replaces an earlier one.

    Args:
        store: Holds the study, and takes the page.
        name: Of the study.

    Raises:
        ConfigError: The store has no study of that name.
        StoreError: Its results were altered, or the page cannot be written.
    """
    begun = time.monotonic()
    study = read_study(store, name)
    advice = advise(study)
    sections, charts = _sections(study, advice)
    folder = f"purity-{name}"
    figures = tuple(str(write_picture(store, folder, chart)) for chart in charts)
    text = store.write_text(markdown(study, advice), "reports", folder, "table.md")
    store.write_text(json.dumps([asdict(one) for one in advice], indent=1), "reports", folder, "advice.json")
    collections = len({point.collection for point in study.points})
    subtitle = (
        f"{study.description} {len(study.points):,} settings over {collections} collections, page made on "
        f"{time.strftime('%Y-%m-%d %H:%M')}"
    )
    footer = f"wildray {__version__} · a detection shows the animal it overlaps by {study.min_iou:g} · {store.root}"
    page = document(f"wildray: how pure are the pairs ({name})", subtitle.strip(), sections, footer, words=SECTIONS)
    path = store.write_text(page, "reports", folder, "index.html")
    logger.info("report: %s, %.1f MB, %d charts, %.1f s", path, len(page) / 1e6, len(charts), time.monotonic() - begun)
    return PairQualityPage(
        page=str(path),
        table=str(text),
        figures=figures,
        advice=tuple(one.sentence for one in advice),
        pareto=of_fronts(study).lines,
    )


def _sections(study: Study, advice: list[Advice]) -> tuple[dict[str, Html], list[Chart]]:
    pareto, rates = pareto_chart(study), rate_chart(study)
    heat = [chart for footage in study.footages for chart in heat_charts(study, footage)]
    sentences = missing("There are too few pairs.")
    if advice:
        sentences = tag("ul", (tag("li", one.sentence) for one in advice))
    sections = {
        "advice": section("advice", sentences, words=SECTIONS),
        "table": section("table", _table(by_interval(study)), words=SECTIONS),
    }
    if pareto is not None:
        sections["pareto"] = section("pareto", drawn(pareto), _table(of_fronts(study)), words=SECTIONS)
    if rates is not None:
        sections["rates"] = section("rates", drawn(rates), _table(by_rate(study)), words=SECTIONS)
    if heat:
        sections["heat"] = section("heat", *(drawn(chart) for chart in heat), words=SECTIONS)
    return sections, [chart for chart in (pareto, rates, *heat) if chart is not None]


def _table(rows: Rows) -> Html:
    return table(rows.header, rows.lines)

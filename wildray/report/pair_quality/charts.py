"""Charts of a study: heat maps of purity and of yield, purity against yield, both against the detection rate.

In: a study. Out: ``Chart``, drawn as those of the other pages are. Linkers differ in marker as well as colour.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from wildray.report import figures
from wildray.report.figures import COLORS, Chart
from wildray.report.pair_quality.advice import MIN_PAIRS, fronts
from wildray.report.pair_quality.records import Point, Study, front
from wildray.report.sweeps.figures import GREY, WIDTH
from wildray.report.sweeps.heat_maps import heat_maps
from wildray.report.sweeps.records import Matrix

MARKERS = "os^DvPX*"
RATE_GAP_S = 1.0
"""Detection rates are compared at the interval nearest to this that all rates of a footage have pairs at."""


def heat_charts(study: Study, footage: str) -> list[Chart]:
    """Purity, and yield, of interval against least overlap, a panel for each linker, at the lowest confidence."""
    points = [point for point in study.densest(footage) if point.min_score == study.scores[0]]
    used = [name for name in study.intervals if any(p.share.num_pairs for p in points if p.interval == name)]
    if not used:
        return []
    slug = re.sub(r"[^a-z0-9]+", "-", footage.lower()).strip("-") or "footage"
    charts = []
    for what, label, form, span in (
        ("purity", "purity", "{:.3f}", 0.1),
        ("yield", "right pairs a minute", "{:,.0f}", 10.0),
    ):
        value: Callable[[Point], float] = _purity if what == "purity" else _per_minute
        panels = [
            (f"{footage}: {linker}", _matrix(study, [p for p in points if p.linker == linker], used, value))
            for linker in study.linkers
        ]
        charts.append(
            heat_maps(
                f"{what}-{slug}", panels, row_label="mine.interval", column_label="mine.min_iou", label=label,
                form=form, min_span=span,
            )
        )  # fmt: skip
    return charts


def _purity(point: Point) -> float:
    return point.share.purity


def _per_minute(point: Point) -> float:
    return point.share.per_minute if point.share.num_pairs else math.nan


def _matrix(study: Study, points: Sequence[Point], rows: Sequence[str], value: Callable[[Point], float]) -> Matrix:
    shape = (len(rows), len(study.overlaps))
    values, counts = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    for point in points:
        if point.interval in rows:
            place = rows.index(point.interval), study.overlaps.index(point.min_iou)
            values[place], counts[place] = value(point), point.share.num_pairs
    columns = tuple(f"{overlap:g}" for overlap in study.overlaps)
    return Matrix(tuple(rows), columns, values, counts, counts, np.zeros(shape, dtype=bool))


def pareto_chart(study: Study) -> Chart | None:
    """Purity against yield, a panel for each interval: every setting a point, and the line none of them beats."""
    panels = fronts(study)
    if not panels:
        return None
    columns = min(4, len(panels))
    down = -(-len(panels) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(down, columns, squeeze=False, sharey=True).ravel()
        for axes, (interval, shares) in zip(grid, panels.items(), strict=False):
            for index, linker in enumerate(study.linkers):
                some = [share for setting, share in shares.items() if setting[0] == linker]
                axes.plot(
                    [share.per_minute for share in some], [share.purity for share in some], linestyle="",
                    marker=MARKERS[index], color=COLORS[index], markersize=4.5, alpha=0.75, label=linker,
                )  # fmt: skip
            ends = [(share.per_minute, share.purity) for share in shares.values()]
            best = [ends[number] for number in front(ends)]
            axes.plot(*zip(*best, strict=True), color=figures.INK, linewidth=1.0, zorder=1)
            axes.set(title=interval, ylim=(-0.03, 1.03))
            if axes in grid[::columns]:
                axes.set_ylabel("purity")
            axes.set_xlabel("right pairs a minute")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].legend(fontsize=7, loc="lower right")

    return figures.drawn_chart("pareto", (WIDTH, 2.5 * down), draw)


def rate_interval(study: Study, footage: str) -> str | None:
    """The interval near ``RATE_GAP_S`` at which every rate of a footage has pairs; None with one rate or no such."""
    points = [point for point in study.points if point.footage == footage and _is_reference(study, point)]
    collections = {point.collection for point in points}
    if len(collections) < 2:
        return None
    found = {}
    for interval in study.intervals:
        own = [point for point in points if point.interval == interval and point.share.num_pairs >= MIN_PAIRS]
        gaps = [point.gap_s for point in own if point.gap_s]
        if {point.collection for point in own} == collections and gaps:
            found[interval] = abs(math.log(float(np.median(gaps)) / RATE_GAP_S))
    return min(found, key=lambda interval: found[interval]) if found else None


def at_rates(study: Study, footage: str, interval: str) -> list[Point]:
    """Points of a footage at the reference overlap and confidence and one interval, by linker, then rate."""
    chosen = [
        point
        for point in study.points
        if point.footage == footage and point.interval == interval and _is_reference(study, point)
    ]
    return sorted(chosen, key=lambda point: (study.linkers.index(point.linker), point.frames_per_s))


def _is_reference(study: Study, point: Point) -> bool:
    return (point.min_iou, point.min_score) == study.reference


def rate_chart(study: Study) -> Chart | None:
    """Purity (above) and yield (below) against the detection rate, a column for each footage of several rates."""
    columns = [
        (footage, interval)
        for footage in study.footages
        if (interval := rate_interval(study, footage)) is not None
    ]  # fmt: skip
    if not columns:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(columns), squeeze=False, sharex="col")
        for place, (footage, interval) in enumerate(columns):
            points = at_rates(study, footage, interval)
            for index, linker in enumerate(study.linkers):
                own = [point for point in points if point.linker == linker and point.share.num_pairs]
                style = {"color": COLORS[index], "marker": MARKERS[index], "markersize": 4.5, "linewidth": 1.4}
                rates = [point.frames_per_s for point in own]
                shares = np.array([(p.share.purity, p.share.low, p.share.high) for p in own]).reshape(-1, 3)
                grid[0, place].errorbar(
                    rates, shares[:, 0], yerr=np.abs(shares[:, 1:] - shares[:, :1]).T, elinewidth=0.9, label=linker,
                    **style,
                )  # fmt: skip
                grid[1, place].plot(rates, [point.share.per_minute for point in own], **style)
            _scale(grid[0, place], grid[1, place], title=f"{figures.shortened(footage, 22)}, {interval}")
        grid[0, 0].set_ylabel("purity")
        grid[1, 0].set_ylabel("right pairs a minute")
        grid[0, 0].legend(fontsize=7)

    return figures.drawn_chart("rates", (WIDTH, 4.6), draw)


def _scale(above: Axes, below: Axes, *, title: str) -> None:
    above.set(title=title, ylim=(0, 1.03))
    below.set(xscale="log", xlabel="frames looked at a second")
    below.set_ylim(bottom=0)
    below.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    below.xaxis.set_minor_formatter(NullFormatter())
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (above, below):
        axes.axhline(0, color=GREY, linewidth=0.6)

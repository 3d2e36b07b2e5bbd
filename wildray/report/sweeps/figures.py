"""Charts of a sweep: mAP against a number, the course of every trial, and values with intervals.

In: means and arrays. Out: ``Chart``, drawn as those of the other page are. What comes from trials without the whole
budget is hollow: an empty marker, an empty bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from wildray.report import figures
from wildray.report.figures import COLORS, Chart, Numbers
from wildray.report.sweeps.records import DAGGER, Mean

WIDTH = 9.6
"""Of every chart of the page, in inches."""
GREY = "#8b9187"
_MARKERS = "os^DvPX*"


@dataclass(frozen=True)
class Course:
    """How one trial went.

    Attributes:
        images: (N,) images seen at each measurement.
        values: (N,) mAP.
        status: Of the trial.
        is_best: It has the best setting.
    """

    images: Numbers
    values: Numbers
    status: str
    is_best: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its interval.

    Attributes:
        name: What it is of.
        value, low, high: The ends are the value where there is no interval.
        dots: Single values that it is the mean of.
        hollow: It comes from trials without the whole budget.
    """

    name: str
    value: float
    low: float
    high: float
    dots: tuple[float, ...] = ()
    hollow: bool = False


def against(
    name: str,
    series: Mapping[str, Sequence[tuple[float, Mean]]],
    *,
    label: str,
    log: bool,
    ticks: Sequence[tuple[float, str]] = (),
    levels: Mapping[str, float] | None = None,
) -> Chart:
    """Mean mAP against a number, a line per series; bars from the least to the largest trial.

    Args:
        name: Name of the chart.
        series: Name to (x, mean) of its points.
        label: What x is, with its unit.
        log: Whether x is on a logarithmic scale.
        ticks: (x, text) of the ticks; default as the scale has them.
        levels: Name to mAP of horizontal lines, such as chance.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = [x for points in series.values() for x, _ in points]
        span = np.log(max(places) / min(places)) if log else max(places) - min(places)
        for index, (key, points) in enumerate(series.items()):
            # side by side, not on top of each other
            offset = 0.006 * (index - (len(series) - 1) / 2) * float(span)
            moved = [
                (x * np.exp(offset) if log else x + offset, mean) for x, mean in sorted(points, key=lambda p: p[0])
            ]
            _line(axes, moved, color=COLORS[index % len(COLORS)], marker=_MARKERS[index % len(_MARKERS)], key=key)
        for key, value in (levels or {}).items():
            axes.axhline(value, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
            _level(axes, key, value)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        if ticks:
            axes.set_xticks([x for x, _ in ticks], labels=[text for _, text in ticks], fontsize=7.5)
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=label, ylabel="mAP on validation")
        axes.margins(x=0.08, y=0.12)
        if len(series) > 1:
            axes.legend(ncols=min(4, len(series)), loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)

    return figures.drawn_chart(name, (WIDTH, 4.0), draw)


def courses(name: str, trials: Sequence[Course], *, rungs: Sequence[tuple[float, str]], chance: float | None) -> Chart:
    """Measurements of every trial against the images it has seen.

    Args:
        name: Name of the chart.
        trials: How each went.
        rungs: (images, text) of the places where trials are ended.
        chance: mAP of a random ranking.
    """
    crowd = 0.9 if len(trials) <= 15 else 0.55 if len(trials) <= 80 else 0.25
    looks = {
        "finished": (COLORS[0], "-", "o"), "stopped": (GREY, "-", "o"), "running": (COLORS[2], ":", "^"),
        "waiting": (COLORS[2], ":", "^"), "failed": (COLORS[7], "--", "X"),
    }  # fmt: skip
    words = {
        "finished": "finished", "stopped": f"stopped early {DAGGER}", "running": "under way", "waiting": "under way",
        "failed": "failed",
    }  # fmt: skip

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        legend: dict[str, Line2D] = {}
        # one line for all trials of a kind, with gaps: hundreds of lines would be hundreds of elements of the page
        kinds = {(course.is_best, course.status) for course in trials}
        for is_best, status in sorted(kinds, key=lambda kind: (kind[0], kind[1] == "finished")):
            chosen = [course for course in trials if (course.is_best, course.status) == (is_best, status)]
            color, style, marker = looks.get(status, looks["running"])
            color = COLORS[1] if is_best else color
            seen = np.concatenate([np.append(course.images, np.nan) for course in chosen])
            values = np.concatenate([np.append(course.values, np.nan) for course in chosen])
            width, alpha = (2.4, 1.0) if is_best else (1.2, crowd)
            axes.plot(seen, values, color=color, linestyle=style, linewidth=width, alpha=alpha)
            end = axes.plot(
                [course.images[-1] for course in chosen], [course.values[-1] for course in chosen], marker=marker,
                markersize=6 if len(trials) <= 80 else 4, linestyle="", color=color,
                markerfacecolor=color if status == "finished" else "none", alpha=max(alpha, 0.6),
            )[0]  # fmt: skip
            legend.setdefault("best setting" if is_best and status == "finished" else words.get(status, status), end)
        for images, text in rungs:
            axes.axvline(images, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                text, (images, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                va="top", fontsize=7.5, color=GREY,
            )  # fmt: skip
        if chance is not None:
            axes.axhline(chance, color=GREY, linewidth=1.0, linestyle=(0, (1, 2)))
            _level(axes, "chance", chance)
        axes.set(xlabel="images seen", ylabel="mAP on validation")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.margins(y=0.14)
        axes.set_xlim(left=0)
        axes.legend(legend.values(), legend, ncols=5, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)

    return figures.drawn_chart(name, (WIDTH, 4.2), draw)


def spans(name: str, rows: Sequence[Bar], *, label: str, levels: Mapping[str, float] | None = None) -> Chart:
    """Horizontal bars from zero with intervals.

    Args:
        name: Name of the chart.
        rows: The bars, from the top.
        label: What the values are.
        levels: Name to value of vertical lines, such as chance.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for height, row in enumerate(rows):
            axes.barh(
                height, row.value, height=0.62, color="none" if row.hollow else COLORS[0], edgecolor=COLORS[0],
                linestyle="--" if row.hollow else "-", alpha=0.85,
            )  # fmt: skip
            if row.high > row.low:
                axes.hlines(height, row.low, row.high, color=COLORS[1], linewidth=2.4)
                axes.plot([row.low, row.high], [height] * 2, color=COLORS[1], linestyle="", marker="|", markersize=9)
            axes.plot(row.dots, [height] * len(row.dots), linestyle="", marker="o", markersize=4, color=COLORS[3])
        for key, value in (levels or {}).items():
            axes.axvline(value, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.annotate(
                key, (value, 1), xycoords=("data", "axes fraction"), xytext=(2, 2), textcoords="offset points",
                fontsize=7.5, color=GREY,
            )  # fmt: skip
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(rows)), labels=[figures.shortened(row.name, 48) for row in rows])
        axes.set(xlabel=label, ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")

    return figures.drawn_chart(name, (WIDTH, 0.95 + 0.36 * max(2, len(rows))), draw)


def _line(axes: Axes, points: Sequence[tuple[float, Mean]], *, color: str, marker: str, key: str) -> None:
    xs = [x for x, _ in points]
    whole = [(x, mean.value) for x, mean in points if not mean.partial]  # less training is no point of the line
    axes.plot([x for x, _ in whole], [value for _, value in whole], color=color, linewidth=1.4, alpha=0.6)
    axes.vlines(xs, [m.low for _, m in points], [m.high for _, m in points], color=color, linewidth=1.6, alpha=0.45)
    for hollow in (False, True):
        chosen = [(x, mean.value) for x, mean in points if mean.partial == hollow]
        axes.plot(
            [x for x, _ in chosen], [value for _, value in chosen], linestyle="", marker=marker, markersize=6.5,
            color=color, markerfacecolor="none" if hollow else color,
        )  # fmt: skip
    axes.plot([], [], color=color, marker=marker, linewidth=1.4, label=figures.shortened(key, 34))


def _level(axes: Axes, name: str, value: float) -> None:
    """The name of a horizontal line, at its right end."""
    axes.annotate(
        name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5, color=GREY
    )

"""Charts: arrays in, drawn figures out, as SVG for the page and PNG for everything else.

In: numpy arrays and plain numbers. Out: ``Chart``. The SVG's text stays text, its neutral colours are CSS variables
of the page, so that it is sharp in print and readable on light and dark. Matplotlib's ``Figure`` is used without
pyplot, whose global state threads would share. Series differ in marker as well as colour, for the colour-blind.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Numbers = npt.NDArray[np.float64]

COLORS = ("#3b82c4", "#d9822b", "#2a9d74", "#c2577a", "#8e6bbf", "#b59b00", "#5aa9c9", "#d1495b")
INK, _SOFT, _LINE, _CARD = "#20241f", "#5d645b", "#dcdad0", "#ffffff"
_VARIABLES = {INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)", _CARD: "var(--card)"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wildray",  # the same data give the same bytes
    "text.parse_math": False,  # a camera called $x$ is no formula
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "date.converter": "concise",
    "figure.facecolor": _CARD,
    "axes.facecolor": _CARD,
}


@dataclass(frozen=True)
class Chart:
    """A drawn figure.

    Attributes:
        name: File name without extension.
        svg: Inline SVG.
        png: The same as PNG.
    """

    name: str
    svg: str
    png: bytes


def histograms(name: str, panels: Sequence[tuple[str, str, Numbers]]) -> Chart:
    """Histograms side by side.

    Args:
        name: Name of the chart.
        panels: (title, label with unit, values) of each; values that are not finite are left out.
    """

    def draw(figure: Figure) -> None:
        for number, (axes, (title, label, values)) in enumerate(
            zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)
        ):
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            if low == high:
                low, high = low - 0.5, high + 0.5
            axes.hist(
                finite, bins=min(40, max(8, round(np.sqrt(finite.size)))), range=(low, high), color=COLORS[number]
            )
            axes.set(title=title, xlabel=label)
            axes.grid(visible=False, axis="x")
            axes.yaxis.get_major_locator().set_params(integer=True)

    return drawn_chart(name, (9.6, 2.6), draw)


STEADY = 0.15
"""Values that differ by less than this share of the largest are drawn from 0."""


def curves(name: str, panels: Sequence[tuple[str, str, Mapping[str, tuple[Numbers, Numbers]]]]) -> Chart:
    """Line charts side by side over one horizontal axis, the epochs.

    Args:
        name: Name of the chart.
        panels: (title, vertical label, {series: (epochs, values)}) of each.
    """

    def draw(figure: Figure) -> None:
        columns = min(3, len(panels))
        grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
        for number, (axes, (title, label, series)) in enumerate(zip(grid, panels, strict=False)):
            for offset, (key, (epochs, values)) in enumerate(series.items()):
                axes.plot(
                    epochs, values, color=COLORS[(number + offset) % len(COLORS)], marker="os^D"[offset % 4],
                    markersize=3.5 if len(epochs) <= 60 else 0, linewidth=1.6, label=key,
                )  # fmt: skip
            axes.set(title=title, ylabel=label, xlabel="epoch")
            low, high = (edge(edge(values) for _, values in series.values()) for edge in (min, max))
            if low >= 0 and high - low < STEADY * high:  # stretched over the panel, noise would look like news
                axes.set_ylim(0, 1.15 * high)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if len(series) > 1:
                axes.legend()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)

    return drawn_chart(name, (9.6, 2.7 * -(-len(panels) // 3)), draw)


def timeline(
    name: str, rows: Mapping[str, npt.NDArray[np.datetime64]], categories: Mapping[str, Sequence[str]]
) -> Chart:
    """When each camera saw something.

    Args:
        name: Name of the chart.
        rows: Camera to (N,) times of its detections.
        categories: Camera to (N,) categories, which colour the marks.
    """
    words = sorted({word for found in categories.values() for word in found})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, word in enumerate(words):
            for height, camera in enumerate(rows):
                chosen = np.array([found == word for found in categories[camera]], dtype=bool)
                times = rows[camera][chosen].astype("datetime64[us]").astype(object)
                axes.plot(
                    times, np.full(len(times), float(height)), linestyle="", marker="|", markersize=11, alpha=0.75,
                    color=COLORS[index % len(COLORS)], label=word if height == 0 else None,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), labels=[shortened(camera) for camera in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="time (UTC)")
        axes.grid(visible=False, axis="x")
        if len(words) > 1:
            axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))

    return drawn_chart(name, (9.6, 1.1 + 0.3 * max(2, len(rows))), draw)


def scatter(name: str, points: Numbers, panels: Sequence[tuple[str, Sequence[str]]]) -> Chart:
    """The same points in several colourings.

    Args:
        name: Name of the chart.
        points: (N, 2) coordinates.
        panels: (title, (N,) labels) of each colouring; the most frequent labels stand in the legend.
    """

    def draw(figure: Figure) -> None:
        for axes, (title, labels) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _colored(axes, points, np.array(labels))
            axes.set(title=title, xticks=[], yticks=[])
            axes.grid(visible=False)

    return drawn_chart(name, (9.6, 9.6 / max(2, len(panels)) + 0.7), draw)


def bars(name: str, panels: Sequence[tuple[str, Sequence[tuple[str, float, float | None]]]], *, label: str) -> Chart:
    """Horizontal bars from 0 to 1 with a mark for chance, panels side by side.

    Args:
        name: Name of the chart.
        panels: (title, (name, value, chance or None) of each bar) of each.
        label: What the values are.
    """

    def draw(figure: Figure) -> None:
        for number, (axes, (title, values)) in enumerate(
            zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)
        ):
            heights = np.arange(len(values))
            axes.barh(heights, [value for _, value, _ in values], color=COLORS[number], height=0.7)
            marks = [
                (height, chance) for height, (_, _, chance) in zip(heights, values, strict=True) if chance is not None
            ]
            for height, chance in marks:
                axes.plot([chance, chance], [height - 0.42, height + 0.42], color=INK, linewidth=1.6)
            if marks:
                axes.plot([], [], color=INK, linewidth=1.6, label="chance")
                axes.legend(loc="lower right")
            axes.set_yticks(heights, labels=[shortened(key) for key, _, _ in values])
            axes.set(title=title, xlabel=label, xlim=(0, 1), ylim=(tallest - 0.4, -0.6))
            axes.grid(visible=False, axis="y")

    tallest = max(len(values) for _, values in panels)  # bars are of one height in all panels
    return drawn_chart(name, (9.6, 1.2 + 0.22 * tallest), draw)


def dots(name: str, rows: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]]) -> Chart:
    """Values with intervals on a scale from 0 to 1, a row per measure.

    Args:
        name: Name of the chart.
        rows: Names of the measures.
        series: Name to (value, low, high) of each measure; NaN is left out.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (key, values) in enumerate(series.items()):
            value, low, high = np.array(values, dtype=np.float64).reshape(-1, 3).T
            heights = np.arange(len(rows)) + 0.2 * (index - (len(series) - 1) / 2)
            axes.hlines(heights, low, high, color=COLORS[index], linewidth=2.2, alpha=0.6)
            axes.plot(value, heights, linestyle="", marker="sDo^"[index % 4], color=COLORS[index], label=key)
        axes.set_yticks(range(len(rows)), labels=list(rows))
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        axes.legend(ncols=len(series), loc="lower left", bbox_to_anchor=(0, 1.0))

    return drawn_chart(name, (9.6, 0.9 + 0.42 * len(rows)), draw)


def _colored(axes: Axes, points: Numbers, labels: npt.NDArray[np.str_]) -> None:
    names, counts = np.unique(labels, return_counts=True)
    order = names[np.argsort(-counts, kind="stable")]
    markers = "os^DvPX*"
    shown = 8 if len(order) > 10 else len(order)
    for index, name in enumerate(order):
        chosen = labels == name
        axes.scatter(
            points[chosen, 0], points[chosen, 1], s=14, linewidths=0, alpha=0.8, color=COLORS[index % len(COLORS)],
            marker=markers[index // len(COLORS) % len(markers)], label=shortened(name) if index < shown else None,
            rasterized=len(points) > 400,
        )  # fmt: skip
    if 1 < shown <= 10:
        axes.legend(
            fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=4, handletextpad=0.1, columnspacing=0.8,
            title=f"the {shown} most frequent of {len(order)}" if shown < len(order) else None, title_fontsize=7,
        )  # fmt: skip


def shortened(name: str, longest: int = 26) -> str:
    """A name that can be drawn, cut to so many characters."""
    printable = "".join(sign if sign.isprintable() else "�" for sign in name)
    return printable if len(printable) <= longest else f"{printable[: longest - 1]}…"


def drawn_chart(name: str, size_inches: tuple[float, float], draw: Callable[[Figure], None]) -> Chart:
    """A chart that a function draws, as picture and as markup; one that cannot be drawn says so."""
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a camera's name in another script
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        vector, raster = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, dpi=160)
        figure.set_layout_engine("none")  # it stays as it was laid out for the SVG
        figure.savefig(raster, format="png", dpi=130)
    return Chart(name=name, svg=_inline(vector.getvalue(), name), png=raster.getvalue())


def _inline(svg: str, name: str) -> str:
    """The svg element alone, its neutral colours as variables of the page, its ids its own."""
    element = svg[svg.index("<svg") :]
    for part in (
        r"<metadata>.*?</metadata>",
        r"<style.*?</style>",
        r' xmlns(:xlink)?="[^"]*"',
        r"font-family: [^;\"]*;",
    ):
        element = re.sub(part, "", element, flags=re.DOTALL)
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", element)
    for color, variable in _VARIABLES.items():
        element = element.replace(color, variable)
    return element

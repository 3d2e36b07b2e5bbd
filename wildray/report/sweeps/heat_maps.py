"""Heat maps: a figure such as mean mAP for each pair of values of two settings, annotated, on one scale of colours.

In: matrices. Out: ``Chart``. Cells are drawn as rectangles and not as an image, which the page would show blurred; a
cell of stopped trials alone is a frame with no colour, since its value is of less training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wildray.report import figures
from wildray.report.figures import Chart
from wildray.report.sweeps.figures import GREY, WIDTH
from wildray.report.sweeps.records import DAGGER, Matrix

_INK = figures.INK
"""The page's ink, light on dark paper."""
_DARK, _LIGHT = "#101410", "#fbfbfb"
"""On filled cells, which keep their colour on dark paper."""
MIN_SPAN = 0.1
"""mAP from one end of the colours to the other, at least, so that small differences do not look large."""
MIN_POINTS = 4.5
"""Numbers that would be smaller are left out; colours stay."""


def heat_maps(
    name: str,
    panels: Sequence[tuple[str, Matrix]],
    *,
    row_label: str,
    column_label: str,
    label: str = "mAP",
    form: str = "{:.3f}",
    min_span: float = MIN_SPAN,
) -> Chart:
    """Matrices side by side, on one scale of colours.

    Args:
        name: Name of the chart.
        panels: (title, matrix) of each; all of one size.
        row_label: Name of the setting of the rows.
        column_label: That of the columns.
        label: What the values are.
        form: How they are written.
        min_span: Values from one end of the colours to the other, at least.
    """
    num_rows, num_columns = panels[0][1].values.shape
    widest = max(len(row) for row in panels[0][1].rows)
    margin = 0.75 + 0.065 * min(widest, 60)
    across = max(1, min(len(panels), int((WIDTH - 0.8) // (margin + 0.55 * num_columns))))
    down = -(-len(panels) // across)
    spare = max(0.0, WIDTH - 0.8 - across * (margin + 1.25 * num_columns))  # few columns are not made broad
    cell_inches = ((WIDTH - 0.8 - spare) / across - margin) / num_columns
    # stopped trials would stretch the scale until the finished ones look alike
    found = np.concatenate([matrix.values[np.isfinite(matrix.values) & ~matrix.partial] for _, matrix in panels])
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    spread = max(0.0, min_span - (high - low)) / 2
    scale = ScalarMappable(Normalize(low - spread, high + spread), colormaps["YlGnBu"])

    def draw(figure: Figure) -> None:
        ratios = [1.0] * across + ([across * spare / (WIDTH - spare)] if spare > 0.5 else [])
        grid = figure.subplots(down, len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
        places = grid[:, :across].ravel()
        for axes, (title, matrix) in zip(places, panels, strict=False):
            _cells(axes, matrix, scale, cell_inches=cell_inches, form=form)
            axes.set(title=figures.shortened(title, 44), xlabel=figures.shortened(column_label, 60))
            if axes in grid[:, 0]:
                axes.set_ylabel(figures.shortened(row_label, 60))
        for axes in [*places[len(panels) :], *grid[:, across:].ravel()]:
            axes.set_visible(False)
        if found.size:
            bar = figure.colorbar(scale, ax=places[: len(panels)].tolist(), pad=0.01, fraction=0.05, aspect=16 * down)
            bar.set_label(label)
            bar.outline.set_visible(False)

    return figures.drawn_chart(name, (WIDTH, down * (1.25 + 0.44 * num_rows)), draw)


def _cells(axes: Axes, matrix: Matrix, scale: ScalarMappable, *, cell_inches: float, form: str) -> None:
    """A rectangle per value with its number; where trials were stopped, a frame alone."""
    num_rows, num_columns = matrix.values.shape
    points = min(9.0, 13.0 * cell_inches)
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    for row, column in np.ndindex(num_rows, num_columns):
        value, hollow = matrix.values[row, column], bool(matrix.partial[row, column])
        if not np.isfinite(value):
            axes.text(column, row, "-", fontsize=points, color=GREY, **centred)
            continue
        fill = scale.to_rgba(value)
        inset = 0.07 if hollow else 0.02
        axes.add_patch(
            Rectangle(
                (column - 0.5 + inset, row - 0.5 + inset), 1 - 2 * inset, 1 - 2 * inset,
                facecolor="none" if hollow else fill, edgecolor=GREY if hollow else "none",
                linewidth=1.2 if hollow else 0, linestyle="--",
            )
        )  # fmt: skip
        if points < MIN_POINTS:
            continue
        on_fill = _DARK if np.dot(fill[:3], (0.3, 0.59, 0.11)) > 0.5 else _LIGHT
        color = _INK if hollow else on_fill
        count, total = int(matrix.counts[row, column]), int(matrix.totals[row, column])
        worth = f"{form.format(value)}{DAGGER if hollow else ''}"
        axes.text(column, row - 0.12, worth, fontsize=points, color=color, **centred)
        told = f"{count} of {total}" if count < total else f"n = {count}"
        axes.text(column, row + 0.26, told, fontsize=0.72 * points, color=color, **centred)
    labels = [figures.shortened(text, 20) for text in matrix.columns]
    crowded = 0.07 * max((len(text) for text in labels), default=0) > cell_inches
    angle: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(num_columns), labels=labels, **angle)
    axes.set_yticks(range(num_rows), labels=[figures.shortened(text, 60) for text in matrix.rows])
    axes.set(xlim=(-0.5, num_columns - 0.5), ylim=(num_rows - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)

"""The sections of a sweep's page that compare settings: heat map, importance, species, methods.

In: ``Sweep``. Out: sections and charts; None where the records do not allow one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wildray.report.figures import Chart
from wildray.report.mined import drawn
from wildray.report.page import Content, Html, note, tag
from wildray.report.sweeps.figures import Bar, spans
from wildray.report.sweeps.groups import chance_level, grouped, ranked_settings, value_text
from wildray.report.sweeps.heat_maps import heat_maps
from wildray.report.sweeps.importance import importance
from wildray.report.sweeps.page import section
from wildray.report.sweeps.records import (
    DAGGER,
    Sweep,
    figure,
    filled,
    matrix,
    mean_of,
    show,
)
from wildray.report.sweeps.words import POOR_FOREST, SURVIVORS
from wildray.trials import TrialRecord

Part = tuple[Html, list[Chart]] | None
AXES = ("mine.min_iou", "mine.interval")
"""The settings of the heat map, where both are searched."""
MAX_PANELS, MAX_ROWS = 6, 15


def heat_map(sweep: Sweep) -> Part:
    """Two settings against each other: over all else, and for each value of a further setting of words."""
    axes = heat_axes(sweep)
    if axes is None or not sweep.measured:
        return None
    label: dict[str, Any] = {"row_label": axes[0], "column_label": axes[1]}
    further = [
        name for name in sweep.varying
        if name not in axes and sweep.is_category(name) and len(sweep.values(name)) <= MAX_PANELS
    ]  # fmt: skip
    charts = [heat_maps("heatmap", [("all trials", matrix(sweep, sweep.measured, *axes))], **label)]
    for name in further:
        panels = []
        for value in sweep.values(name):
            chosen = [r for r in sweep.measured if name in r.settings and show(r.settings[name]) == value]
            panels.append((value, matrix(sweep, chosen, *axes)))
        charts.append(heat_maps(f"heatmap-{_slug(name)}", panels, **label))
    body: list[Content] = [note(SURVIVORS) if any(r.status == "stopped" for r in sweep.records) else None]
    for chart, heading in zip(charts, [None, *further], strict=True):
        body += [None if heading is None else tag("h3", f"For each {heading}"), drawn(chart)]
    return section("heatmap", *body), charts


def heat_axes(sweep: Sweep) -> tuple[str, str] | None:
    """(setting of the rows, of the columns): IoU and interval, or the two searched settings with most values."""
    cells = {name: sweep.cells(name) for name in sweep.search}
    if all(cells.get(name) for name in AXES) and any(name in sweep.varying for name in AXES):
        return AXES
    # numbers before words, which make better panels than axes
    several = [name for name in sweep.varying if cells[name]]
    ranked = sorted(several, key=lambda name: (-len(cells[name]), sweep.is_category(name)))[:2]
    if len(ranked) < 2:
        return None
    first, second = sorted(ranked, key=lambda name: not sweep.is_category(name))  # words are rows: they are long
    return first, second


def importances(sweep: Sweep) -> Part:
    """Permutation importance of a random forest."""
    found = importance(sweep)
    if found is None:
        return None
    rows = [
        Bar(name, value, low, high)
        for name, value, low, high in zip(found.names, found.values, found.low, found.high, strict=True)
    ]
    chart = spans("importance", rows, label="increase of the forest's error of mAP when shuffled")
    told = (
        f"{found.num_trials} finished trials. Mean error of mAP on trials not seen: {found.error:.3f} for the forest, "
        f"{found.error_of_mean:.3f} for the mean of all."
    )
    poor = note(POOR_FOREST) if found.error >= found.error_of_mean else None
    return section("importance", poor, drawn(chart), tag("p", tag("small", told))), [chart]


def species(sweep: Sweep) -> Part:
    """Figures of each species, for the best settings."""
    names = sorted(
        {key for r in sweep.measured for key in r.metrics if key.startswith("mAP/") and figure(r, key) is not None}
    )
    if not names:
        return None
    settings = ranked_settings(sweep)
    labels = _labels(sweep, {key: records for key, records, _ in settings[:MAX_ROWS]})
    cells = {
        (labels[key], name.removeprefix("mAP/")): mean_of(records, name)
        for key, records, _ in settings[:MAX_ROWS]
        for name in names
    }
    found = filled(list(labels.values()), [name.removeprefix("mAP/") for name in names], cells)
    chart = heat_maps("species", [("mAP by species", found)], row_label="", column_label="")
    cut = f" The best {MAX_ROWS} of {len(settings)} settings are shown." if len(settings) > MAX_ROWS else ""
    told = tag("p", tag("small", f"Rows: {' · '.join(sweep.varying) or 'the setting'}.{cut}"))
    return section("species", drawn(chart), told), [chart]


def methods(sweep: Sweep) -> Part:
    """The best setting of each method, with its interval."""
    if "train.method" not in sweep.varying or not sweep.measured:
        return None
    rows = []
    groups = grouped((value_text(sweep, record, "train.method"), record) for record in sweep.measured)
    for method, records in groups.items():
        settings = ranked_settings(sweep, records)
        _, best, mean = settings[0]
        used = [r for r in best if (r.status == "finished") != mean.partial]
        low, high = (_mean_end(used, key, mean.value) for key in ("mAP_low", "mAP_high"))
        told = f" (best of {len(settings)})" if len(settings) > 1 else ""
        dots = tuple(value for r in used if (value := figure(r)) is not None) if len(used) > 1 else ()
        rows.append(Bar(f"{method}{told}{DAGGER if mean.partial else ''}", mean.value, low, high, dots, mean.partial))
    rows.sort(key=lambda row: (row.hollow, -row.value))
    chart = spans("methods", rows, label="mAP on validation", levels=chance_level(sweep))
    return section("methods", drawn(chart)), [chart]


def _labels(sweep: Sweep, settings: Mapping[str, list[TrialRecord]]) -> dict[str, str]:
    """Setting to a short text of its own."""
    labels: dict[str, str] = {}
    for key, records in settings.items():
        values = [show(records[0].settings[name])[:24] for name in sweep.varying if name in records[0].settings]
        label = " · ".join(values) or key
        labels[key] = f"{label} ({key})" if label in labels.values() else label
    return labels


def _mean_end(records: list[TrialRecord], key: str, value: float) -> float:
    ends = [end for record in records if (end := figure(record, key)) is not None]
    return sum(ends) / len(ends) if ends and len(ends) == len(records) else value


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()

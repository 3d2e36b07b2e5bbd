"""The sections of a sweep's page on mAP against a number: the size of the backbone, the number of samples.

In: ``Sweep``. Out: sections and charts; None where the records do not allow one.
"""

from __future__ import annotations

import re

import numpy as np

from wildray.report.figures import Chart
from wildray.report.mined import drawn
from wildray.report.page import Content, Html, table, tag
from wildray.report.sweeps.figures import against
from wildray.report.sweeps.groups import best_groups, chance_level, grouped, value_text
from wildray.report.sweeps.page import section
from wildray.report.sweeps.records import DAGGER, UNKNOWN, Mean, Sweep, mean_of, number, part
from wildray.trials import TrialRecord

NO_PATCHES = "no patches"
MAX_LINES = 6
"""Values of a setting that has a line for each."""


def size(sweep: Sweep) -> tuple[Html, list[Chart]] | None:
    """The section on the number of the backbone's parameters."""
    records = [record for record in sweep.measured if record.num_parameters]
    if len({record.num_parameters for record in records}) < 2:
        return None
    lines = _lines(sweep, records)
    series: dict[str, list[tuple[float, Mean]]] = {}
    for key, members in lines.items():
        by_count = grouped((record.num_parameters or 0, record) for record in members)
        series[key] = [(count / 1e6, mean) for count, found in by_count.items() if (mean := mean_of(found)) is not None]
    chart = against(
        "size", series, label="parameters of the backbone / million", log=True, ticks=_size_ticks(sweep, records),
        levels=chance_level(sweep),
    )  # fmt: skip
    return section("size", drawn(chart), _size_table(sweep, records)), [chart]


def samples(sweep: Sweep) -> tuple[Html, list[Chart]] | None:
    """The section on the number of pairs (or labelled images) a trial was trained on."""
    records = [record for record in sweep.measured if record.num_samples]
    if len({record.num_samples for record in records}) < 2:
        return None
    by = next((name for name in ("train.method", "backbone.name") if name in sweep.varying), None)
    unordered = grouped((value_text(sweep, record, by) if by else "all trials", record) for record in records)
    groups = {key: unordered[key] for key in [*(sweep.values(by) if by else ()), *unordered] if key in unordered}
    series: dict[str, list[tuple[float, Mean]]] = {}
    for key, members in best_groups(groups).items():
        found = grouped((record.num_samples or 0, record) for record in members)
        series[key] = [(count, mean) for count, trials in found.items() if (mean := mean_of(trials)) is not None]
    counts = [record.num_samples for record in records if record.num_samples]
    log = max(counts) > 5 * min(counts)
    chart = against("samples", series, label="samples (pairs, or labelled images)", log=log, levels=chance_level(sweep))
    left_out = len(groups) - len(series)
    told = tag("p", f"The {len(series)} best of {len(groups)} values of {by}.") if left_out else None
    return section("samples", drawn(chart), told), [chart]


def _lines(sweep: Sweep, records: list[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Line to its trials: by patch and image size where they vary, else by another setting of few values."""
    patches = {_patch(value_text(sweep, record, "backbone.name")) for record in records} - {NO_PATCHES}
    by_patch, by_side = len(patches) > 1, "backbone.image_size" in sweep.varying
    if by_patch or by_side:
        names = [(value_text(sweep, r, "backbone.name"), value_text(sweep, r, "backbone.image_size")) for r in records]
        words = [", ".join([_patch(name)] * by_patch + [f"{side} px"] * by_side) for name, side in names]
        pairs = sorted(zip(words, records, strict=True), key=lambda pair: [int(n) for n in re.findall(r"\d+", pair[0])])
        return best_groups(grouped(pairs))
    others = [
        name for name in sweep.varying
        if name != "backbone.name" and sweep.is_discrete(name) and len(sweep.values(name)) <= MAX_LINES
    ]  # fmt: skip
    if not others:
        return {"all trials": records}
    by = min(others, key=lambda name: (not sweep.is_category(name), len(sweep.values(name))))
    found = grouped((value_text(sweep, record, by), record) for record in records)
    return {f"{by} {value}": found[value] for value in [*sweep.values(by), UNKNOWN] if value in found}


def _size_ticks(sweep: Sweep, records: list[TrialRecord]) -> list[tuple[float, str]]:
    """A tick for each size, with the names of the backbones; sizes too near each other share one."""
    named = grouped((record.num_parameters or 0, record) for record in records)
    sizes = sorted(named)
    width = np.log(sizes[-1] / sizes[0])
    clusters: list[list[int]] = []
    for count in sizes:
        if clusters and np.log(count / clusters[-1][0]) < 0.13 * width:
            clusters[-1].append(count)
        else:
            clusters.append([count])
    ticks = []
    for cluster in clusters:
        names = sorted(
            {value_text(sweep, record, "backbone.name") for count in cluster for record in named[count]} - {UNKNOWN}
        )
        ends = sorted({f"{count / 1e6:.3g}" for count in (cluster[0], cluster[-1])}, key=float)
        more = [f"and {len(names) - 3} more"] if len(names) > 3 else []
        lines = [f"{' to '.join(ends)} M", *(name[:24] for name in names[:3]), *more]
        ticks.append((float(np.exp(np.mean(np.log(cluster)))) / 1e6, "\n".join(lines)))
    return ticks


def _size_table(sweep: Sweep, records: list[TrialRecord]) -> Html:
    """Each backbone with its untrained mAP beside the trained."""
    names = ("backbone.name", "backbone.image_size")
    groups = grouped(
        ((r.num_parameters or 0, value_text(sweep, r, names[0]), value_text(sweep, r, names[1])), r) for r in records
    )
    rows: list[list[Content]] = []
    for (count, name, side), members in sorted(groups.items(), key=lambda item: item[0]):
        mean = mean_of(members)
        before = number(part(sweep.content, "untrained", f"{name}/{side}").get("mAP"))
        if mean is not None:
            trained = f"{mean.value:.3f}{DAGGER if mean.partial else ''}"
            told = f"{mean.low:.3f} to {mean.high:.3f}" if mean.num > 1 else ""
            untrained = UNKNOWN if before is None else f"{before:.3f}"
            rows.append([name, side, f"{count / 1e6:.2f}", untrained, trained, told, f"{mean.num} of {mean.total}"])
    header = [
        "backbone",
        "image size / px",
        "million parameters",
        "untrained mAP",
        "mean mAP",
        "least to largest",
        "trials",
    ]
    return table(header, rows, numeric=(1, 2, 3, 4, 5, 6))


def _patch(backbone: str) -> str:
    found = re.search(r"patch(\d+)", backbone)
    return f"patch {found[1]}" if found else NO_PATCHES

"""The sections of a sweep's page that tell of it: the best setting, the course of the trials, their table, the cost.

In: ``Sweep``. Out: sections and charts; None where the records do not allow one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wildray.report.figures import Chart
from wildray.report.mined import drawn
from wildray.report.page import Content, Html, missing, note, table, tag
from wildray.report.sweeps.costs import Cost
from wildray.report.sweeps.figures import Course, courses
from wildray.report.sweeps.groups import by_setting, ranked_settings, told_setting
from wildray.report.sweeps.page import interval_text, section, tiles
from wildray.report.sweeps.records import DAGGER, UNKNOWN, Sweep, figure, mean_of, number, part, show
from wildray.report.sweeps.words import (
    ALL_FAILED,
    CLEARLY_BEST,
    NOT_BETTER,
    NOTHING,
    ONLY_ONE,
    UNDER_WAY,
)
from wildray.trials import TrialRecord

MAX_TOLD, MAX_UNFOLDED, LONGEST_REASON = 10, 60, 300


def result(sweep: Sweep) -> Html:
    """The best setting on validation and test, beside untrained and chance."""
    counts = Counter[str](record.status for record in sweep.records)
    numbers = [(f"{sweep.num_trials:,}", "trial" if sweep.num_trials == 1 else "trials")]
    for status, word in (("finished", "finished"), ("stopped", "stopped early"), ("failed", "failed")):
        numbers.append((f"{counts[status]:,}", word))
    cost = Cost.of(sweep)
    numbers += [(f"{cost.core_hours:.3g}", "core-hours of trials")]
    if cost.wall_s is not None:
        numbers.append((f"{cost.wall_s / 60:,.1f}", "minutes by the clock"))
    under_way = note(UNDER_WAY) if sweep.content.get("ended_at") is None else None
    best = part(sweep.content, "best")
    if not best:
        failed = bool(counts["failed"]) and counts["failed"] == sum(
            counts[s] for s in ("finished", "stopped", "failed")
        )
        return section("result", tiles(numbers), under_way, missing(ALL_FAILED if failed else NOTHING))
    return section("result", tiles(numbers), under_way, *_best(sweep, best))


def progress(sweep: Sweep) -> tuple[Html, list[Chart]] | None:
    """The course of every trial, with ASHA's rungs."""
    best = part(sweep.content, "best").get("setting")
    trials = []
    for record in sweep.records:
        points = [
            ((place + 1) * record.images_per_epoch, value)
            for place, epoch in enumerate(record.history)
            if (value := number(epoch.get("mAP"))) is not None
        ]
        if points and record.images_per_epoch > 0:
            images, values = np.array(points, dtype=np.float64).T
            trials.append(Course(images, values, record.status, is_best=record.setting == best))
    if not trials:
        return None
    rungs = _rungs(sweep)
    chart = courses("progress", trials, rungs=rungs, chance=number(sweep.content.get("chance_mAP")))
    told = None
    if rungs:
        share = part(sweep.content, "spec", "scheduler").get("reduction", "?")
        told = tag(
            "p",
            tag("small", f"Dashed: ASHA's rungs. Of the trials that reach one, the best one in {show(share)} goes on."),
        )
    return section("progress", drawn(chart), told), [chart]


def trials(sweep: Sweep) -> Html:
    """Every trial, and the settings over their seeds where there are several."""
    if not sweep.records:
        return section("trials", missing("No trial has begun."))
    good = [record for record in ranked(sweep) if record.status != "failed"]
    bad = [record for record in ranked(sweep) if record.status == "failed"]
    header, numeric = _header(sweep)
    body: list[Html | None] = [_over_seeds(sweep)]
    if good:
        body.append(_folded(header, [_row(sweep, record) for record in good], numeric, "trials"))
    if bad:
        body.append(tag("h3", f"Failed: {len(bad):,}"))
        body.append(_folded(header, [_row(sweep, record) for record in bad], numeric, "failed trials"))
    return section("trials", *body)


def ranked(sweep: Sweep) -> list[TrialRecord]:
    """Trials by the first objective, the best first; then stopped ones, those under way, those that failed."""
    objectives = part(sweep.content, "spec").get("objective")
    objective = part(objectives[0]) if isinstance(objectives, list) and objectives else {}
    key, sign = objective.get("metric", "mAP"), 1.0 if objective.get("mode") == "min" else -1.0
    places = {"finished": 0, "stopped": 1, "running": 2, "waiting": 3, "failed": 4}

    def rank(record: TrialRecord) -> tuple[int, bool, float, str]:
        value = record.seconds if key == "seconds" else figure(record, key)
        return places.get(record.status, 3), value is None, sign * (value or 0.0), record.trial

    return sorted(sweep.records, key=rank)


def settings(sweep: Sweep) -> Html:
    """What was searched, the division of the individuals, and the sweep file."""
    searched: list[list[Content]] = []
    for name, dimension in sweep.search.items():
        kind = next((kind for kind in ("uniform", "loguniform", "integers") if part(dimension).get(kind)), None)
        values = f"{kind} {show(dimension[kind])}" if kind else ", ".join(sweep.values(name))
        when = part(dimension, "when")
        searched.append([name, values, ", ".join(f"{key} {show(value)}" for key, value in when.items())])
    parts: list[list[Content]] = [
        [
            name,
            _count(found.get("num_identities")),
            _count(found.get("num_images")),
            tag("code", str(found.get("digest", UNKNOWN))),
        ]
        for name in ("train", "validation", "test")
        if (found := part(sweep.content, "split", name))
    ]
    spec = part(sweep.content, "spec")
    return section(
        "settings",
        table(["searched", "values", "only where"], searched) if searched else None,
        table(["individuals for", "individuals", "images", "digest"], parts, numeric=(1, 2)) if parts else None,
        tag("details", tag("summary", "The sweep file"), tag("pre", json.dumps(spec, indent=1, default=str)))
        if spec
        else None,
    )


def untrained_of(sweep: Sweep, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a setting's network with its starting weights; empty where they are not known."""
    found = part(sweep.content, "untrained")
    name = chosen.get("backbone.name", sweep.base("backbone.name"))
    side = chosen.get("backbone.image_size", sweep.base("backbone.image_size"))
    keys = [key for key in found if (name is None or key.rpartition("/")[0] == name) and side in (None, _side(key))]
    return part(found, keys[0]) if len(keys) == 1 else {}


def _best(sweep: Sweep, best: Mapping[str, Any]) -> list[Content]:
    chosen = part(best, "settings")
    records = [record for record in sweep.records if record.setting == best.get("setting")]
    validation, test, untrained = part(best, "validation"), part(best, "test"), untrained_of(sweep, chosen)
    dagger = "" if not records or any(record.status == "finished" for record in records) else f" {DAGGER}"
    chance = _number(sweep.content.get("chance_mAP"))
    before = [_interval(untrained), _interval(test, "untrained_mAP"), _number(test.get("untrained_cmc_1"))]
    rows: list[list[Content]] = [
        [f"best setting{dagger}", _interval(validation), _interval(test), _number(test.get("cmc_1"))],
        ["the same network, untrained", *before],
        ["chance", chance, _number(test.get("chance_mAP")), _number(test.get("chance_cmc_1"))],
    ]
    body: list[Content] = [
        tag(
            "p",
            "Best: ",
            tag("strong", told_setting(sweep, chosen) or "the only setting"),
            f" (trial {best.get('trial')}).",
        ),
        table(["", "mAP on validation", "mAP on test", "CMC-1 on test"], rows, numeric=(1, 2, 3)),
        None if test else tag("p", "Not tested yet: that is done once, when the sweep ends."),
    ]
    mean = mean_of(records)
    if mean is not None and mean.num > 1:
        told = f"Over {mean.num} seeds: mAP {mean.value:.3f} on validation, from {mean.low:.3f} to {mean.high:.3f}."
        body.append(tag("p", told))
    return [*body, _no_better(sweep, best)]


def _no_better(sweep: Sweep, best: Mapping[str, Any]) -> Html | None:
    rivals = best.get("not_better_than")
    if not isinstance(rivals, list):
        return None
    if not rivals:
        return tag("p", ONLY_ONE if len(by_setting(sweep.measured)) < 2 else CLEARLY_BEST)
    known = by_setting(sweep.records)
    rows = []
    for setting in dict.fromkeys(str(rival) for rival in rivals):
        mean = mean_of(known.get(setting, []))
        told = told_setting(sweep, known[setting][0].settings) if setting in known else ""
        worth = "" if mean is None else f" (mAP {mean.value:.3f}{DAGGER if mean.partial else ''})"
        rows.append(tag("li", f"{told or setting}{worth}"))
    rest = rows[MAX_TOLD:]
    folded = tag("details", tag("summary", f"and {len(rest):,} more"), tag("ul", rest)) if rest else None
    return tag("div", tag("p", tag("strong", "No better than: "), NOT_BETTER), tag("ul", rows[:MAX_TOLD]), folded)


def _rungs(sweep: Sweep) -> list[tuple[float, str]]:
    """(images seen, text) of each rung of ASHA below the whole budget."""
    scheduler = part(sweep.content, "spec", "scheduler")
    grace, reduction = number(scheduler.get("grace")), number(scheduler.get("reduction"))
    sizes = [record.images_per_epoch for record in sweep.records if record.images_per_epoch > 0]
    whole = max((record.num_epochs for record in sweep.records), default=0)
    if scheduler.get("kind") != "asha" or not grace or not reduction or reduction <= 1 or not sizes:
        return []
    ended = Counter(len(record.history) for record in sweep.records if record.status == "stopped")
    places = sorted({math.ceil(grace * reduction**power) for power in range(64) if grace * reduction**power < whole})
    return [
        (place * float(np.median(sizes)), f"rung {index + 1}: {ended[place]} stopped")
        for index, place in enumerate(places)
    ]


def _header(sweep: Sweep) -> tuple[list[str], list[int]]:
    seeds = ["seed"] if sweep.has_seeds else []
    words = ["trial", *sweep.varying, *seeds, "status"]
    numbers = ["mAP", "CMC-1", "samples", "images seen", "minutes", "core-hours", "start-up / s"]
    return words + numbers, list(range(len(words), len(words) + len(numbers)))


def _row(sweep: Sweep, record: TrialRecord) -> list[Content]:
    low, high = figure(record, "mAP_low"), figure(record, "mAP_high")
    seeds = [str(record.seed)] if sweep.has_seeds else []
    values = [show(record.settings[name]) if name in record.settings else UNKNOWN for name in sweep.varying]
    mark = DAGGER if record.status == "stopped" else ""
    mean = Html(interval_text(figure(record), low, high) + mark) if figure(record) is not None else UNKNOWN
    return [
        tag("code", record.trial), *values, *seeds, _status(record), mean, _number(record.metrics.get("cmc_1")),
        _count(record.num_samples), f"{record.num_images:,.0f}", f"{record.seconds / 60:.1f}",
        f"{record.core_hours:.2f}",
        " + ".join(f"{seconds:.0f}" for seconds in record.startup_s) or UNKNOWN,
    ]  # fmt: skip


def _status(record: TrialRecord) -> Html:
    done = f"{len(record.history)} of {record.num_epochs or '?'} measurements"
    words = {
        "finished": "finished", "stopped": f"stopped early {DAGGER} after {done}", "running": f"under way: {done}",
        "waiting": "waiting", "failed": f"failed after {done}",
    }  # fmt: skip
    reason = record.reason or ""
    short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
    return Html(
        tag("span", words.get(record.status, record.status)) + (tag("br") + tag("small", short) if short else "")
    )


def _folded(header: Sequence[str], rows: list[list[Content]], numeric: Sequence[int], word: str) -> Html:
    """A table; of a long one the rest is folded."""
    shown = table(header, rows[:MAX_UNFOLDED], numeric=numeric)
    rest = rows[MAX_UNFOLDED:]
    if not rest:
        return shown
    return Html(
        shown + tag("details", tag("summary", f"{len(rest):,} more {word}"), table(header, rest, numeric=numeric))
    )


def _over_seeds(sweep: Sweep) -> Html | None:
    if not sweep.has_seeds or not sweep.measured:
        return None
    rows: list[list[Content]] = [
        [
            *(show(found[0].settings[name]) if name in found[0].settings else UNKNOWN for name in sweep.varying),
            f"{mean.value:.3f}{DAGGER if mean.partial else ''}",
            f"{mean.low:.3f} to {mean.high:.3f}",
            f"{mean.num} of {mean.total}",
        ]
        for _, found, mean in ranked_settings(sweep)
    ]
    first = len(sweep.varying)
    header = [*sweep.varying, "mean mAP", "least to largest", "seeds"]
    shown = _folded(header, rows, (first, first + 1, first + 2), "settings")
    return Html(tag("h3", "Settings over their seeds") + shown + tag("h3", "Trials"))


def _interval(figures: Mapping[str, Any], key: str = "mAP") -> Html:
    return interval_text(*(number(figures.get(name)) for name in (key, f"{key}_low", f"{key}_high")))


def _number(value: Any) -> str:
    found = number(value)
    return UNKNOWN if found is None else f"{found:.3f}"


def _count(value: Any) -> str:
    found = number(value)
    return UNKNOWN if found is None else f"{found:,.0f}"


def _side(key: str) -> int | str:
    side = key.rpartition("/")[2]
    return int(side) if side.isdigit() else side

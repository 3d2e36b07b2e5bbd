"""What a sweep cost: core-hours, and where the time went.

In: ``Sweep``. Out: ``Cost``, and the section of the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from wildray.report.page import Content, Html, table, tag
from wildray.report.sweeps.page import section, tiles
from wildray.report.sweeps.records import UNKNOWN, Sweep, number, part, show

SHARED = {
    "simulate": "making the reserve",
    "detect": "detection",
    "mine": "mining",
    "untrained": "measuring untrained networks",
}


@dataclass(frozen=True)
class Cost:
    """Where the time of a sweep went.

    Attributes:
        shared_s: Seconds of each piece of work that was done once for all trials.
        startup_s: From the beginning of trials to their first step, all attempts of all trials.
        training_s: Training with its measurements.
        rest_s: What is left of the trials' time: waiting, saving, ending.
        core_hours: Of the trials.
        wall_s: By the clock, or None.
    """

    shared_s: dict[str, float]
    startup_s: float
    training_s: float
    rest_s: float
    core_hours: float
    wall_s: float | None

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """Add up what the records hold."""
        shared = {
            key: value for key, found in part(sweep.content, "shared", "seconds").items() if (value := number(found))
        }
        startup = training = rest = 0.0
        for record in sweep.records:
            starting = sum(record.startup_s)
            steps = sum(number(epoch.get("seconds")) or 0.0 for epoch in record.history)
            startup, training = startup + starting, training + steps
            rest += max(0.0, record.seconds - starting - steps)
        core_hours = sum(record.core_hours for record in sweep.records)
        return cls(shared, startup, training, rest, core_hours, number(sweep.content.get("seconds")))

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.shared_s.values()) + self.startup_s + self.training_s + self.rest_s

    @property
    def outside_share(self) -> float:
        """Share of the time that is neither training nor its measurements; 0 where there is no time."""
        return 1 - self.training_s / self.total_s if self.total_s > 0 else 0.0


def cost(sweep: Sweep) -> Html:
    """Core-hours, time by phase, and what was shared."""
    found = Cost.of(sweep)
    numbers = [
        (f"{found.core_hours:.3g}", "core-hours of trials"),
        (f"{found.outside_share:.0%}", "of time outside training"),
    ]
    if found.wall_s is not None:
        numbers.append((f"{found.wall_s / 60:,.1f}", "minutes by the clock"))
    attempts = sum(len(record.startup_s) for record in sweep.records)
    if attempts:
        numbers.append((f"{found.startup_s / attempts:.1f}", "seconds to start a trial, mean"))
    phases = [(SHARED.get(key, key), seconds) for key, seconds in found.shared_s.items()]
    phases += [("start-up of trials", found.startup_s), ("training and its measurements", found.training_s)]
    phases.append(("the rest of the trials", found.rest_s))
    rows: list[list[Content]] = [
        [name, f"{seconds / 60:,.1f}", f"{seconds / found.total_s:.1%}" if found.total_s > 0 else UNKNOWN]
        for name, seconds in phases
    ]
    spent = table(["", "minutes", "share"], rows, numeric=(1, 2))
    return section("cost", tiles(numbers), spent, _detected(sweep), _pairs(sweep))


def _detected(sweep: Sweep) -> Html | None:
    counts = part(sweep.content, "shared", "detections")
    words = (("num_media", "media"), ("num_frames", "frames"), ("num_detections", "detections"))
    told = [f"{value:,.0f} {word}" for key, word in words if (value := number(counts.get(key))) is not None]
    return tag("p", f"Detected once: {', '.join(told)}.") if told else None


def _pairs(sweep: Sweep) -> Html | None:
    found = part(sweep.content, "shared").get("pairs")
    sets = [part(entry) for entry in found] if isinstance(found, list) else []
    if not sets:
        return None
    used = {str(entry.get("digest")): 0 for entry in sets}
    for record in sweep.records:
        if record.pairs in used:
            used[record.pairs] += 1
    rows: list[list[Content]] = [
        [
            tag("code", str(entry.get("digest", UNKNOWN))),
            ", ".join(f"{name} {show(value)}" for name, value in part(entry, "settings").items()),
            f"{number(entry.get('num_pairs')) or 0:,.0f}",
            used[str(entry.get("digest"))],
        ]
        for entry in sets
    ]
    title = tag("summary", f"{len(sets):,} sets of pairs for {len(sweep.records):,} trials")
    return tag("details", title, table(["digest", "settings", "pairs", "trials"], rows, numeric=(2, 3)))

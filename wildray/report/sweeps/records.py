"""What a sweep left behind, read for its page, and the plain questions asked of it.

In: ``sweeps/<name>/sweep.json`` and the records of the trials. Out: ``Sweep``; means over trials and the matrix of a
heat map as values, which the figures only draw. The sweep's own classes are not used: a page can be made of records
that another version wrote, and whatever is missing in them is left out of the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.errors import ConfigError, StoreError, nearest
from wildray.report.sweeps.bins import Bins, bins_of
from wildray.store import Store
from wildray.trials import Ledger, TrialRecord
from wildray.units import Interval

DAGGER = "†"
"""Stands beside whatever comes from trials that did not have the whole budget."""
UNKNOWN = "n/a"
"""Stands where a figure or value is not known."""
MAX_OBSERVED = 12
"""A setting with more values than this, of which the sweep file gives no list, is taken for continuous."""


@dataclass(frozen=True)
class Mean:
    """One figure over some trials.

    Attributes:
        value: Their mean; over the finished ones alone, where there are any.
        low, high: The least and the largest of those.
        num: How many those are.
        total: How many trials have the figure.
        partial: None of them had the whole budget.
    """

    value: float
    low: float
    high: float
    num: int
    total: int
    partial: bool


@dataclass(frozen=True)
class Matrix:
    """A mean for each pair of values of two settings.

    Attributes:
        rows: (R,) values of the one, as they are shown.
        columns: (C,) values of the other.
        values: (R, C) float64; NaN where there is no trial.
        counts: (R, C) int64, trials that the mean is taken over.
        totals: (R, C) int64, trials with a figure.
        partial: (R, C) bool, none of them had the whole budget.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    partial: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was recorded.

    Attributes:
        name: Its name.
        content: ``sweep.json``; empty where it was not written yet.
        records: The trials, in the sweep's order.
    """

    name: str
    content: Mapping[str, Any]
    records: tuple[TrialRecord, ...]

    @cached_property
    def search(self) -> dict[str, Any]:
        """Searched names to what the sweep file says of them; of the records alone without it."""
        return part(self.content, "spec", "search") or {name: {} for record in self.records for name in record.settings}

    @cached_property
    def varying(self) -> list[str]:
        """Searched settings of which the trials have more than one value."""
        return [name for name in self.search if len({show(r.settings.get(name)) for r in self.records}) > 1]

    @cached_property
    def measured(self) -> list[TrialRecord]:
        """Trials with mAP that count: finished, stopped or under way, not failed."""
        return [r for r in self.records if r.status != "failed" and figure(r) is not None]

    @cached_property
    def finished(self) -> list[TrialRecord]:
        """Trials that had the whole budget and have mAP."""
        return [r for r in self.measured if r.status == "finished"]

    @cached_property
    def has_seeds(self) -> bool:
        """Whether settings were tried with more than one seed."""
        return len({record.seed for record in self.records}) > 1

    @cached_property
    def num_trials(self) -> int:
        """Trials that are known of, those without a record too."""
        names = self.content.get("trials")
        return len({*(names if isinstance(names, list) else ()), *(record.trial for record in self.records)})

    def listed(self, name: str) -> list[Any]:
        """The values that the sweep file lists for a setting; empty for an interval."""
        dimension = self.search.get(name)
        if isinstance(dimension, list):
            return dimension
        return next((part_of for kind in ("grid", "choice") if (part_of := part(dimension).get(kind))), [])

    def values(self, name: str) -> list[str]:
        """All values of a setting, as shown and in order: of the sweep file's list and of the trials."""
        listed = self.listed(name)
        return ordered([*listed, *(r.settings[name] for r in self.records if name in r.settings)])

    def is_discrete(self, name: str) -> bool:
        """Whether a setting has a list of values."""
        if self.listed(name):
            return True
        return not part(self.search.get(name)) and len(self.values(name)) <= MAX_OBSERVED

    def bins(self, name: str) -> Bins | None:
        """The bins of a setting that was drawn from an interval; None where it has a list of values."""
        if self.is_discrete(name):
            return None
        return bins_of(part(self.search.get(name)), num_trials=sum(name in r.settings for r in self.measured))

    def cells(self, name: str) -> list[str]:
        """What a heat map has a row or column for: all values of a setting, or its bins; empty where it has neither."""
        bins = self.bins(name)
        if bins is not None:
            return bins.labels
        return self.values(name) if self.is_discrete(name) else []

    def cell(self, name: str, value: Any) -> str:
        """Which of ``cells`` a value belongs to."""
        bins = self.bins(name)
        return show(value) if bins is None or number(value) is None else bins.label(float(value))

    def is_category(self, name: str) -> bool:
        """Whether a setting's values are words, of which none is more than another."""
        values = [*self.listed(name), *(r.settings[name] for r in self.records if name in r.settings)]
        return any(_rank(value)[0] == _WORD for value in values)

    def base(self, name: str) -> Any:
        """What the sweep file's ``base`` says of a setting, or None."""
        section, _, field = name.partition(".")
        return part(self.content, "spec", "base", section).get(field)


def read_sweep(store: Store, name: str) -> Sweep:
    """Read what there is of a sweep.

    Raises:
        ConfigError: The store has no sweep of that name.
        StoreError: A record was altered.
    """
    known = sorted(path.name for path in store.path("sweeps").glob("*") if path.is_dir())
    if name not in known:
        hint = nearest(name, known) if known else "'wildray sweep FILE.yaml' makes one."
        raise ConfigError(f"The store {store.root} has no sweep {name!r}. {hint}")
    ledger = Ledger(store, name)
    content = ledger.read_sweep()
    if content is not None and not isinstance(content, dict):
        raise StoreError(f"{ledger.folder / 'sweep.json'} is no record of a sweep: it was altered. Sweep again.")
    names = (content or {}).get("trials")
    places = {trial: place for place, trial in enumerate(names if isinstance(names, list) else ())}
    records = sorted(ledger.all(), key=lambda record: places.get(record.trial, len(places)))
    return Sweep(name, content or {}, tuple(records))


def figure(record: TrialRecord, key: str = "mAP") -> float | None:
    """A figure of a trial's last measurement; None where there is none, or it is not finite."""
    return number(record.metrics.get(key))


def mean_of(records: Iterable[TrialRecord], key: str = "mAP") -> Mean | None:
    """A figure over some trials: over the finished ones, and only where there are none, over the others."""
    pairs = [(value, r.status == "finished") for r in records if (value := figure(r, key)) is not None]
    full = [value for value, whole in pairs if whole]
    used = full or [value for value, _ in pairs]
    if not used:
        return None
    return Mean(sum(used) / len(used), min(used), max(used), len(used), len(pairs), partial=not full)


def matrix(sweep: Sweep, records: Iterable[TrialRecord], row_name: str, column_name: str) -> Matrix:
    """Mean mAP for each pair of values, or bins, over everything else that varies.

    Args:
        sweep: Says which values there are.
        records: Trials; those without one of the settings are left out.
        row_name: Dotted name of the setting of the rows.
        column_name: That of the columns.
    """
    cells: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if row_name in record.settings and column_name in record.settings:
            row, column = (sweep.cell(name, record.settings[name]) for name in (row_name, column_name))
            cells.setdefault((row, column), []).append(record)
    return filled(
        sweep.cells(row_name), sweep.cells(column_name), {place: mean_of(found) for place, found in cells.items()}
    )


def filled(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], Mean | None]) -> Matrix:
    """A matrix from its cells by (row, column); those not given stay empty."""
    shape = (len(rows), len(columns))
    made = Matrix(
        tuple(rows), tuple(columns), np.full(shape, np.nan), np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_),
    )  # fmt: skip
    for (row, column), mean in cells.items():
        if mean is not None and row in rows and column in columns:
            place = rows.index(row), columns.index(column)
            made.values[place], made.counts[place] = mean.value, mean.num
            made.totals[place], made.partial[place] = mean.total, mean.partial
    return made


def part(content: Any, *names: str) -> dict[str, Any]:
    """A part of nested content; empty where there is none."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def show(value: Any) -> str:
    """A setting's value as the page shows it; equal for equal values, however they were spelled."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        interval = _interval(value)
        if interval is None:
            return value
        unit = interval.unit if interval.value != 1 or interval.unit == "s" else interval.unit.removesuffix("s")
        return f"{interval.value:g} {unit}"
    return json.dumps(value, sort_keys=True, default=str)


def ordered(values: Iterable[Any]) -> list[str]:
    """Values as shown, each once: numbers and times by size, times before frames and captures, words as they came."""
    first: dict[str, tuple[int, float, int]] = {}
    for place, value in enumerate(values):
        kind, size = _rank(value)
        first.setdefault(show(value), (kind, size, place))
    return sorted(first, key=lambda text: first[text])


_WORD = 5


def _rank(value: Any) -> tuple[int, float]:
    if value is None or isinstance(value, bool):
        return (0, -1.0 if value is None else float(value))
    if isinstance(value, int | float):
        return (1, float(value))
    interval = _interval(value) if isinstance(value, str) else None
    if interval is None:
        return (_WORD, 0.0)
    return ({"s": 2, "frames": 3, "captures": 4}[interval.unit], interval.value)


def _interval(text: str) -> Interval | None:
    try:
        return Interval(text)
    except ValueError:
        return None

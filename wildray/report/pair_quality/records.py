"""What a study of pair quality left behind, read for its page, and the sums that its charts and sentences need.

In: ``purity/<name>/results.json``. Out: ``Point`` for every setting and collection; ``pooled`` over several footages.
The study's own classes are not used: a page is made of the records alone, whoever wrote them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wildray.errors import ConfigError, StoreError
from wildray.store import Store
from wildray.units import Interval


@dataclass(frozen=True)
class Share:
    """Pairs, and how many of them are right.

    Attributes:
        num_pairs, num_same: Counts.
        low, high: 95 % interval of the share.
        minutes: Footage they are of.
    """

    num_pairs: int
    num_same: int
    low: float
    high: float
    minutes: float

    @property
    def purity(self) -> float:
        """Share of right pairs; NaN without pairs."""
        return self.num_same / self.num_pairs if self.num_pairs else math.nan

    @property
    def per_minute(self) -> float:
        """Right pairs a minute of footage: the yield."""
        return self.num_same / self.minutes if self.minutes else math.nan


@dataclass(frozen=True)
class Point:
    """One setting over one collection.

    Attributes:
        footage, collection: Names.
        advised: Whether what to choose is derived from it.
        frames_per_s: Detection rate.
        linker, min_iou, interval, min_score: The setting.
        gap_s: Median time between the two boxes of a pair; None without pairs.
        share: Of all pairs.
        parts: Of the pairs by animals in the frame.
        num_individuals, num_encounters: That right pairs show.
        num_different, num_false_boxes: Wrong pairs by kind.
    """

    footage: str
    collection: str
    advised: bool
    frames_per_s: float
    linker: str
    min_iou: float
    interval: str
    min_score: float
    gap_s: float | None
    share: Share
    parts: dict[str, Share]
    num_individuals: int
    num_encounters: int
    num_different: int
    num_false_boxes: int

    @property
    def setting(self) -> tuple[str, str, float, float]:
        """Linker, interval, least overlap, confidence."""
        return self.linker, self.interval, self.min_iou, self.min_score


@dataclass(frozen=True)
class Study:
    """A study as it was recorded.

    Attributes:
        name, description: Of the study.
        min_iou: Least overlap of a detection with the animal that it shows.
        points: In the order of collections and of the grid.
    """

    name: str
    description: str
    min_iou: float
    points: tuple[Point, ...]

    @cached_property
    def footages(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(point.footage for point in self.points))

    @cached_property
    def linkers(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(point.linker for point in self.points))

    @cached_property
    def intervals(self) -> tuple[str, ...]:
        """Intervals, the shortest first: those in frames, then those in captures, then those in seconds."""
        units = {"frames": 0, "captures": 1, "s": 2}
        parsed = {Interval(point.interval) for point in self.points}
        return tuple(spelled(one) for one in sorted(parsed, key=lambda one: (units[one.unit], one.value)))

    @cached_property
    def overlaps(self) -> tuple[float, ...]:
        """Least overlaps, ascending."""
        return tuple(sorted({point.min_iou for point in self.points}))

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Confidences, ascending."""
        return tuple(sorted({point.min_score for point in self.points}))

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Least overlap and confidence of the tables: 0.2 where it was tried, and the lowest confidence."""
        return min(self.overlaps, key=lambda value: abs(value - 0.2)), self.scores[0]

    def densest(self, footage: str) -> tuple[Point, ...]:
        """Points of the collection of a footage that was looked at at the highest rate."""
        own = [point for point in self.points if point.footage == footage]
        rate = max(point.frames_per_s for point in own)
        first = next(point.collection for point in own if point.frames_per_s == rate)
        return tuple(point for point in own if point.collection == first)


def read_study(store: Store, name: str) -> Study:
    """Read a study's results.

    Raises:
        ConfigError: There is no study of that name.
        StoreError: Its results were altered.
    """
    if not store.path("purity", name, "results.json").is_file():
        raise ConfigError(f"The store {store.root} has no study of pair quality called {name!r}.")
    content = store.read_json("purity", name, "results.json")
    try:
        base = content["base"]
        points = tuple(_point(row, base) for row in content["rows"])
        return Study(str(content["name"]), str(content["description"]), float(content["min_iou"]), points)
    except (KeyError, TypeError, ValueError) as error:
        path = store.path("purity", name, "results.json")
        raise StoreError(f"{path} is no record of a study ({error!r}): remove it and run the study again.") from None


def _point(row: dict[str, Any], base: dict[str, Any]) -> Point:
    def setting(name: str) -> Any:
        return row["settings"].get(f"mine.{name}", base[name])

    minutes = float(row["minutes"])
    return Point(
        footage=str(row["footage"]),
        collection=str(row["collection"]),
        advised=bool(row["advised"]),
        frames_per_s=float(row["frames_per_s"] or math.nan),
        linker=str(setting("linker")),
        min_iou=float(setting("min_iou")),
        interval=spelled(Interval(str(setting("interval")))),
        min_score=float(setting("min_score")),
        gap_s=row["median_gap_s"],
        share=_share(row, minutes),
        parts={str(part["part"]): _share(part, minutes) for part in row["tables"]["density"]},
        num_individuals=int(row["num_individuals"]),
        num_encounters=int(row["num_encounters"]),
        num_different=int(row["num_different"]),
        num_false_boxes=int(row["num_false_boxes"]),
    )


def spelled(interval: Interval) -> str:
    """An interval as a person writes it: 1frame, 12frames."""
    return str(interval).removesuffix("s") if interval.value == 1 and interval.unit != "s" else str(interval)


def _share(row: dict[str, Any], minutes: float) -> Share:
    return Share(int(row["num_pairs"]), int(row["num_same"]), float(row["low"]), float(row["high"]), minutes)


def pooled(shares: Iterable[Share]) -> Share:
    """Several footages as one: pairs are summed, intervals combined as of independent shares (normal approximation).

    With p = sum n_i p_i / n the variance is sum (n_i / n)^2 s_i^2, where s_i is a quarter of the width of the interval
    of footage i, nearly. Footage without pairs counts by its minutes alone.
    """
    some: Sequence[Share] = list(shares)
    num = sum(share.num_pairs for share in some)
    same = sum(share.num_same for share in some)
    minutes = sum(share.minutes for share in some)
    if not num:
        return Share(0, 0, 0.0, 1.0, minutes)
    known = [share for share in some if share.num_pairs]
    if len(known) == 1:
        return Share(num, same, known[0].low, known[0].high, minutes)
    value = same / num
    spreads = ((share.num_pairs / num * (share.high - share.low) / 2) ** 2 for share in known)
    half = math.sqrt(sum(spreads))
    return Share(num, same, max(0.0, value - half), min(1.0, value + half), minutes)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of the points that no other point beats in both coordinates, by the first one, ascending.

    Args:
        points: (yield, purity) of each; of equal points the first is kept.
    """
    order = sorted(range(len(points)), key=lambda number: (-points[number][0], -points[number][1], number))
    kept, best = [], -math.inf
    for number in order:
        if points[number][1] > best:
            kept.append(number)
            best = points[number][1]
    return kept[::-1]

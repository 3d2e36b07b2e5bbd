"""Counts of pairs of the herds: what ``bench.herds`` measures and ``bench.herds_page`` shows.

In: pairs and right ones of one draw. Out: the same over draws, as a cell of a table. A module of its own, since what
measures imports what shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

HERDS = {
    "koi": "Koi_5652_952_540",
    "pigeons 29033": "Pigeons_29033_960_540_300f",
    "pigeons 8234": "Pigeons_8234_1280_720",
}
FPS = 25.0
"""Of the koi; that of the pigeons is not known."""
RATES = (1, 3, 12)
GAPS = (12, 24, 48, 120)


@dataclass(frozen=True)
class Count:
    """Pairs of one draw at one gap.

    Attributes:
        pairs: How many.
        right: How many join one individual, by the labels as they are.
        mended: The same, with boxes whose label slipped for a frame given their own.
        low: Lower end of the 95 % interval of the share of right ones, over blocks of time.
        high: Its upper end.
    """

    pairs: int
    right: int
    mended: int
    low: float = float("nan")
    high: float = float("nan")


ByGap = Mapping[int, Sequence[Count]]
"""Counts of every draw, by gap in frames."""
Results = Mapping[tuple[str, int, str], ByGap]
"""By herd, by of how many frames one was detected, by linker."""


def by_gap(draws: Sequence[Mapping[int, Count]]) -> dict[int, list[Count]]:
    """Counts of several draws, each by gap, as lists by gap."""
    return {gap: [draw[gap] for draw in draws] for gap in GAPS}


def share(counts: Sequence[Count], what: str = "right") -> float:
    """Share of the pairs of all draws that are right, or right with slips mended; NaN without pairs."""
    pairs = sum(count.pairs for count in counts)
    return sum(getattr(count, what) for count in counts) / pairs if pairs else float("nan")


def cell(counts: Sequence[Count]) -> str:
    """Mean number of pairs, share of right ones, over the draws; the first draw's interval; without slips of labels."""
    pairs = sum(count.pairs for count in counts)
    if not pairs:
        return "none"
    text = f"{pairs / len(counts):,.0f}: {share(counts):.4f}"
    if np.isfinite(counts[0].low):
        text += f" ({counts[0].low:.3f} to {counts[0].high:.3f})"
    return f"{text}, {share(counts, 'mended'):.4f}"

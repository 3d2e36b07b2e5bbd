"""Settings of which every trial has a value of its own, in a few bins, so that a heat map has cells of several trials.

In: what the sweep file says of a setting. Out: edges and labels: of equal width, on the scale that was drawn from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_BINS = 5


@dataclass(frozen=True)
class Bins:
    """Bins of an interval.

    Attributes:
        edges: (N + 1,) ascending; a bin has its lower edge, the last its upper one too.
        whole: Values are whole numbers.
    """

    edges: tuple[float, ...]
    whole: bool = False

    @property
    def labels(self) -> list[str]:
        """(N,) what each bin is called."""
        pairs = zip(self.edges, self.edges[1:], strict=False)
        if not self.whole:
            return [f"{low:.2g} to {high:.2g}" for low, high in pairs]
        spans = [(math.ceil(low), math.ceil(high) - (high != self.edges[-1])) for low, high in pairs]
        return [str(low) if low == high else f"{low} to {high}" for low, high in spans]

    def label(self, value: float) -> str:
        """What the bin of a value is called; values outside belong to the bin beside them."""
        place = bisect_right(self.edges, value) - 1
        return self.labels[min(max(place, 0), len(self.edges) - 2)]


def bins_of(dimension: Mapping[str, Any], *, num_trials: int) -> Bins | None:
    """Bins of a setting that was drawn from an interval: about as many as give each several trials.

    Args:
        dimension: What the sweep file says of it.
        num_trials: Trials that have a value of it.

    Returns:
        None where it has a list of values, or where its interval cannot be read.
    """
    num = min(MOST_BINS, max(2, round(math.sqrt(num_trials))))
    for kind in ("uniform", "loguniform", "integers"):
        ends = dimension.get(kind)
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            continue
        low, high = (float(end) for end in ends)
        if not low < high or (kind == "loguniform" and low <= 0):
            return None
        if kind == "integers":
            num = min(num, int(high - low) + 1)
        if kind == "loguniform":
            inner = [low * (high / low) ** (place / num) for place in range(1, num)]
        else:
            inner = [low + (high - low) * place / num for place in range(1, num)]
        return Bins((low, *inner, high), whole=kind == "integers")
    return None

"""Confidence intervals by bootstrap over whole groups: identities, sequences, blocks of time.

In: figures per query and the identity of each query, or figures per pair and the sequence of each. Out: the interval of
their means. Groups are drawn, not their members: the photographs of one animal resemble each other, and drawing them
singly makes intervals several times too narrow. All figures share the drawn groups, so that the interval of a
difference between two models is paired.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAX_WEIGHTS = 4_000_000
"""Weights held at once, 8 bytes each: a hundred thousand sequences are drawn a few times at a time."""


def intervals(
    figures: Mapping[str, Float64], identities: Int64, *, num_bootstrap: int, confidence: float, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means of several figures over queries.

    Args:
        figures: (Q,) values of each query, by name; finite.
        identities: (Q,) identity of each query, any integers.
        num_bootstrap: Number of draws.
        confidence: Coverage, 0 to 1.
        seed: Seed of the draws.

    Returns:
        (low, high) by name. With fewer than two identities nothing is known of how animals differ: then it is all that
        a figure can be, (0, 1), or (-1, 1) where a value is below 0.
    """
    _, codes = np.unique(identities, return_inverse=True)
    num_identities = int(codes.max()) + 1 if len(codes) else 0
    if num_identities < 2:
        return {name: (-1.0 if (values < 0).any() else 0.0, 1.0) for name, values in figures.items()}
    rng = np.random.default_rng(seed)
    sums = [np.bincount(codes, weights=values, minlength=num_identities) for values in figures.values()]
    totals = np.stack([np.bincount(codes, minlength=num_identities).astype(np.float64), *sums], axis=1)
    drawn = np.empty((num_bootstrap, totals.shape[1]))
    at_once = max(1, MAX_WEIGHTS // num_identities)
    for begin in range(0, num_bootstrap, at_once):
        some = min(at_once, num_bootstrap - begin)
        weights = rng.multinomial(num_identities, np.full(num_identities, 1 / num_identities), size=some)
        drawn[begin : begin + some] = weights @ totals
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    lows, highs = np.quantile(drawn[:, 1:] / drawn[:, :1], edges, axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(figures, lows, highs, strict=True)}

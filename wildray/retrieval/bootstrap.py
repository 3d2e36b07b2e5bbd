"""Confidence intervals by bootstrap over identities.

In: figures per query and the identity of each query. Out: the interval of their means. Identities are drawn, not
queries: the photographs of one animal resemble each other, and drawing them singly makes intervals several times too
narrow. All figures share the drawn identities, so that the interval of a difference between two models is paired.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


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
    weights = rng.multinomial(num_identities, np.full(num_identities, 1 / num_identities), size=num_bootstrap)
    counts = weights @ np.bincount(codes, minlength=num_identities)
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    result = {}
    for name, values in figures.items():
        means = weights @ np.bincount(codes, weights=values, minlength=num_identities) / counts
        low, high = np.quantile(means, edges)
        result[name] = (float(low), float(high))
    return result

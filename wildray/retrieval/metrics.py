"""How well same-animal images rank: average precision, cumulative matching, chance and confidence intervals.

In: unit vectors, and which answers are allowed and right for each query. Out: figures per query, and their means x.

Equal similarities are settled by expectation over all orders of the tied answers: neither the order of the rows nor
luck decides, and a collapsed network, whose similarities are all equal, scores exactly chance. That also gives chance
in closed form: it is the ranking where everything is tied. Breaking ties by row order would reward tables that are
sorted by identity; counting them all as above, as scikit-learn does, scores a collapsed network below chance.

Every positive's rank follows from the number of allowed answers above it, so blocks of queries suffice and no
queries x gallery matrix is ever whole. Similarities are summed in float64: the cosines of a barely trained network
differ only in the seventh digit, which float32 loses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.errors import DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Masks = Callable[[slice], tuple[Bool, Bool]]
"""(B, G) allowed answers and (B, G) right answers (a subset) of a block of queries."""

CMC_RANKS = (1, 5, 10)
"""Ranks at which cumulative matching is reported."""
_BLOCK_BYTES = 64 * 1024 * 1024
"""Size of a block of similarities."""
_DECIMALS = 10
"""Cosines that agree to so many decimals are tied: float64 sums of equal products differ after the fourteenth."""


@dataclass(frozen=True)
class Scores:
    """Figures of each query; NaN where a query has no right answer.

    Attributes:
        average_precision: (Q,) float64, 0 to 1, expected over the orders of ties.
        hits: (Q, K) float64, probability that a right answer is among the first ``CMC_RANKS[k]``: 0 or 1 without ties.
        num_right: (Q,) int64, right answers.
        num_allowed: (Q,) int64, answers that count.
    """

    average_precision: Float64
    hits: Float64
    num_right: Int64
    num_allowed: Int64

    @property
    def answerable(self) -> Bool:
        """(Q,) whether there is a right answer to find."""
        return self.num_right > 0


def score(queries: Float32, gallery: Float32, *, masks: Masks) -> Scores:
    """Rank the gallery for every query by cosine similarity, exactly.

    Args:
        queries: (Q, D) float32 unit vectors.
        gallery: (G, D) float32 unit vectors.
        masks: Allowed and right answers of a block of queries.

    Raises:
        DataError: The vectors are not finite, not of unit norm, or not of one dimension.
    """
    check_vectors(queries, "queries")
    check_vectors(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"Queries have {queries.shape[1]} dimensions and the gallery {gallery.shape[1]}: embed both anew."
        )
    wide = _normalised(gallery).T

    def similarity(block: slice) -> Float64:
        return np.asarray(np.round(_normalised(queries[block]) @ wide, _DECIMALS), dtype=np.float64)

    return _score(len(queries), len(gallery), masks, similarity)


def chance(num_queries: int, num_gallery: int, *, masks: Masks) -> Scores:
    """Expected figures of a random ranking under the same masks, in closed form.

    Args:
        num_queries: Q.
        num_gallery: G.
        masks: As for ``score``.
    """

    def similarity(block: slice) -> Float64:
        return np.zeros((block.stop - block.start, num_gallery))

    return _score(num_queries, num_gallery, masks, similarity)


def check_vectors(vectors: Float32, name: str) -> None:
    """Raise DataError unless (N, D) vectors are finite and of unit norm."""
    if vectors.ndim != 2:
        raise DataError(f"The {name} have shape {vectors.shape}, expected (number, dimensions).")
    if not np.isfinite(vectors).all():
        num_bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise DataError(
            f"{num_bad} of {len(vectors)} vectors of the {name} are not finite: the backbone diverged. "
            "Train again with a lower train.learning_rate, or in fp32."
        )
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if len(norms) and np.abs(norms - 1).max() > 1e-3:
        raise DataError(
            f"A vector of the {name} has norm {norms[np.abs(norms - 1).argmax()]:.4g}, expected unit vectors."
        )


def _normalised(vectors: Float32) -> Float64:
    wide = vectors.astype(np.float64)  # a float32 unit vector is off by up to 1e-7, which would settle close rankings
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float64)


def _score(num_queries: int, num_gallery: int, masks: Masks, similarity: Callable[[slice], Float64]) -> Scores:
    precision = np.full(num_queries, np.nan)
    hits = np.full((num_queries, len(CMC_RANKS)), np.nan)
    num_right = np.zeros(num_queries, dtype=np.int64)
    num_allowed = np.zeros(num_queries, dtype=np.int64)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, num_gallery + 1))])
    size = max(1, _BLOCK_BYTES // (8 * max(1, num_gallery)))
    for start in range(0, num_queries, size):
        block = slice(start, min(start + size, num_queries))
        similarities = similarity(block)
        allowed, right = masks(block)
        num_right[block], num_allowed[block] = right.sum(axis=1), allowed.sum(axis=1)
        for row in range(block.stop - block.start):
            if num_right[start + row]:
                precision[start + row], hits[start + row] = _score_query(
                    similarities[row, allowed[row]], similarities[row, right[row]], harmonic
                )
    return Scores(precision, hits, num_right, num_allowed)


def _score_query(allowed: Float64, right: Float64, harmonic: Float64) -> tuple[float, Float64]:
    """Expected average precision and hits of one query.

    Args:
        allowed: (N,) similarities of the allowed answers.
        right: (R,) similarities of the right ones among them.
        harmonic: Harmonic numbers from 0 to at least N.
    """
    ordered = np.sort(allowed)
    values, counts = np.unique(-right, return_counts=True)  # groups of tied right answers, most similar first
    above = len(ordered) - np.searchsorted(ordered, -values, side="right")
    tied = len(ordered) - np.searchsorted(ordered, -values, side="left") - above
    right_above = np.cumsum(counts) - counts
    # A right answer at place j = 1..tied of its group has, on average, precision
    # (right_above + 1 + (j - 1) slope) / (above + j); sum over j in closed form with harmonic numbers.
    slope = np.where(tied > 1, (counts - 1) / np.maximum(tied - 1, 1), 0.0)
    offset = right_above + 1 - slope * (above + 1)
    summed = slope * tied + offset * (harmonic[above + tied] - harmonic[above])
    precision = float((counts / tied * summed).sum() / len(right))
    first = [_hit(int(above[0]), int(tied[0]), int(counts[0]), k) for k in CMC_RANKS]
    return precision, np.array(first)


def _hit(above: int, tied: int, right: int, k: int) -> float:
    """Probability that one of ``right`` among ``tied`` equals, below ``above`` wrong ones, is in the first k places."""
    places = min(k - above, tied)
    if places <= 0:
        return 0.0
    miss = 1.0
    for place in range(places):
        miss *= max(tied - right - place, 0) / (tied - place)
    return 1.0 - miss


def columns(scores: Scores) -> dict[str, Float64]:
    """The figures of the answerable queries by their names: ``mAP``, ``cmc_1``, ``cmc_5``, ``cmc_10``; (Q',) each."""
    rows = scores.answerable
    hits = {f"cmc_{k}": scores.hits[rows, index] for index, k in enumerate(CMC_RANKS)}
    return {"mAP": scores.average_precision[rows], **hits}

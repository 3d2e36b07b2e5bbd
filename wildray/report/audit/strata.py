"""Strata of a pair set, how many pairs each gives to the sample, and which.

In: facts of all pairs. Out: ``Strata`` and the rows drawn. Strata are cells of density x gap x overlap. Each gives a
number in proportion to the square root of its size (Bankier 1988, power allocation with exponent 1/2), at least two:
in proportion to the size, crowded frames, where mistakes are, would give none; equal numbers would leave few for the
stratum that holds most pairs, and the purity of the whole set would be known badly. Every pair of a stratum is drawn
with equal chance, so that weights N / n make the estimate of the whole set unbiased.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

AXES = ("density", "gap_s", "iou")
"""Facts that cut a set into strata, the one that says most about mistakes first."""
MIN_DRAWN = 2
"""Pairs that each stratum gives, where it has them: one alone says nothing of how pairs in it differ."""


@dataclass(frozen=True)
class Strata:
    """The strata of a set.

    Attributes:
        code: (P,) stratum of each pair, from 0.
        labels: Of each stratum, the class of each axis that cuts, such as ``{"density": "2 to 3"}``.
        size: (H,) pairs in each.
    """

    code: Int64
    labels: list[dict[str, str]]
    size: Int64


def stratify(facts: Mapping[str, Float64], edges: Mapping[str, Sequence[float]], *, max_strata: int) -> Strata:
    """Cut a set into the cells that hold pairs.

    Args:
        facts: (P,) values by axis.
        edges: Of each axis, ascending values at which a further class begins.
        max_strata: With more cells than this, the last axis is left out, then the one before it.
    """
    number = len(next(iter(facts.values())))
    for used in range(len(AXES), -1, -1):
        axes = AXES[:used]
        classes = [np.searchsorted(np.asarray(edges[axis]), facts[axis], side="right") for axis in axes]
        cells = np.stack(classes, axis=1) if axes else np.zeros((number, 1), dtype=np.int64)
        found, code = np.unique(cells, axis=0, return_inverse=True)
        if len(found) <= max(max_strata, 1):
            break
    names = {axis: class_names(edges[axis], whole=axis == "density") for axis in axes}
    labels = [{axis: names[axis][place] for axis, place in zip(axes, cell, strict=False)} for cell in found.tolist()]
    code = np.asarray(code, dtype=np.int64).reshape(-1)
    return Strata(code, labels, np.bincount(code, minlength=len(found)))


def class_names(edges: Sequence[float], *, whole: bool) -> list[str]:
    """A name for each class between edges: ``under 0.35``, ``0.35 to 0.6``, ``0.6 and more``; whole: ``2 to 3``."""
    if not edges:
        return ["all"]
    if whole:
        bounds = [1, *(int(edge) for edge in edges)]
        inner = [f"{low}" if high - low <= 1 else f"{low} to {high - 1}" for low, high in itertools.pairwise(bounds)]
        return [*inner, f"{bounds[-1]} and more"]
    inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return [f"under {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def allocate(size: Int64, num_pairs: int) -> Int64:
    """(H,) how many pairs each stratum gives.

    Args:
        size: (H,) pairs in each stratum, at least 1.
        num_pairs: Pairs wanted; with fewer there, all are drawn. At least H.

    Returns:
        Proportional to the square roots of the sizes, by highest averages, at least ``MIN_DRAWN``, at most the size.
    """
    drawn = np.minimum(size, MIN_DRAWN if MIN_DRAWN * len(size) <= num_pairs else 1)
    for _ in range(min(num_pairs, int(size.sum())) - int(drawn.sum())):
        drawn[np.argmax(np.where(drawn < size, np.sqrt(size) / (drawn + 1), -1))] += 1
    return np.asarray(drawn, dtype=np.int64)


def draw(strata: Strata, drawn: Int64, rng: np.random.Generator) -> Int64:
    """Rows of the pairs that are drawn, in the order in which they are judged.

    The order is random, so that a reviewer who stops early has judged a random part of every stratum.

    Args:
        strata: The strata.
        drawn: (H,) as ``allocate`` gives it.
        rng: Decides.
    """
    rows = [
        rng.choice(np.flatnonzero(strata.code == number), count, replace=False) for number, count in enumerate(drawn)
    ]
    return np.asarray(rng.permutation(np.concatenate(rows)), dtype=np.int64)

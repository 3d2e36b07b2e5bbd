"""How pure a set of pairs is: the share that joins one individual, with its interval, and what the set covers.

In: columns of judged pairs. Out: ``Purity``, and tables of it by camera, density, gap, overlap and margin. Pure
functions; who judged, a truth file or a person, makes no difference here. The interval is of whole sequences drawn with
replacement, since the pairs of one sequence are right or wrong together. Within a single sequence blocks of time are
drawn, ``BLOCK_S`` long or as long as the longest gap of the pairs, whichever is longer: pairs further apart than that
share no frame. It is never narrower than Wilson's (1927) of as many independent pairs, or a set without a wrong pair
would be pure beyond doubt. The alternative, an interval of independent pairs alone, is several times too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wildray.bootstrap import intervals

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SAME, DIFFERENT, FALSE_BOX = 1, 0, -1
"""Verdicts: one individual; two individuals; one box at least shows no animal. A box of a part of one shows it."""
BLOCK_S = 2.0
"""Least length of a block of time within a single sequence: at camera-trap speeds an animal has moved on by then."""
NUM_BOOTSTRAP = 1000
CONFIDENCE = 0.95
DENSITY_EDGES = (0, 1, 2, 4, 8, math.inf)
DENSITY_NAMES = ("0", "1", "2-3", "4-7", "8+")
GAP_EDGES = (0.0, 0.2, 1.0, 5.0, 20.0, 60.0, 600.0, math.inf)
GAP_NAMES = ("under 0.2 s", "0.2 to 1 s", "1 to 5 s", "5 to 20 s", "20 to 60 s", "1 to 10 min", "10 min and more")
IOU_EDGES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, math.inf)
IOU_NAMES = ("under 0.1", "0.1 to 0.2", "0.2 to 0.3", "0.3 to 0.5", "0.5 to 0.7", "0.7 and more")
MARGIN_EDGES = (-math.inf, 0.0, 0.1, 0.25, 0.5, math.inf)
MARGIN_NAMES = ("under 0", "0 to 0.1", "0.1 to 0.25", "0.25 to 0.5", "0.5 and more")
Breakdown = Literal["camera", "density", "gap", "iou", "margin"]
BREAKDOWNS: tuple[Breakdown, ...] = ("camera", "density", "gap", "iou", "margin")


@dataclass(frozen=True, eq=False)
class JudgedPairs:
    """Pairs and what somebody who knows says of them, a column each.

    Attributes:
        verdict: (P,) int8, ``SAME``, ``DIFFERENT`` or ``FALSE_BOX``.
        identity: (P,) int64, a number for the individual of a pair that is ``SAME``; -1 where it is not known.
        sequence: (P,) int64, id of the sequence.
        camera: (P,) strings.
        time_s: (P,) float64, time of the earlier box; within a sequence from one origin.
        gap_s: (P,) float64, time between the two boxes.
        iou: (P,) float64, their overlap.
        margin: (P,) float64, how far the runner-up match was.
        shape_iou: (P,) float64, their overlap were their centres one: 1 where the box keeps its shape and size. What
            an animal that turns, or comes nearer, lowers; corner jitter of 5 % alone gives about 0.9.
        num_animals: (P,) int64, animals in the frame of the earlier box.
        partial: (P,) bool, whether one box at least shows a part of an animal that another box shows better.
    """

    verdict: npt.NDArray[np.int8]
    identity: Int64
    sequence: Int64
    camera: npt.NDArray[np.generic]
    time_s: Float64
    gap_s: Float64
    iou: Float64
    margin: Float64
    shape_iou: Float64
    num_animals: Int64
    partial: Bool

    def __len__(self) -> int:
        return len(self.verdict)

    def where(self, keep: Bool | Int64) -> JudgedPairs:
        """The pairs that ``keep`` marks or numbers."""
        return JudgedPairs(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(frozen=True)
class Purity:
    """What a set of pairs is worth.

    Attributes:
        purity: Share of the pairs that are ``SAME``; None without pairs.
        low, high: Its interval.
        num_pairs: Pairs.
        num_same, num_different, num_false_boxes: By verdict; they add up to the pairs.
        num_partial: Pairs, of any verdict, with a box that shows a part of an animal.
        num_individuals: Individuals that a right pair shows.
        num_encounters: Individuals counted once for each sequence in which a right pair shows them.
        num_groups: Sequences, or blocks of time, drawn for the interval; with fewer than two nothing is known.
        block_s: Length of the blocks; None where whole sequences were drawn.
        gap_s: 5, 50 and 95 % quantile of the time between the boxes of right pairs.
        iou: Median overlap of right pairs: near 1 the two crops are nearly one picture.
        shape_iou: Median of the same with one centre: how far the pose keeps the box's shape and size.
    """

    purity: float | None
    low: float
    high: float
    num_pairs: int
    num_same: int
    num_different: int
    num_false_boxes: int
    num_partial: int
    num_individuals: int
    num_encounters: int
    num_groups: int
    block_s: float | None
    gap_s: tuple[float, float, float] | None
    iou: float | None
    shape_iou: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def purity(pairs: JudgedPairs, *, seed: int = 0, num_bootstrap: int = NUM_BOOTSTRAP) -> Purity:
    """Purity, interval and coverage of some pairs; the order of the rows makes no difference.

    Args:
        pairs: Judged pairs.
        seed: Of the draws.
        num_bootstrap: Number of draws.
    """
    right = pairs.verdict == SAME
    num, num_same = len(pairs), int(right.sum())
    groups, block_s = _groups(pairs)
    low, high = _interval(right, groups, seed=seed, num_bootstrap=num_bootstrap)
    known = right & (pairs.identity >= 0)
    encounters = np.stack([pairs.identity[known], pairs.sequence[known]])
    gaps = np.quantile(pairs.gap_s[right], (0.05, 0.5, 0.95)).tolist() if num_same else None
    return Purity(
        purity=num_same / num if num else None,
        low=low,
        high=high,
        num_pairs=num,
        num_same=num_same,
        num_different=int((pairs.verdict == DIFFERENT).sum()),
        num_false_boxes=int((pairs.verdict == FALSE_BOX).sum()),
        num_partial=int(pairs.partial.sum()),
        num_individuals=len(np.unique(encounters[0])),
        num_encounters=np.unique(encounters, axis=1).shape[1],
        num_groups=len(np.unique(groups)),
        block_s=block_s,
        gap_s=(gaps[0], gaps[1], gaps[2]) if gaps else None,
        iou=float(np.median(pairs.iou[right])) if num_same else None,
        shape_iou=float(np.median(pairs.shape_iou[right])) if num_same else None,
    )


def purity_by(
    pairs: JudgedPairs, breakdown: Breakdown, *, seed: int = 0, num_bootstrap: int = NUM_BOOTSTRAP
) -> dict[str, Purity]:
    """Purity of each part of the pairs, in the order of the parts; parts without pairs are left out.

    Args:
        pairs: Judged pairs.
        breakdown: ``camera``; ``density``, animals in the frame; ``gap``, ``iou`` or ``margin`` of the pair.
        seed: Of the draws.
        num_bootstrap: Number of draws.
    """
    names, part = _parts(pairs, breakdown)
    some = np.unique(part).tolist()
    return {names[n]: purity(pairs.where(part == n), seed=seed, num_bootstrap=num_bootstrap) for n in some}


def _parts(pairs: JudgedPairs, breakdown: Breakdown) -> tuple[Sequence[str], Int64]:
    """Names of the parts, and (P,) the part of each pair."""
    if breakdown == "camera":
        names, part = np.unique(pairs.camera.astype(np.str_), return_inverse=True)
        return [str(name) for name in names], part.astype(np.int64)
    columns = {
        "density": (DENSITY_NAMES, DENSITY_EDGES, pairs.num_animals),
        "gap": (GAP_NAMES, GAP_EDGES, pairs.gap_s),
        "iou": (IOU_NAMES, IOU_EDGES, pairs.iou),
        "margin": (MARGIN_NAMES, MARGIN_EDGES, pairs.margin),
    }
    bins, edges, values = columns[breakdown]
    # stored as float32: 0.2 must not fall below the edge that is called 0.2
    place = np.searchsorted(np.asarray(edges) - 1e-6, values, side="right") - 1
    return bins, np.clip(place, 0, len(bins) - 1).astype(np.int64)


def _groups(pairs: JudgedPairs) -> tuple[Int64, float | None]:
    """(P,) what is drawn as a whole: the sequence, or within a single one the block of time, and the block's length."""
    if len(np.unique(pairs.sequence)) != 1:
        return pairs.sequence, None
    block_s = max(BLOCK_S, float(pairs.gap_s.max()))
    return np.floor((pairs.time_s - pairs.time_s.min()) / block_s).astype(np.int64), block_s


def _interval(right: Bool, groups: Int64, *, seed: int, num_bootstrap: int) -> tuple[float, float]:
    if not len(right):
        return 0.0, 1.0
    drawn = intervals(
        {"right": right.astype(np.float64)}, groups, num_bootstrap=num_bootstrap, confidence=CONFIDENCE, seed=seed
    )["right"]
    independent = wilson(int(right.sum()), len(right))
    return min(drawn[0], independent[0]), max(drawn[1], independent[1])


def wilson(num_right: int, num: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share of independent draws (JASA 22, 1927); it has a width where all are right, too.

    Args:
        num_right: Draws that are right.
        num: Draws, at least 1.
        confidence: Coverage.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, wide = num_right / num, z * z / num
    centre = share + wide / 2
    spread = z * math.sqrt(share * (1 - share) / num + wide / (4 * num))
    # where all are right, or none is, the end is 1 or 0 itself and not within rounding of it
    low = 0.0 if num_right == 0 else (centre - spread) / (1 + wide)
    return low, 1.0 if num_right == num else (centre + spread) / (1 + wide)

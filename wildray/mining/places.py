"""Places: spots of a scene where boxes of one size stand again and again.

In: boxes that belong to groups (sequences, cameras) and within them to moments (frames, sequences). Out: for each group
the spots that are taken in many of its moments. Boxes of some moments are tried as spots instead of all against all:
that grows with the boxes and not with their square, and a clustering with a fixed grid would cut spots in two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.mining.linkers import aligned_iou, crossings
from wildray.mining.sequences import group_medians

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Places:
    """Spots where many boxes of a group stand.

    Attributes:
        xyxy: (4, P) float32 median box of each spot.
        group: (P,) int64 its group, ascending.
        presence: (P,) float64 share of the group's moments with a box there.
        member_place: (M,) int64 spot of each membership.
        member_row: (M,) int64 its box; a box may stand at several spots, or at none.
    """

    xyxy: Float32
    group: Int64
    presence: npt.NDArray[np.float64]
    member_place: Int64
    member_row: Int64


def find_places(
    xyxy: Float32, group: Int64, moment: Int64, num_moments: Int64, *, iou: float, num_probes: int, share: float
) -> Places:
    """Spots of each group that are taken in at least ``share`` of its moments.

    Boxes of a few moments, evenly spread, are tried: those around which most moments have a box come first, and what
    overlaps with an earlier one is left out. A spot is then the median of the boxes around it.

    Args:
        xyxy: (4, N) boxes, ordered by group and moment.
        group: (N,) ascending.
        moment: (N,) ascending, unique over groups.
        num_moments: (G,) moments of each group, those without boxes too.
        iou: Least overlap of a box with the spot it stands at.
        num_probes: Moments per group whose boxes are tried.
        share: Least share of moments.
    """
    starts = np.searchsorted(group, np.arange(len(num_moments) + 1)).astype(np.int64)
    tried = probes(group, moment, num_probes)
    near_try, near_row = around(xyxy[:, tried], group[tried], xyxy, starts, iou)
    presence = num_distinct(near_try, moment[near_row], len(tried)) / num_moments[group[tried]]
    enough = presence >= share
    kept = _undominated(tried, presence, enough, near_try, near_row)
    renumbered = np.full(len(tried), -1)
    renumbered[kept] = np.arange(len(kept))
    of_kept = renumbered[near_try] >= 0
    place, row = renumbered[near_try[of_kept]], near_row[of_kept]
    medians = np.stack([group_medians(corner[row], place, len(kept)) for corner in xyxy]).astype(np.float32)
    groups = group[tried[kept]]
    place, row = around(medians, groups, xyxy, starts, iou)
    presence = num_distinct(place, moment[row], len(kept)) / num_moments[groups]
    return Places(medians, groups, presence, place, row)


def probes(group: Int64, moment: Int64, num_probes: int) -> Int64:
    """Rows of the boxes of up to ``num_probes`` evenly spread moments with boxes of each group."""
    if not len(group):
        return np.zeros(0, dtype=np.int64)
    first = np.append(True, np.diff(moment) != 0)
    rank = np.cumsum(first) - 1
    begins = np.append(True, np.diff(group) != 0)
    first_rank = rank[np.flatnonzero(begins)]
    run = np.cumsum(begins) - 1
    count = np.append(first_rank[1:], rank[-1] + 1) - first_rank
    within, total = rank - first_rank[run], count[run]
    num_taken = np.minimum(total, num_probes)
    # the moment is taken where a further multiple of total / num_taken is passed
    taken = (within * num_taken) // total != ((within - 1) * num_taken) // total
    return np.flatnonzero(taken)


def around(places: Float32, groups: Int64, xyxy: Float32, starts: Int64, iou: float) -> tuple[Int64, Int64]:
    """(place, row) of every box that overlaps a place of its group by at least ``iou``."""
    found_place, found_row = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    own, one = np.arange(len(groups)), np.ones(len(groups), dtype=np.int64)
    for _, place, row in crossings(own, one, starts[groups], starts[groups + 1] - starts[groups]):
        hit = aligned_iou(places[:, place], xyxy[:, row]) >= iou
        found_place.append(place[hit])
        found_row.append(row[hit])
    return np.concatenate(found_place), np.concatenate(found_row)


def num_distinct(place: Int64, moment: Int64, num_places: int) -> Int64:
    """(P,) different moments of each place."""
    order = np.lexsort((moment, place))
    place, moment = place[order], moment[order]
    new = np.ones(len(place), dtype=bool)
    new[1:] = (np.diff(place) != 0) | (np.diff(moment) != 0)
    return np.bincount(place[new], minlength=num_places)


def _undominated(
    tried: Int64, presence: npt.NDArray[np.float64], enough: Bool, near_try: Int64, near_row: Int64
) -> Int64:
    """Tries that stay after non-maximum suppression by presence (of equal ones the earlier), in their order."""
    number = np.full(int(tried.max(initial=-1)) + 1, -1)
    number[tried] = np.arange(len(tried))
    inside = near_row < len(number)
    a, b = near_try[inside], number[near_row[inside]]
    rank = np.empty(len(tried), dtype=np.int64)
    rank[np.lexsort((np.arange(len(tried)), -presence))] = np.arange(len(tried))
    edge = (b >= 0) & enough[a] & enough[np.maximum(b, 0)] & (rank[a] < rank[b])
    a, b = a[edge], b[edge]
    kept, left = np.zeros(len(tried), dtype=bool), enough.copy()
    while left.any():
        alive = left[a] & left[b]
        a, b = a[alive], b[alive]
        best = left.copy()
        best[b] = False
        kept |= best
        left &= ~best
        left[b[best[a]]] = False
    return np.flatnonzero(kept)

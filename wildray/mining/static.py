"""Static false detections: which boxes stand where nothing ever moves.

In: every stored box of whole cameras (of any score), the frames that were looked at, empty ones too, and the change
that the detector stage measured inside each box. Out: for every box whether it is static, with the evidence. Rocks,
stumps and logos overlap with themselves better than any animal does, so unless they are taken out first they make up
the surest of all pairs.

A *place* is a spot where boxes of one size stand in many frames. Two kinds of evidence decide:

* recurrence: something stood at the very same place on different days, or hours apart, in most of what the camera
  recorded in between, also in clips that are otherwise empty. No animal does that, so such a place is static whatever
  moves in it.
* stillness: within one sequence a box stood there in most frames and its inside changed no more than the background.
  A sleeping animal can do that too: where the camera's other sequences show the place empty, it is no rock, and
  where the change inside is unknown (results files without their media) nothing is concluded.

The alternative, the usual elimination of repeated detections by counting equal boxes in a folder, cannot tell a rock
from an animal that rests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.config import MineConfig
from wildray.mining.linkers import aligned_iou, crossings
from wildray.mining.sequences import group_medians

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

MIN_FRAMES = 4
"""A sequence of fewer frames looked at says nothing about stillness, and weighs less where it shows a place empty."""
MIN_SEQUENCES = 3
"""A place must be taken in so many sequences to recur: a visitor comes back to one spot by chance. Where clocks are
missing and files may be of one visit, they must be of ``MIN_FRAMES`` frames each, and stills count for a quarter."""
LONGER_THAN = 16
"""A place is weighed against at least so many sequences, as far as the camera has them, not only its own first to last:
else any three visits in a row to one spot of a busy camera would do."""
SELDOM = 0.25
"""A place was a visitor's where no larger share of the camera's other sequences than this has a box there."""
MIN_EMPTY = 0.5
"""Least weight of the sequences that show a place empty: two frames, since any one may have missed a rock."""
NUM_PROBES = 16
"""Frames of a sequence whose boxes are tried as places: one taken in 30 % of the frames is missed in 0.3 % of cases."""
NUM_SEQUENCE_PROBES = 64
"""Sequences of a stretch whose places are tried as recurring ones, and that are asked whether a place was empty."""
FAR_S = 3600.0
"""Sequences further apart than this, in seconds, are different visits."""


@dataclass(frozen=True)
class Scene:
    """All boxes of some stretches, ordered by frame, with what they stand on.

    A stretch is what one camera recorded, or a long part of it: the sequences that are weighed against each other.

    Attributes:
        xyxy: (4, N) float32 corners in one unit per camera.
        motion: (N,) float32 change inside the box in [0, 1]; NaN unknown.
        frame: (N,) int64 frame of each box, ascending.
        frame_sequence: (F,) int64 sequence of each frame looked at, ascending; every sequence has frames.
        stretch: (S,) int64 stretch of each sequence, ascending.
        time_s: (S,) float64 time of its begin, NaN without a clock; ascending within a stretch, NaN first.
    """

    xyxy: Float32
    motion: Float32
    frame: Int64
    frame_sequence: Int64
    stretch: Int64
    time_s: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What was decided of each box.

    Attributes:
        static: (N,) bool.
        presence: (N,) float32, share of its sequence's frames looked at in which a box stood at its place; a box of
            no place has the share of its own frame.
        motion: (N,) float32, median change inside the boxes of its place in its sequence; NaN unknown.
    """

    static: Bool
    presence: Float32
    motion: Float32


@dataclass(frozen=True)
class _Places:
    """Spots where many boxes of a group stand: their median boxes, groups, and (place, row) memberships."""

    xyxy: Float32
    group: Int64
    presence: npt.NDArray[np.float64]
    member_place: Int64
    member_row: Int64


def find_static(scene: Scene, config: MineConfig) -> Verdict:
    """Decide of every box whether it is a static false detection.

    Args:
        scene: The boxes, of any score.
        config: ``static_iou``, ``static_presence``, ``static_motion``, ``static_span``.
    """
    num_frames = np.bincount(scene.frame_sequence, minlength=len(scene.stretch))
    sequence = scene.frame_sequence[scene.frame]
    spots = _find_places(
        scene.xyxy,
        sequence,
        scene.frame,
        num_frames,
        iou=config.static_iou,
        num_probes=NUM_PROBES,
        share=config.static_presence / 2,
    )
    stretch = scene.stretch[spots.group]
    num_sequences = np.bincount(scene.stretch)
    haunts = _find_places(
        spots.xyxy,
        stretch,
        spots.group,
        num_sequences,
        iou=(1 + config.static_iou)
        / 2,  # a busy trail has an animal about anywhere, but not in the same spot each time
        num_probes=NUM_SEQUENCE_PROBES,
        share=0.0,
    )
    known = np.isfinite(scene.motion[spots.member_row])
    change = group_medians(scene.motion[spots.member_row[known]], spots.member_place[known], len(spots.group)).astype(
        np.float32
    )
    still = (
        (spots.presence >= config.static_presence)
        & (num_frames[spots.group] >= MIN_FRAMES)
        & (change <= config.static_motion)
    )
    still[still] = ~_visited(spots, np.flatnonzero(still), scene, config)
    static = np.zeros(len(sequence), dtype=bool)
    static[spots.member_row[still[spots.member_place]]] = True
    static[_recurring(haunts, spots, scene, config)] = True
    presence = (1.0 / num_frames[sequence]).astype(np.float32)
    np.maximum.at(presence, spots.member_row, spots.presence[spots.member_place].astype(np.float32))
    motion = scene.motion.copy()
    motion[spots.member_row] = change[spots.member_place]
    return Verdict(static, presence, motion)


def _find_places(
    xyxy: Float32, group: Int64, moment: Int64, num_moments: Int64, *, iou: float, num_probes: int, share: float
) -> _Places:
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
    tried = _probes(group, moment, num_probes)
    near_try, near_row = _around(xyxy[:, tried], group[tried], xyxy, starts, iou)
    presence = _num_distinct(near_try, moment[near_row], len(tried)) / num_moments[group[tried]]
    enough = presence >= share
    kept = _undominated(tried, presence, enough, near_try, near_row)
    renumbered = np.full(len(tried), -1)
    renumbered[kept] = np.arange(len(kept))
    of_kept = renumbered[near_try] >= 0
    place, row = renumbered[near_try[of_kept]], near_row[of_kept]
    medians = np.stack([group_medians(corner[row], place, len(kept)) for corner in xyxy]).astype(np.float32)
    groups = group[tried[kept]]
    place, row = _around(medians, groups, xyxy, starts, iou)
    presence = _num_distinct(place, moment[row], len(kept)) / num_moments[groups]
    return _Places(medians, groups, presence, place, row)


def _probes(group: Int64, moment: Int64, num_probes: int) -> Int64:
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
    probes = np.minimum(total, num_probes)
    # the moment is taken where a further multiple of total / probes is passed
    taken = (within * probes) // total != ((within - 1) * probes) // total
    return np.flatnonzero(taken)


def _around(places: Float32, groups: Int64, xyxy: Float32, starts: Int64, iou: float) -> tuple[Int64, Int64]:
    """(place, row) of every box that overlaps a place of its group by at least ``iou``."""
    found_place, found_row = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    own, one = np.arange(len(groups)), np.ones(len(groups), dtype=np.int64)
    for _, place, row in crossings(own, one, starts[groups], starts[groups + 1] - starts[groups]):
        hit = aligned_iou(places[:, place], xyxy[:, row]) >= iou
        found_place.append(place[hit])
        found_row.append(row[hit])
    return np.concatenate(found_place), np.concatenate(found_row)


def _num_distinct(place: Int64, moment: Int64, num_places: int) -> Int64:
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


def _recurring(haunts: _Places, spots: _Places, scene: Scene, config: MineConfig) -> Int64:
    """Rows of the boxes at places that are taken in most of what a camera recorded over ``static_span`` or longer."""
    pairs = np.unique(np.stack([haunts.member_place, spots.group[haunts.member_row]], axis=1), axis=0)
    place, taken = pairs[:, 0], pairs[:, 1]
    count = np.bincount(place, minlength=len(haunts.group))
    files = np.bincount(place, weights=_weight(scene)[taken], minlength=len(haunts.group))
    some = np.flatnonzero(count)
    heads = (np.cumsum(count) - count)[some]
    first, last = taken[heads], taken[heads + count[some] - 1]
    clocked = np.isfinite(scene.time_s[first])
    span = scene.time_s[last] - np.where(clocked, scene.time_s[first], 0.0)
    long = np.where(clocked, span >= config.static_span.seconds, files[some] >= MIN_SEQUENCES)
    weighed = np.maximum(last - first + 1, np.minimum(np.bincount(scene.stretch)[scene.stretch[first]], LONGER_THAN))
    # more than half by one standard deviation of a fair coin thrown as often: all of 3, 6 of 8, 10 of 16, 36 of 64
    recurs = long & (count[some] >= MIN_SEQUENCES) & (count[some] >= (weighed + np.sqrt(weighed)) / 2)
    starts = np.searchsorted(scene.frame_sequence[scene.frame], np.arange(len(scene.stretch) + 1))
    begin, end = starts[first[recurs]], starts[last[recurs] + 1]
    rows = [np.zeros(0, dtype=np.int64)]
    medians = haunts.xyxy[:, some[recurs]]
    own, one = np.arange(len(begin)), np.ones(len(begin), dtype=np.int64)
    for _, place, row in crossings(own, one, begin, end - begin):
        rows.append(row[aligned_iou(medians[:, place], scene.xyxy[:, row]) >= config.static_iou])
    return np.concatenate(rows)


def _visited(spots: _Places, asked: Int64, scene: Scene, config: MineConfig) -> Bool:
    """(A,) whether other sequences of the stretch show the place of a spot empty, and hardly any a box there.

    Empty counts whenever it was, taken only hours off: a sleeper sleeps on in the next clip.

    Args:
        spots: Places of sequences.
        asked: (A,) the spots in question.
        scene: What was looked at.
        config: ``static_iou``.
    """
    weight, sequences = _weight(scene), np.arange(len(scene.stretch))
    probed = sequences[_probes(scene.stretch, sequences, NUM_SEQUENCE_PROBES)]
    probe_starts = np.searchsorted(scene.stretch[probed], np.arange(int(scene.stretch.max(initial=-1)) + 2))
    group = spots.group[asked]
    stretch = scene.stretch[group]
    in_probe = np.flatnonzero(np.isin(spots.group, probed))
    starts = np.searchsorted(scene.stretch[spots.group[in_probe]], np.arange(len(probe_starts)))
    at, there = _around(spots.xyxy[:, asked], stretch, spots.xyxy[:, in_probe], starts, config.static_iou)
    at, there = np.unique(np.stack([at, spots.group[in_probe[there]]]), axis=1)
    far = _far(scene, group[at], there)
    taken_far = np.bincount(at[far], weights=weight[there[far]], minlength=len(asked))
    other = there != group[at]
    taken = np.bincount(at[other], weights=weight[there[other]], minlength=len(asked))
    total = np.bincount(scene.stretch[probed], weights=weight[probed], minlength=len(probe_starts) - 1)[stretch]
    empty = total - np.where(np.isin(group, probed), weight[group], 0.0) - taken
    visited: Bool = (empty >= MIN_EMPTY) & (taken_far < SELDOM * (empty + taken_far))
    return visited


def _weight(scene: Scene) -> npt.NDArray[np.float64]:
    """(S,) how much each sequence says: 1 from ``MIN_FRAMES`` frames looked at, less for fewer."""
    return np.minimum(np.bincount(scene.frame_sequence, minlength=len(scene.stretch)), MIN_FRAMES) / MIN_FRAMES


def _far(scene: Scene, a: Int64, b: Int64) -> Bool:
    """(N,) whether two sequences are of different visits: hours apart, or both without a clock and not the same."""
    time_a, time_b = scene.time_s[a], scene.time_s[b]
    far: Bool = (np.abs(time_a - time_b) >= FAR_S) | (np.isnan(time_a) & np.isnan(time_b) & (a != b))
    return far

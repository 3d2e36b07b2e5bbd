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
from wildray.mining.places import Places, around, find_places, probes
from wildray.mining.sequences import group_medians

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

MIN_FRAMES = 4
"""A sequence of fewer frames looked at says nothing about stillness, and weighs less where it shows a place empty."""
MIN_VISITS = 3
"""A place must be taken at so many different hours to recur: a visitor comes back to one spot by chance. Where clocks
are missing, files stand for hours, and stills for a quarter of one."""
NEARLY_ALL = 0.9
"""A place must be taken in more than half of the visits by one standard deviation of a fair coin thrown as often (3 of
3, 6 of 8, 10 of 16, 36 of 64), without clocks by one and a half; but no larger share than this is asked for."""
RECURRING_IOU = 0.75
"""Where a thing was seen in two sequences its boxes overlap by this at least: single boxes whose corners jitter by 5 %
do in 19 of 20 cases, while along a busy trail animals stand about anywhere."""
LONGER_THAN = 16
"""A place is weighed against at least so many sequences, as far as the camera has them, not only its own first to last:
else any three visits in a row to one spot of a busy camera would do."""
MIN_EMPTY = 0.5
"""Least weight of the sequences that show a place empty: two frames, since any one may have missed a rock."""
ROUNDING = 1e-9
"""What sums of shares of visits may be off by."""
NUM_PROBES = 16
"""Frames of a sequence whose boxes are tried as places: one taken in 30 % of the frames is missed in 0.3 % of cases."""
NUM_SEQUENCE_PROBES = 64
"""Sequences of a stretch whose places are tried as recurring ones, and that are asked whether a place was empty."""
WITHIN = 0.8
"""Share of a box inside a recurring place from which on it is taken for a part of the same thing."""
FAR_S = 3600.0
"""Sequences that begin at least this many seconds apart are different visits."""


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
        base: (F,) whether the frame counts as evidence; default all. Where animals are, there may be further frames:
            to count them would make a place that is taken then look as if it were taken most of the time.
    """

    xyxy: Float32
    motion: Float32
    frame: Int64
    frame_sequence: Int64
    stretch: Int64
    time_s: npt.NDArray[np.float64]
    base: Bool | None = None

    def counted(self) -> Scene:
        """The boxes of the frames that count, and those frames alone."""
        if self.base is None or self.base.all():
            return self
        keep = self.base[self.frame]
        frame = (np.cumsum(self.base) - 1)[self.frame[keep]]
        frame_sequence = self.frame_sequence[self.base]
        return Scene(self.xyxy[:, keep], self.motion[keep], frame, frame_sequence, self.stretch, self.time_s)


@dataclass(frozen=True)
class Verdict:
    """What was decided of each box.

    Attributes:
        static: (N,) bool.
        presence: (N,) float32, share of its sequence's frames (those that count) in which a box stood at its place; a
            box of no place has the share of its own frame.
        motion: (N,) float32, median change inside the boxes of its place in its sequence; NaN unknown.
    """

    static: Bool
    presence: Float32
    motion: Float32


def find_static(scene: Scene, config: MineConfig) -> Verdict:
    """Decide of every box whether it is a static false detection.

    Args:
        scene: The boxes, of any score.
        config: ``static_iou``, ``static_presence``, ``static_motion``, ``static_span``.
    """
    counted = scene.counted()
    num_frames = np.maximum(np.bincount(counted.frame_sequence, minlength=len(scene.stretch)), 1)
    spots = find_places(
        counted.xyxy,
        counted.frame_sequence[counted.frame],
        counted.frame,
        num_frames,
        iou=config.static_iou,
        num_probes=NUM_PROBES,
        share=config.static_presence / 2,
    )
    haunts = find_places(
        spots.xyxy,
        scene.stretch[spots.group],
        spots.group,
        np.bincount(scene.stretch),
        iou=max(config.static_iou, RECURRING_IOU),
        num_probes=NUM_SEQUENCE_PROBES,
        share=0.0,
    )
    known = np.isfinite(counted.motion[spots.member_row])
    moved = counted.motion[spots.member_row[known]]
    change = group_medians(moved, spots.member_place[known], len(spots.group)).astype(np.float32)
    still = (
        (spots.presence >= config.static_presence)
        & (num_frames[spots.group] >= MIN_FRAMES)
        & (change <= config.static_motion)
    )
    places, first, last = _recurring(haunts, spots, counted, config)
    asked = np.flatnonzero(still)
    hidden = _within(spots.xyxy[:, asked], scene.stretch[spots.group[asked]], places, scene.stretch[first])
    still[asked] = hidden | ~_visited(spots, asked, counted, config)
    sequence = scene.frame_sequence[scene.frame]
    place, row = spots.member_place, spots.member_row
    if counted is not scene:
        starts = np.searchsorted(sequence, np.arange(len(scene.stretch) + 1)).astype(np.int64)
        place, row = around(spots.xyxy, spots.group, scene.xyxy, starts, config.static_iou)
    static = np.zeros(len(sequence), dtype=bool)
    static[row[still[place]]] = True
    static[_at_places(places, first, last, scene, config)] = True
    presence = (1.0 / num_frames[sequence]).astype(np.float32)
    np.maximum.at(presence, row, spots.presence[place].astype(np.float32))
    motion = scene.motion.copy()
    motion[row] = change[place]
    return Verdict(static, presence, motion)


def _recurring(haunts: Places, spots: Places, scene: Scene, config: MineConfig) -> tuple[Float32, Int64, Int64]:
    """Places that are taken in most of what a camera recorded over ``static_span`` or longer.

    Returns:
        (4, K) corners of the places, and (K,) the first and the last sequence in which each is taken.
    """
    presence = spots.presence[haunts.member_row]
    order = np.lexsort((-presence, spots.group[haunts.member_row], haunts.member_place))
    place, taken, presence = haunts.member_place[order], spots.group[haunts.member_row][order], presence[order]
    new = np.append(True, (np.diff(place) != 0) | (np.diff(taken) != 0))[: len(place)]
    place, taken = place[new], taken[new]
    # what is found in fewer frames than static_presence counts in part, and so needs more sequences
    share = np.minimum(presence[new] / config.static_presence, 1.0)
    count = np.bincount(place, minlength=len(haunts.group))
    some = np.flatnonzero(count)
    heads = (np.cumsum(count) - count)[some]
    first, last = taken[heads], taken[heads + count[some] - 1]
    visit, weight = _visits(scene), _weight(scene, few_frames_count=True)
    ends = np.append(0.0, np.cumsum(weight))
    of_stretch = np.bincount(scene.stretch, weights=weight)[scene.stretch[first]]
    weighed = np.maximum(ends[last + 1] - ends[first], np.minimum(of_stretch, LONGER_THAN))
    evidence = np.bincount(place, weights=share * weight[taken], minlength=len(haunts.group))[some]
    num_visits = np.bincount(place, weights=np.append(True, np.diff(visit[taken]) != 0)[: len(taken)])[some]
    clocked = np.isfinite(scene.time_s[first])
    span = scene.time_s[last] - np.where(clocked, scene.time_s[first], 0.0)
    long = np.where(clocked, (span >= config.static_span.seconds) & (num_visits >= MIN_VISITS), weighed >= MIN_VISITS)
    deviations = np.where(clocked, 1.0, 1.5)
    most = np.minimum((weighed + deviations * np.sqrt(weighed)) / 2, NEARLY_ALL * weighed)
    chosen = long & (evidence >= most - ROUNDING)
    return haunts.xyxy[:, some[chosen]], first[chosen], last[chosen]


def _within(xyxy: Float32, stretch: Int64, places: Float32, place_stretch: Int64) -> Bool:
    """(A,) whether a box lies within a recurring place: the rest of a rock that something stands in front of."""
    within = np.zeros(xyxy.shape[1], dtype=bool)
    area = (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
    for place, own in zip(places.T, place_stretch, strict=True):  # a handful for each camera
        width = np.minimum(xyxy[2], place[2]) - np.maximum(xyxy[0], place[0])
        height = np.minimum(xyxy[3], place[3]) - np.maximum(xyxy[1], place[1])
        covered = np.maximum(width, 0) * np.maximum(height, 0)
        within |= (stretch == own) & (covered >= WITHIN * area)
    return within


def _at_places(places: Float32, first: Int64, last: Int64, scene: Scene, config: MineConfig) -> Int64:
    """Rows of the boxes of the sequences ``first`` to ``last`` that stand at some places."""
    starts = np.searchsorted(scene.frame_sequence[scene.frame], np.arange(len(scene.stretch) + 1))
    begin, end = starts[first], starts[last + 1]
    rows = [np.zeros(0, dtype=np.int64)]
    own, one = np.arange(len(begin)), np.ones(len(begin), dtype=np.int64)
    for _, place, row in crossings(own, one, begin, end - begin):
        rows.append(row[aligned_iou(places[:, place], scene.xyxy[:, row]) >= config.static_iou])
    return np.concatenate(rows)


def _visits(scene: Scene) -> Int64:
    """(S,) number of the visit that each sequence is of, ascending.

    A visit lasts an hour from the begin of its first sequence: one animal may rest through all clips of it. A sequence
    without a clock is a visit of its own.
    """
    number, begin, of_stretch = -1, -np.inf, -1
    visits = []
    for stretch, time_s in zip(scene.stretch.tolist(), scene.time_s.tolist(), strict=True):
        if stretch != of_stretch or not time_s - begin < FAR_S:
            number, begin, of_stretch = number + 1, time_s, stretch
        visits.append(number)
    return np.array(visits, dtype=np.int64)


def _weight(scene: Scene, *, few_frames_count: bool = False) -> npt.NDArray[np.float64]:
    """(S,) share of each sequence in its visit, less where the visit is of fewer than ``MIN_FRAMES`` frames.

    With ``few_frames_count`` that holds for files without a clock only, which may all be of one moment.
    """
    visit, frames = _visits(scene), np.bincount(scene.frame_sequence, minlength=len(scene.stretch))
    of_visit = np.bincount(visit, weights=frames)[visit]
    known = np.minimum(of_visit, MIN_FRAMES) / MIN_FRAMES
    if few_frames_count:
        known[np.isfinite(scene.time_s)] = 1.0
    return frames / of_visit * known


def _visited(spots: Places, asked: Int64, scene: Scene, config: MineConfig) -> Bool:
    """(A,) whether other visits of the stretch show the place of a spot empty, no fewer than show a box there.

    Empty counts whenever it was, taken only hours off: a sleeper sleeps on in the next clip.

    Args:
        spots: Places of sequences.
        asked: (A,) the spots in question.
        scene: What was looked at.
        config: ``static_iou``.
    """
    weight, sequences = _weight(scene), np.arange(len(scene.stretch))
    probed = sequences[probes(scene.stretch, sequences, NUM_SEQUENCE_PROBES)]
    probe_starts = np.searchsorted(scene.stretch[probed], np.arange(int(scene.stretch.max(initial=-1)) + 2))
    group = spots.group[asked]
    stretch = scene.stretch[group]
    in_probe = np.flatnonzero(np.isin(spots.group, probed))
    starts = np.searchsorted(scene.stretch[spots.group[in_probe]], np.arange(len(probe_starts)))
    at, there = around(spots.xyxy[:, asked], stretch, spots.xyxy[:, in_probe], starts, config.static_iou)
    at, there = np.unique(np.stack([at, spots.group[in_probe[there]]]), axis=1)
    far = _far(scene, group[at], there)
    taken_far = np.bincount(at[far], weights=weight[there[far]], minlength=len(asked))
    other = there != group[at]
    taken = np.bincount(at[other], weights=weight[there[other]], minlength=len(asked))
    total = np.bincount(scene.stretch[probed], weights=weight[probed], minlength=len(probe_starts) - 1)[stretch]
    empty = total - np.where(np.isin(group, probed), weight[group], 0.0) - taken
    visited: Bool = (empty >= MIN_EMPTY) & (taken_far <= empty + ROUNDING)
    return visited


def _far(scene: Scene, a: Int64, b: Int64) -> Bool:
    """(N,) whether two sequences are of different visits: hours apart, or both without a clock and not the same."""
    time_a, time_b = scene.time_s[a], scene.time_s[b]
    far: Bool = (np.abs(time_a - time_b) >= FAR_S) | (np.isnan(time_a) & np.isnan(time_b) & (a != b))
    return far

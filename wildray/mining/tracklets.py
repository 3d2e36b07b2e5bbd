"""Tracklets: the boxes of one animal along a run of near frames, cut wherever a link is doubtful.

In: boxes ordered by frame, runs of frames that follow each other closely, and what the boxes look like where that is
known. Out: for every box its tracklet, and how sure the links are. Two boxes of distant frames that overlap show, in
company, mostly different animals; two boxes of neighbouring frames hardly ever do. So distant pairs come from chains
of near links: a box is predicted by constant velocity (an alpha-beta filter), compared by overlap and colour, and
linked where track and box choose each other with a margin over every rival. A track that cannot choose ends.

Tracks are followed once forwards and once backwards in time, and what both agree on is kept: an animal that steps
before another deceives one direction, seldom both. What is left is cut where the colour changes for good
(``settled``). All runs are followed at once, frame by frame: a loop over sequences takes minutes where this takes
seconds. Optimal assignment instead of mutual choice gives the same links, once those with a near rival are refused.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wildray.mining.linkers import Bool, Float64, Int64, aligned_iou, crossings

Float32 = npt.NDArray[np.float32]

POSITION_GAIN, VELOCITY_GAIN = 0.5, 0.15
"""Least gains of the filter; a young track has the gains of a least-squares line through all of its boxes. Chosen on
tracks of koi and pigeons with corner jitter of 5 %: 0.35 to 0.7 and 0.08 to 0.25 differ little."""
COLOUR_GAIN = 0.5
"""Weight of the newest box in what a track is remembered to look like."""
COLOUR_UNIT = 25.5
"""Colours differ by 1 where they are a tenth of the range of values apart on average: usual between animals, while one
animal differs from itself by 0.2 a tenth of a second later."""
COLOUR_MOST = 2.0
"""Larger differences say no more than this one."""
LEAST_SCORE = -0.65
"""Overlap less weighted colour difference from which on a box may continue a track at all: less is another animal that
stands where the track was expected."""
SURE_STEP_S, NEAR_STEP_S = 0.08, 0.25
"""Times between frames. Closer than the first, in company too no more proof by colour is asked for than alone; from the
second on, one box of a link in company is enough to doubt it. Measured with 25, 8 and 2 frames a second."""
ALONE_CHANGE, COMPANY_CHANGE = 0.9, 0.56
"""Most that the colour may change between boxes that are surely one animal, alone and in company. A lone animal turns;
where others overlap it a change as large is mostly a swap."""
ALONE_STEPS, COMPANY_STEPS = 5, 3
"""So many boxes further on an animal may look like itself again, after something passed in front."""
LEAST_S = 1e-6
"""Frames are taken to be no closer than this."""


@dataclass(frozen=True)
class Sightings:
    """Boxes along runs of frames, ordered by frame.

    A run is a stretch of frames of one sequence that follow each other closely; frames are numbered along the runs.

    Attributes:
        xyxy: (4, N) float64 corners in one unit per run.
        category: (N,) int64 code of each box's category.
        colour: (N, C) float32 description in [0, 255], NaN where unknown; C may be 0.
        frame: (N,) int64, ascending.
        run: (F,) int64 run of each frame, ascending from 0.
        time_s: (F,) float64, ascending within a run.
    """

    xyxy: Float64
    category: Int64
    colour: Float32
    frame: Int64
    run: Int64
    time_s: Float64

    def reversed(self) -> Sightings:
        """The same seen backwards in time: frame, run and row count from the other end."""
        num_frames = len(self.run)
        last = int(self.run[-1]) if num_frames else 0
        return Sightings(
            np.ascontiguousarray(self.xyxy[:, ::-1]),
            self.category[::-1],
            self.colour[::-1],
            num_frames - 1 - self.frame[::-1],
            last - self.run[::-1],
            -self.time_s[::-1],
        )


@dataclass(frozen=True)
class Rules:
    """When a box continues a track.

    Attributes:
        min_iou: Least overlap of the predicted and the found box.
        min_margin: What overlap less weighted colour difference must exceed every rival's by.
        colour_weight: Weight of the colour difference; 0 leaves colour out.
        max_missed: Frames in a row in which a track may go without a box.
    """

    min_iou: float
    min_margin: float
    colour_weight: float
    max_missed: int


@dataclass(frozen=True)
class Chains:
    """Which boxes follow each other.

    Attributes:
        chain: (N,) int64, equal for boxes that are linked, one of each frame at most.
        margin: (N,) float32, by how much the link to the box before exceeded its rivals; infinite for a first box.
    """

    chain: Int64
    margin: Float32


def chained(boxes: Sightings, rules: Rules) -> Chains:
    """Link what following forwards and following backwards in time agree on.

    Args:
        boxes: The boxes; of an animal that is boxed twice in a frame one box alone, or each is the other's rival.
        rules: When a box continues a track.
    """
    before, margin = _followed(boxes, rules)
    after, margin_after = _followed(boxes.reversed(), rules)
    num = len(before)
    after = np.where(after[::-1] >= 0, num - 1 - after[::-1], -1)  # box that follows, by box
    margin_after = margin_after[::-1]
    rows = np.flatnonzero(before >= 0)
    rows = rows[after[before[rows]] == rows]
    of_link = np.full(num, np.inf, dtype=np.float32)
    of_link[rows] = np.minimum(margin[rows], margin_after[before[rows]])
    return Chains(components(before[rows], rows, num), of_link)


def settled(boxes: Sightings, chain: Int64, company: Bool) -> Int64:
    """Cut chains where the animal looks different from then on.

    Boxes of a chain hang together where the colour changes little from one to the next, or to one a few boxes on: what
    passes in front of an animal changes it for a moment, a swap changes it for good. Where colours are unknown nothing
    is cut.

    Args:
        boxes: The boxes.
        chain: (N,) as ``chained`` gives it.
        company: (N,) whether another box of the frame overlaps.

    Returns:
        (N,) int64, as ``chain``.
    """
    order = np.lexsort((boxes.frame, chain))
    step_s = np.diff(boxes.time_s, prepend=-np.inf)[boxes.frame]
    links = [(np.zeros(0, dtype=np.int64),) * 2]
    for steps in range(1, max(ALONE_STEPS, COMPANY_STEPS) + 1):
        first, second = order[:-steps], order[steps:]
        same = chain[first] == chain[second]
        first, second = first[same], second[same]
        far = step_s[second] >= NEAR_STEP_S
        doubtful = np.where(far, company[first] | company[second], company[first] & company[second])
        most = np.where(doubtful & (step_s[second] >= SURE_STEP_S), COMPANY_CHANGE, ALONE_CHANGE)
        sure = colour_change(boxes.colour[first], boxes.colour[second]) <= most
        sure &= steps <= np.where(doubtful, COMPANY_STEPS, ALONE_STEPS)
        links.append((first[sure], second[sure]))
    first, second = (np.concatenate(part) for part in zip(*links, strict=True))
    return components(first, second, len(chain))


def components(first: Int64, second: Int64, num: int) -> Int64:
    """(N,) int64, a number that boxes have in common which hang together by links ``first`` (L,) to ``second`` (L,)."""
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(num, num))
    parts: Int64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return parts


def colour_change(a: Float32, b: Float32) -> Float32:
    """(L, C), (L, C) to (L,): mean absolute difference in units of ``COLOUR_UNIT``; 0 where either is unknown."""
    if a.shape[1] == 0:
        return np.zeros(len(a), dtype=np.float32)
    change: Float32 = np.abs(a - b).mean(axis=1) / np.float32(COLOUR_UNIT)
    return np.nan_to_num(change, nan=0.0)


def weakest(chain: Int64, frame: Int64, margin: Float32, first: Int64, second: Int64) -> Float32:
    """(P,) float32, the smallest margin among the links that lead from ``first`` (P,) to ``second`` (P,).

    Args:
        chain: (N,) chain of each box.
        frame: (N,) its frame.
        margin: (N,) margin of its link to the box before in its chain.
        first: (P,) rows of boxes.
        second: (P,) rows of later boxes of the same chains.
    """
    order = np.lexsort((frame, chain))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    begin, end = place[first] + 1, place[second] + 1
    level = np.frexp(end - begin)[1] - 1  # floor of the logarithm
    smallest = margin[order]
    found = np.full(len(first), np.inf, dtype=np.float32)
    for power in range(int(level.max(initial=-1)) + 1):
        rows = np.flatnonzero(level == power)
        found[rows] = np.minimum(smallest[begin[rows]], smallest[end[rows] - (1 << power)])
        ahead = np.full(len(smallest), np.inf, dtype=np.float32)
        ahead[: -(1 << power)] = smallest[1 << power :]
        smallest = np.minimum(smallest, ahead)
    return found


class _Tracks:
    """Tracks that are alive, ordered by run; a row of each array is a track.

    Attributes:
        run: (T,) int64.
        box: (T,) int64 newest box.
        xyxy: (T, 4) float64 corners, predicted to ``time_s``.
        velocity: (T, 4) float64 per second.
        age: (T,) int64 boxes so far.
        missed: (T,) int64 frames since the newest box.
        time_s: (T,) float64.
        seen_s: (T,) float64 time of the newest box.
        colour: (T, C) float32 remembered look.
    """

    def __init__(self, boxes: Sightings, rows: Int64) -> None:
        """A track for each of the boxes ``rows``."""
        frame = boxes.frame[rows]
        self.run, self.box = boxes.run[frame], rows
        self.xyxy = boxes.xyxy[:, rows].T.copy()
        self.velocity = np.zeros_like(self.xyxy)
        self.age, self.missed = np.ones_like(rows), np.zeros_like(rows)
        self.time_s = self.seen_s = boxes.time_s[frame]
        self.colour = boxes.colour[rows]

    def keep(self, tracks: Bool) -> None:
        """Go on with those that ``tracks`` (T,) marks."""
        if not tracks.all():
            for name, value in vars(self).items():
                setattr(self, name, value[tracks])

    def add(self, others: _Tracks) -> None:
        """Take further tracks in, in the order of runs."""
        if len(others.run):
            order = np.argsort(np.concatenate([self.run, others.run]), kind="stable")
            for name, value in vars(self).items():
                setattr(self, name, np.concatenate([value, getattr(others, name)])[order])

    def predict(self, time_s: Float64) -> None:
        """Move on to the times (T,)."""
        self.xyxy = self.xyxy + self.velocity * (time_s - self.time_s)[:, None]
        self.time_s = time_s

    def update(self, tracks: Int64, rows: Int64, boxes: Sightings) -> None:
        """Let ``tracks`` (L,) go on with the boxes ``rows`` (L,), and all others without."""
        off = boxes.xyxy[:, rows].T - self.xyxy[tracks]
        age = self.age[tracks].astype(np.float64)
        line = (age + 1) * (age + 2)
        position = np.where(age == 1, 1.0, np.maximum(POSITION_GAIN, 2 * (2 * age + 1) / line))
        velocity = np.where(age == 1, 1.0, np.maximum(VELOCITY_GAIN, 6 / line))
        elapsed_s = np.maximum(self.time_s[tracks] - self.seen_s[tracks], LEAST_S)
        self.xyxy[tracks] += position[:, None] * off
        self.velocity[tracks] += (velocity / elapsed_s)[:, None] * off
        new, old = boxes.colour[rows], self.colour[tracks]
        mixed = old + np.float32(COLOUR_GAIN) * (new - old)
        self.colour[tracks] = np.where(np.isnan(new), old, np.where(np.isnan(old), new, mixed))
        self.missed += 1
        self.missed[tracks] = 0
        self.age[tracks] += 1
        self.seen_s = self.seen_s.copy()
        self.seen_s[tracks] = self.time_s[tracks]
        self.box[tracks] = rows


def _followed(boxes: Sightings, rules: Rules) -> tuple[Int64, Float32]:
    """Follow every run in the order of its frames, all runs at once.

    Returns:
        (N,) int64 row of the box before each box in its track, -1 for a first one; (N,) float32 margin of that link.
    """
    num = len(boxes.frame)
    before, margin = np.full(num, -1, dtype=np.int64), np.full(num, np.inf, dtype=np.float32)
    starts = np.searchsorted(boxes.frame, np.arange(len(boxes.run) + 1)).astype(np.int64)
    heads = np.flatnonzero(np.diff(boxes.run, prepend=-1))
    place = np.arange(len(boxes.run)) - heads[boxes.run]
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(int(place.max(initial=-1)) + 2))
    tracks = _Tracks(boxes, np.zeros(0, dtype=np.int64))
    frame_of = np.full(len(heads), -1, dtype=np.int64)
    for begin, end in itertools.pairwise(bounds.tolist()):
        frames = order[begin:end]
        frame_of[boxes.run[frames]] = frames
        tracks.keep(frame_of[tracks.run] >= 0)
        tracks.predict(boxes.time_s[frame_of[tracks.run]])
        track, row, gain, lost = _choice(tracks, boxes, rules, *_candidates(tracks, boxes, starts, frames))
        before[row], margin[row] = tracks.box[track], gain
        tracks.update(track, row, boxes)
        tracks.keep((tracks.missed <= rules.max_missed) & ~lost)
        rows = _ranges(starts[frames], starts[frames + 1])
        tracks.add(_Tracks(boxes, rows[before[rows] < 0]))
        frame_of[boxes.run[frames]] = -1
    return before, margin


def _candidates(tracks: _Tracks, boxes: Sightings, starts: Int64, frames: Int64) -> tuple[Int64, Int64, Float64]:
    """Track, box and IoU, (C,) each, of all tracks and boxes of ``frames`` that overlap and are of one category."""
    run = boxes.run[frames]
    first = np.searchsorted(tracks.run, run).astype(np.int64)
    counts = np.searchsorted(tracks.run, run, side="right") - first
    parts = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    category = boxes.category[tracks.box]
    for _, track, row in crossings(first, counts, starts[frames], starts[frames + 1] - starts[frames]):
        iou = aligned_iou(tracks.xyxy[track].T, boxes.xyxy[:, row])
        hit = (iou > 0) & (category[track] == boxes.category[row])
        parts.append((track[hit], row[hit], iou[hit].astype(np.float64)))
    track, row, iou = (np.concatenate(part) for part in zip(*parts, strict=True))
    return track, row, iou


def _choice(
    tracks: _Tracks, boxes: Sightings, rules: Rules, track: Int64, row: Int64, iou: Float64
) -> tuple[Int64, Int64, Float32, Bool]:
    """Which candidates (C,) are links.

    Returns:
        (L,) track, (L,) box and (L,) float32 margin of each link; (T,) whether a track ends because it cannot choose:
        it has a candidate, and none that it or another track takes.
    """
    score = iou
    if rules.colour_weight:
        change = colour_change(tracks.colour[track], boxes.colour[row])
        score = iou - rules.colour_weight * np.minimum(change, COLOUR_MOST)
    gain = score - np.maximum(_runner_up(track, score), _runner_up(row, score))
    fits = (iou >= rules.min_iou) & (score >= LEAST_SCORE)
    linked = fits & (gain >= rules.min_margin) & (gain > 0)
    lost = np.zeros(len(tracks.run), dtype=bool)
    undecided = np.flatnonzero(fits & ~np.isin(track, track[linked]))
    undecided = undecided[np.lexsort((-score[undecided], track[undecided]))]
    best = undecided[np.flatnonzero(np.diff(track[undecided], prepend=-1))]
    lost[track[best]] = ~np.isin(row[best], row[linked])
    return track[linked], row[linked], gain[linked].astype(np.float32), lost


def _runner_up(member: Int64, score: Float64) -> Float64:
    """(C,) the highest score among the other candidates of the same member; minus infinity where there is none."""
    order = np.lexsort((-score, member))
    heads = np.flatnonzero(np.diff(member[order], prepend=-1))
    sizes = np.diff(np.append(heads, len(order)))
    ranked = np.append(score[order], -np.inf)
    best = np.repeat(ranked[heads], sizes)
    second = np.repeat(np.where(sizes > 1, ranked[heads + 1], -np.inf), sizes)
    first = np.zeros(len(order), dtype=bool)
    first[heads] = True
    rival = np.empty(len(order))
    rival[order] = np.where(first, second, best)
    return rival


def _ranges(begins: Int64, ends: Int64) -> Int64:
    """The numbers of the ranges ``begins`` (R,) to ``ends`` (R,), one range after the other."""
    sizes = ends - begins
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(begins - before, sizes)

"""Following animals from frame to frame in one direction of time, all runs of frames at once.

In: boxes along runs of frames, and when a box continues a track. Out: for every box the one before it in its track. A
track is predicted by constant velocity (an alpha-beta filter, Kalata 1984, with the gains of a least-squares line while
it is young) and remembers what it looked like. Track and box are linked where each prefers the other by a margin; a
track that has a box to go on with and cannot choose ends. Following one run after the other would take minutes in
Python where all runs side by side take seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.mining.linkers import Bool, Float64, Int64, aligned_iou, crossings, runner_up

Float32 = npt.NDArray[np.float32]

POSITION_GAIN, VELOCITY_GAIN = 0.5, 0.15
"""Least gains of the filter; a young track has the gains of a least-squares line through all of its boxes. Chosen on
tracks of koi and pigeons with corner jitter of 5 %: 0.35 to 0.7 and 0.08 to 0.25 differ little."""
LOOK_GAIN = 0.5
"""Weight of the newest box in what a track is remembered to look like."""
COLOUR_UNIT = 25.5
"""Colours differ by 1 where they are a tenth of the range of values apart on average: usual between animals, while one
animal differs from itself by 0.2 a tenth of a second later."""
MOST_CHANGE = 2.0
"""Larger differences say no more than this one."""
UNKNOWN_CHANGE = 0.5
"""What is taken for the change to or from a box whose look is not known, among others whose looks are: less would have
such boxes preferred to those that are known to look alike."""
LEAST_SCORE = -0.65
"""Overlap less weighted difference of looks from which on a box may continue a track: less is another animal that
stands where the track was expected."""
MOST_GROWTH = 3.0
"""Largest ratio of the areas of a track and the box that it goes on with: beyond it, a detector boxed several animals
as one, or a part of one. Limits from 2.5 cost pairs of animals that turn."""
LEAST_S = 1e-6
"""Frames are taken to be no closer than this."""


@dataclass(frozen=True)
class Measure:
    """How far two looks are apart, in a unit in which different animals are usually about 1 apart.

    Attributes:
        unit: What counts as 1.
        cosine: Whether looks are vectors compared by cosine, and not colours by mean absolute difference.
    """

    unit: float = COLOUR_UNIT
    cosine: bool = False

    def __call__(self, a: Float32, b: Float32) -> Float32:
        """(L, C), (L, C) to (L,); NaN where either is unknown."""
        if a.shape[1] == 0:
            return np.full(len(a), np.nan, dtype=np.float32)
        if self.cosine:
            norm = np.sqrt(np.einsum("lc,lc->l", a, a) * np.einsum("lc,lc->l", b, b))
            apart = 1 - np.einsum("lc,lc->l", a, b) / np.maximum(norm, np.float32(1e-12))
        else:
            apart = np.abs(a - b).mean(axis=1)
        change: Float32 = apart / np.float32(self.unit)
        return change


@dataclass(frozen=True)
class Sightings:
    """Boxes along runs of frames, ordered by frame.

    A run is a stretch of frames of one sequence that follow each other closely; frames are numbered along the runs.

    Attributes:
        xyxy: (4, N) float64 corners in one unit per run.
        category: (N,) int64 code of each box's category.
        look: (N, C) float32 colours in [0, 255] or an embedding, NaN where unknown; C may be 0.
        measure: How far looks are apart.
        frame: (N,) int64, ascending.
        run: (F,) int64 run of each frame, ascending from 0.
        time_s: (F,) float64, ascending within a run.
    """

    xyxy: Float64
    category: Int64
    look: Float32
    measure: Measure
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
            self.look[::-1],
            self.measure,
            num_frames - 1 - self.frame[::-1],
            last - self.run[::-1],
            -self.time_s[::-1],
        )


@dataclass(frozen=True)
class Rules:
    """When a box continues a track.

    Attributes:
        min_iou: Least overlap of the predicted and the found box.
        min_margin: What overlap less weighted difference of looks must exceed every rival's by.
        look_weight: Weight of the difference of looks; 0 leaves them out.
        max_missed: Frames in a row in which a track may go without a box.
    """

    min_iou: float
    min_margin: float
    look_weight: float
    max_missed: int


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
        look: (T, C) float32 remembered look.
    """

    def __init__(self, boxes: Sightings, rows: Int64) -> None:
        """A track for each of the boxes ``rows``."""
        frame = boxes.frame[rows]
        self.run, self.box = boxes.run[frame], rows
        self.xyxy = boxes.xyxy[:, rows].T.copy()
        self.velocity = np.zeros_like(self.xyxy)
        self.age, self.missed = np.ones_like(rows), np.zeros_like(rows)
        self.time_s = self.seen_s = boxes.time_s[frame]
        self.look = boxes.look[rows]

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
        new, old = boxes.look[rows], self.look[tracks]
        mixed = old + np.float32(LOOK_GAIN) * (new - old)
        self.look[tracks] = np.where(np.isnan(new), old, np.where(np.isnan(old), new, mixed))
        self.missed += 1
        self.missed[tracks] = 0
        self.age[tracks] += 1
        self.seen_s = self.seen_s.copy()
        self.seen_s[tracks] = self.time_s[tracks]
        self.box[tracks] = rows


def followed(boxes: Sightings, rules: Rules) -> tuple[Int64, Float32]:
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
    return track.astype(np.int64), row.astype(np.int64), iou.astype(np.float64)


def _choice(
    tracks: _Tracks, boxes: Sightings, rules: Rules, track: Int64, row: Int64, iou: Float64
) -> tuple[Int64, Int64, Float32, Bool]:
    """Which candidates (C,) are links.

    Returns:
        (L,) track, (L,) box and (L,) float32 margin of each link, which is its score where it has no rival; (T,)
        whether a track ends because it cannot choose: it has a candidate, and none that it or another track takes.
    """
    score = iou
    if rules.look_weight and boxes.look.shape[1]:
        change = np.nan_to_num(boxes.measure(tracks.look[track], boxes.look[row]), nan=UNKNOWN_CHANGE)
        score = iou - rules.look_weight * np.minimum(change, MOST_CHANGE)
    gain = score - np.maximum(runner_up(score, track, none=-np.inf), runner_up(score, row, none=-np.inf))
    fits = (iou >= rules.min_iou) & (score >= LEAST_SCORE)
    growth = _area(boxes.xyxy[:, row]) / np.maximum(_area(tracks.xyxy[track].T), np.finfo(np.float64).tiny)
    fits &= (growth <= MOST_GROWTH) & (growth >= 1 / MOST_GROWTH)
    linked = fits & (gain >= rules.min_margin) & (gain > 0)
    lost = np.zeros(len(tracks.run), dtype=bool)
    undecided = np.flatnonzero(fits & ~np.isin(track, track[linked]))
    undecided = undecided[np.lexsort((-score[undecided], track[undecided]))]
    best = undecided[np.flatnonzero(np.diff(track[undecided], prepend=-1))]
    lost[track[best]] = ~np.isin(row[best], row[linked])
    gain = np.where(np.isfinite(gain), gain, score)
    return track[linked], row[linked], gain[linked].astype(np.float32), lost


def _area(xyxy: Float64) -> Float64:
    """(4, N) to (N,)."""
    area: Float64 = (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
    return area


def _ranges(begins: Int64, ends: Int64) -> Int64:
    """The numbers of the ranges ``begins`` (R,) to ``ends`` (R,), one range after the other."""
    sizes = ends - begins
    before = np.cumsum(sizes) - sizes
    numbers: Int64 = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(begins - before, sizes)
    return numbers

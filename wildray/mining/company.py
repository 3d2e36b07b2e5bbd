"""Where animals are near each other, and which parts of a file are worth a denser look for it.

In: boxes of the frames of the base pass. Out: gaps between those frames, with how crowded they are and what a denser
look costs; of chosen gaps, the spans and looks to be done. Links between near frames are right where animals crowd,
links between distant ones are not; where one animal is alone a distant link is right too. So frames are bought where
they tell something. All of it is arithmetic on arrays: the same boxes give the same spans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wildray.mining.linkers import DUPLICATE_IOU, aligned_iou, crossings

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Where = Literal["company", "animals"]

LOOK_FRAMES = 1_200
"""Frames of one look at the most, as many as a window of ten minutes has at the default interval: each leaves a
thumbnail of 57 kB in memory until the look ends."""
SLACK = 1e-6
"""Share of a frame by which a count of them may be off."""


@dataclass
class Spans:
    """What one look is at.

    Attributes:
        media: The file.
        starts_s: Beginnings of its spans, ascending.
        stops_s: Ends of them; None is the end of the file.
        num_frames: Frames that they hold at the most.
    """

    media: int
    starts_s: list[float]
    stops_s: list[float | None]
    num_frames: float


@dataclass(frozen=True)
class Gaps:
    """Times between frames of the base pass, ordered by file and time.

    Attributes:
        media: (G,) int64 file of each.
        start_s: (G,) float64 time of the frame before it.
        stop_s: (G,) float64 time of the frame after it; inf after the last.
        crowd: (G,) int64 animals (near each other) in the frame before or after it, whichever has more.
        cost: (G,) int64 most frames that a denser look adds.
    """

    media: Int64
    start_s: Float64
    stop_s: Float64
    crowd: Int64
    cost: Int64

    def take(self, rows: npt.NDArray[np.generic]) -> Gaps:
        """Some of the gaps."""
        return Gaps(self.media[rows], self.start_s[rows], self.stop_s[rows], self.crowd[rows], self.cost[rows])


def crowd_sizes(
    xyxy: npt.NDArray[np.float64], frame: Int64, num_frames: int, *, where: Where, near: float
) -> npt.NDArray[np.int64]:
    """How many animals of each frame are a reason for a denser look.

    Args:
        xyxy: (4, N) corners of animals in one unit per file.
        frame: (N,) frame of each, ascending.
        num_frames: F.
        where: ``animals``: all count. ``company``: those near another one count. Two boxes of nearly one place are one
            animal seen twice.
        near: Two boxes are near where neither the horizontal gap between them exceeds this share of their mean width,
            nor the vertical one of their mean height.

    Returns:
        (F,) int64.
    """
    if where == "animals":
        return np.bincount(frame, minlength=num_frames)
    starts = np.searchsorted(frame, np.arange(num_frames + 1)).astype(np.int64)
    crowded = np.flatnonzero(np.diff(starts) > 1)
    begin, count = starts[crowded], np.diff(starts)[crowded]
    size = np.stack([xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]])
    beside = np.zeros(xyxy.shape[1], dtype=bool)
    for _, a, b in crossings(begin, count, begin, count):
        gap = np.maximum(xyxy[:2, a], xyxy[:2, b]) - np.minimum(xyxy[2:, a], xyxy[2:, b])
        hit = (gap <= near * (size[:, a] + size[:, b]) / 2).all(axis=0) & (a != b)
        a, b = a[hit], b[hit]
        beside[a[aligned_iou(xyxy[:, a], xyxy[:, b]) < DUPLICATE_IOU]] = True
    return np.bincount(frame[beside], minlength=num_frames)


def find_gaps(media: Int64, time_s: Float64, crowd: Int64, *, end_s: Float64, step_s: Float64, aligned: bool) -> Gaps:
    """The gaps that border on a frame with a reason for a denser look, and that are longer than a step of such a look.

    Args:
        media: (F,) file of each frame of the base pass; frames are ordered by file and time.
        time_s: (F,) time of each.
        crowd: (F,) as ``crowd_sizes`` gives it.
        end_s: (M,) time at which each file ends; NaN unknown: then nothing after its last frame is looked at.
        step_s: (M,) time between the frames of a denser look at each file.
        aligned: Whether frames of the base pass are among those that the denser look is at.
    """
    if not len(media):
        none = np.zeros(0, dtype=np.int64)
        return Gaps(none, none.astype(np.float64), none.astype(np.float64), none, none)
    new = np.append(True, np.diff(media) != 0)
    last = np.append(new[1:], True)
    before = new & (time_s > 0)
    following = np.where(last, np.inf, np.append(time_s[1:], np.inf))
    following_crowd = np.where(last, 0, np.append(crowd[1:], 0))
    order = np.argsort(np.append(np.flatnonzero(before) * 2, np.arange(len(media)) * 2 + 1), kind="stable")
    gaps_media = np.append(media[before], media)[order]
    start_s = np.append(np.zeros(before.sum()), time_s)[order]
    stop_s = np.append(time_s[before], following)[order]
    most = np.append(crowd[before], np.maximum(crowd, following_crowd))[order]
    end = np.where(np.isinf(stop_s), end_s[gaps_media], stop_s)
    steps = np.nan_to_num((end - start_s) / step_s[gaps_media], nan=0.0)
    cost = np.ceil(np.minimum(steps, 2**31) * (1 - SLACK)).astype(np.int64) - aligned
    return Gaps(gaps_media, start_s, stop_s, most, cost).take((most > 0) & (cost > 0) & (steps > 1 + SLACK))


def within_budget(crowd: Int64, cost: Int64, budget: float) -> npt.NDArray[np.bool_]:
    """Which gaps are looked at: the most crowded first, of equals the earlier, until the next would exceed the budget.

    Args:
        crowd: (G,) of each.
        cost: (G,) frames.
        budget: Frames.
    """
    order = np.argsort(-crowd, kind="stable")
    chosen = np.zeros(len(crowd), dtype=bool)
    chosen[order[np.cumsum(cost[order]) <= budget + SLACK]] = True
    return chosen


def spans_of(gaps: Gaps, *, window_s: float, last_window: Int64, step_s: Float64) -> list[Spans]:
    """The looks that gaps come to: spans of one window of a file, of at most ``LOOK_FRAMES`` frames together.

    Args:
        gaps: Chosen ones, ordered by file and time.
        window_s: Length of the windows of the base pass.
        last_window: (M,) number of each file's last window.
        step_s: (M,) time between the frames of the looks.
    """
    found: list[Spans] = []
    window_before = -1
    columns = (gaps.media, gaps.start_s, gaps.stop_s, gaps.cost)
    for media, start_s, stop_s, cost in zip(*(column.tolist() for column in columns), strict=True):
        window = min(int(start_s // window_s), int(last_window[media]))
        pieces = max(1, math.ceil(cost / LOOK_FRAMES))
        length, size = LOOK_FRAMES * float(step_s[media]), cost / pieces
        for piece in range(pieces):
            begin, end = start_s + piece * length, start_s + (piece + 1) * length
            stop = (None if math.isinf(stop_s) else stop_s) if piece + 1 == pieces else end
            last = found[-1] if found and found[-1].media == media and window == window_before else None
            if last is None or last.num_frames + size > LOOK_FRAMES:
                found.append(Spans(media, [begin], [stop], size))
            else:
                if last.stops_s[-1] == begin:
                    last.stops_s[-1] = stop
                else:
                    last.starts_s.append(begin)
                    last.stops_s.append(stop)
                last.num_frames += size
            window_before = window
    return found

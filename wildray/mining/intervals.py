"""Which two frames stand one interval apart.

In: the frames of some sequences that were looked at, and an interval in seconds, frames or captures. Out: pairs of
frames. Times are whole microseconds: a comparison of floats would make the partner of a frame depend on how far the
camera's clock is from 1970.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wildray.mining.sequences import Frames, group_medians
from wildray.units import Interval

Int64 = npt.NDArray[np.int64]


def frame_pairs(frames: Frames, interval: Interval, *, decreasing: bool = False) -> tuple[Int64, Int64]:
    """Every two frames of a sequence that stand one interval apart.

    Of each frame the partner is, with an interval in

    * seconds: the later frame of the sequence nearest to its time plus the interval, across files, no further from it
      than half the median spacing of the frames looked at. Where every frame was looked at that is the frame itself
      that is on screen then, and no other.
    * frames: the same within one file, counted in frame indices; where every frame was looked at, exactly that index.
    * captures: the n-th next frame looked at of the sequence, be it of a burst, a time lapse or a video.

    Args:
        frames: What was looked at.
        interval: With its unit.
        decreasing: Whether each frame has an interval of its own, up to ``interval``, with a density that falls
            linearly to 0 there (CVRL, arXiv 2008.03800, found near positives to be worth more than far ones).

    Returns:
        (P,) and (P,) int64, numbers of the earlier and the later frame, in order of the earlier.
    """
    share = _drawn(frames) if decreasing else np.ones(len(frames))
    if interval.unit == "captures":
        first = np.arange(len(frames))
        second = first + np.ceil(share * interval.value).astype(np.int64)
        first, second = first[second < len(frames)], second[second < len(frames)]
        same = frames.sequence[first] == frames.sequence[second]
        return first[same], second[same]
    if interval.unit == "s":
        spacing = _spacing(frames, frames.time_us)
        wanted = np.maximum(np.rint(share * interval.value * 1e6).astype(np.int64), spacing if decreasing else 0)
        return _nearest_later(frames.sequence, frames.time_us, wanted, spacing)
    order = np.lexsort((frames.frame_index, frames.media))
    step = _spacing(frames, frames.frame_index, across_files=False)
    step[step <= 1] = 0
    wanted = np.maximum(np.ceil(share * interval.value).astype(np.int64), step if decreasing else 0)
    first, second = _nearest_later(frames.media[order], frames.frame_index[order], wanted[order], step[order])
    first, second = order[first], order[second]
    ranked = np.argsort(first)
    return first[ranked], second[ranked]


def _drawn(frames: Frames) -> npt.NDArray[np.float64]:
    """(F,) a number in (0, 1] for each frame, with a density that falls linearly; depends on the frame alone."""
    bits = (frames.time_us.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ frames.frame_index.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of splitmix64
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
    drawn: npt.NDArray[np.float64] = 1.0 - np.sqrt(1.0 - uniform)
    return np.maximum(drawn, 1e-9)


def _nearest_later(group: Int64, value: Int64, interval: Int64, spacing: Int64) -> tuple[Int64, Int64]:
    """For each item the later one of its group nearest to value + interval, at most half its ``spacing`` off.

    ``group`` and, within it, ``value`` ascend. Of two that are equally near the earlier is taken.
    """
    if not len(value):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    heads = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    spans = np.append(value[heads[1:] - 1], value[-1]) - value[heads]
    # groups are laid end to end, further apart than any search reaches
    offsets = np.cumsum(spans + 2 * int(interval.max()) + int(spacing.max()) + 1) - spans
    sizes = np.diff(np.append(heads, len(value)))
    line = value - np.repeat(value[heads] - offsets, sizes)
    target = line + interval
    own = np.arange(len(line))
    after = np.searchsorted(line, target)
    before = np.maximum(after - 1, 0)
    before = np.where(before > own, np.maximum(np.searchsorted(line, line[before]), own + 1), before)
    after_ok = after < len(line)
    after = np.minimum(after, len(line) - 1)
    far = np.iinfo(np.int64).max
    miss_before = np.where(before > own, target - line[before], far)
    miss_after = np.where(after_ok & (after > own), line[after] - target, far)
    partner = np.where(miss_before <= miss_after, before, after)
    miss = np.minimum(miss_before, miss_after)
    near = miss <= spacing // 2
    return own[near], partner[near]


def _spacing(frames: Frames, value: Int64, *, across_files: bool = True) -> Int64:
    """(F,) int64, for every frame the median step of ``value`` between base frames of its file.

    Files of one base frame (stills) take the median step between the frames of their sequence, or 0 with
    ``across_files`` off.
    """
    base = np.flatnonzero(frames.base)
    base = base[np.lexsort((frames.frame_index[base], frames.media[base]))]
    steps, same = np.diff(value[base]), np.diff(frames.media[base]) == 0
    num_media = int(frames.media.max(initial=-1)) + 1
    of_file = group_medians(steps[same], frames.media[base][1:][same], num_media)[frames.media]
    if across_files:
        steps, same = np.diff(value), np.diff(frames.sequence) == 0
        of_sequence = group_medians(steps[same], frames.sequence[1:][same], len(frames.starts) - 1)[frames.sequence]
        of_file = np.where(np.isnan(of_file), of_sequence, of_file)
    return np.nan_to_num(of_file, nan=0.0).astype(np.int64)

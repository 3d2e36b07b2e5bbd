"""Which frames are looked at, and which packets have to be decoded to see them.

In: the time stamps and key flags of a video's packets (read without decoding), a base interval, a window. Out: the
positions of the chosen frames in presentation order, and runs of packets that begin at a key frame. All of it is
arithmetic on arrays, so that a frame's number and time never depend on where decoding began. The alternative, counting
frames while decoding or dividing by a rounded frame rate, gives other numbers after a seek and wrong times where the
frame rate varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Sampling = Literal["exact", "keyframe"]

TOLERANCE_S = 1e-6
"""Time stamps this close to a target count as equal to it: less than any container's clock can tell apart."""


@dataclass(frozen=True)
class PacketIndex:
    """The packets of one video stream in decoding order, at most one frame each.

    Attributes:
        pts: (P,) int64 presentation time stamps in units of ``time_base_s``, no two equal.
        dts: (P,) int64 decoding time stamps in the same units.
        key: (P,) bool, whether decoding can begin here.
        shown: (P,) bool, whether its frame is shown; the rest only helps to decode others (edit lists).
        time_base_s: Seconds per unit.
        end_s: Time at which the last frame ends, from the first frame's time.
        note: What is wrong with the file although these packets are good; None where nothing is.
        counted: Whether the frames had to be decoded to be counted: then the packets themselves are not known.
    """

    pts: npt.NDArray[np.int64]
    dts: npt.NDArray[np.int64]
    key: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    time_base_s: float
    end_s: float
    note: str | None = None
    counted: bool = False

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """(N,) packet number of each frame in presentation order."""
        shown = np.flatnonzero(self.shown)
        return shown[np.argsort(self.pts[shown], kind="stable")].astype(np.int64)

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """(N,) presentation time of each frame in presentation order, from the first frame's time."""
        ordered = np.sort(self.pts[self.shown])
        return (ordered - ordered[:1]).astype(np.float64) * self.time_base_s


@dataclass(frozen=True)
class Run:
    """Packets ``first`` to ``last`` (inclusive, decoding order) that are decoded together, for the sake of ``frames``.

    Attributes:
        first: Number of the key packet that decoding begins at.
        last: Number of the last packet needed.
        frames: Positions in presentation order that are wanted, ascending.
    """

    first: int
    last: int
    frames: tuple[int, ...]


def choose_frames(
    times_s: npt.NDArray[np.float64],
    key: npt.NDArray[np.bool_],
    *,
    end_s: float,
    interval_s: float,
    sampling: Sampling = "exact",
) -> npt.NDArray[np.int64]:
    """Frames that stand for the times 0, interval, 2 x interval ... before the end.

    Args:
        times_s: (N,) float64 presentation times, ascending from 0.
        key: (N,) bool, key frames among them.
        end_s: Time at which the last frame ends.
        interval_s: Spacing of the targets in seconds; 0 takes every frame (or every key frame).
        sampling: ``exact``: the frame shown at each target. ``keyframe``: the key frame nearest to it, of two the
            earlier.

    Returns:
        (M,) int64 positions, ascending, each once.
    """
    numbers = np.flatnonzero(key) if sampling == "keyframe" else np.arange(len(times_s))
    if len(numbers) == 0 or interval_s <= 0:
        return numbers.astype(np.int64)
    times = times_s[numbers]
    if sampling == "keyframe":
        middle = (times[1:] + times[:-1]) / 2
        # The first target that is nearer to this key frame than to the one before; none may lie at its upper border.
        first = np.floor((np.append(-interval_s / 2, middle) + TOLERANCE_S) / interval_s) + 1
        first[0] = 0
        end = max(end_s - 2 * TOLERANCE_S, times[-1])  # the end itself is no target
        chosen = first * interval_s <= np.append(middle, end) + TOLERANCE_S
    else:
        first = np.ceil((times - TOLERANCE_S) / interval_s)
        chosen = first * interval_s + TOLERANCE_S < np.append(times[1:], max(end_s, times[-1] + 2 * TOLERANCE_S))
        chosen[0] = True
    return numbers[chosen].astype(np.int64)


def within(
    frames: npt.NDArray[np.int64], times_s: npt.NDArray[np.float64], *, start_s: float, stop_s: float | None
) -> npt.NDArray[np.int64]:
    """Those of the frames whose own time lies in [start_s, stop_s): a frame belongs to one window of a partition."""
    times = times_s[frames]
    keep = times >= start_s - TOLERANCE_S
    if stop_s is not None:
        keep &= times < stop_s - TOLERANCE_S
    return frames[keep]


def plan_runs(index: PacketIndex, frames: npt.NDArray[np.int64], *, max_gap: int = 4) -> list[Run]:
    """Group wanted frames into runs of packets that begin at key frames.

    Args:
        index: The stream's packets.
        frames: (M,) int64 wanted positions in presentation order, ascending.
        max_gap: Unneeded packets between two runs up to which decoding through is cheaper than beginning anew.

    Returns:
        Runs in order. A frame shown before the key frame that precedes it in decoding order (the leading pictures of
        an open group) is decoded from the key frame before that.
    """
    order = index.order
    keys = np.flatnonzero(index.key)
    runs: list[Run] = []
    for frame in frames.tolist():
        packet = int(order[frame])
        place = int(np.searchsorted(keys, packet, side="right")) - 1
        while place > 0 and index.pts[keys[place]] > index.pts[packet]:
            place -= 1
        first = int(keys[place]) if place >= 0 else 0
        if runs and first <= runs[-1].last + 1 + max_gap:
            before = runs[-1]
            runs[-1] = Run(min(before.first, first), max(before.last, packet), (*before.frames, frame))
        else:
            runs.append(Run(first, packet, (frame,)))
    return runs

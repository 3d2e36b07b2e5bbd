"""What changes in a clip of a camera that stands still: the evidence ``motion`` of every box, and the foreground.

In: thumbnails of the frames of one window, in order. Out: for a frame, the share of the window's other frames from
which each place differs (``change``); for a box, the mean of that over its places (``motion``); the places that differ
from most (``foreground``). A rock differs from none: about 0. A resting animal breathes, lifts its head, shifts its
weight, so that its outline differs from most other frames though hardly from the one before: clearly above. A walker
differs from all, wherever it is not: near the share of its box that it fills.

The alternative, difference to a median background, takes a resting animal for background, since the median holds it.
On the clip of drinking chimpanzees beside a rock that the thresholds here were chosen on, 86 boxes of chimpanzees have
0.22 to 0.56 (median 0.36) by this definition, and the rock's 30 boxes 0.01 to 0.03, but for three frames in which one
walks across its box (at most 0.14); by difference to the median the least of the chimpanzees had 0.07, the rock 0.12.
OpenCV's MOG2 and KNN need a
warm-up and miss what stands in the first frames.

Changes of light: each frame is scaled to the brightness of the window's median. Noise: a difference counts above a
threshold that follows the clip's own noise, everywhere and at each place, so that leaves in the wind must do more.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from wildray.mining.detectors.base import Image

Thumbnail = npt.NDArray[np.uint8]
"""(h, w) u8 grey, longest side at most ``THUMBNAIL_PX``."""

THUMBNAIL_PX = 320
MIN_FRAMES = 3
"""Of two frames nobody can say which one holds the animal."""
MAX_REFERENCES = 50
"""Frames that every frame is compared with, spread evenly over the window."""
MAX_NOISE_PAIRS = 150
MIN_DIFFERENCE = 10.0
MAX_DIFFERENCE = 35.0
"""Bounds of the threshold, in grey levels: below are compression and sensor noise, above is a change in any wind."""
NOISE_FACTOR = 3.0
"""Thresholds in standard deviations of the noise."""
MEDIAN_TO_STD = 1 / 0.954
"""Median of the absolute difference of two equal Gaussian variables to their standard deviation: 0.6745 * sqrt(2)."""


def thumbnail(image: Image) -> Thumbnail:
    """A frame as the model wants it.

    Args:
        image: (H, W, 3) u8 RGB.

    Returns:
        (h, w) u8 grey, longest side at most 320 px, lightly smoothed.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    ratio = min(THUMBNAIL_PX / max(height, width), 1.0)
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), dtype=np.uint8)


class ClipModel:
    """What changes in a window.

    Args:
        thumbnails: Of the frames that were looked at, in order, from ``thumbnail``; all of one size.
        width_px: Width of the original frames, in whose pixels boxes are.
        height_px: Their height.
        references: Places of the thumbnails that say what the window looks like, ascending; default all. Frames that
            were looked at because an animal stands there would take it for scenery.
    """

    def __init__(
        self,
        thumbnails: Sequence[Thumbnail],
        *,
        width_px: int,
        height_px: int,
        references: Sequence[int] | None = None,
    ) -> None:
        self.width_px, self.height_px = width_px, height_px
        self.num_frames = len(thumbnails)
        typical = np.arange(self.num_frames) if references is None else np.asarray(references, dtype=np.intp)
        self._num_references = len(typical)
        if not self.usable:
            return
        frames = np.stack(thumbnails)
        chosen = typical[_spread(len(typical), MAX_REFERENCES)]
        median = np.median(frames[chosen], axis=0)
        self._frames = np.stack([_at_brightness(frame, median) for frame in frames])
        self._references = {int(i): self._frames[i] for i in chosen}
        self._threshold = _threshold(self._frames[typical])
        self._recent = functools.lru_cache(maxsize=4)(self._compare)

    @property
    def usable(self) -> bool:
        """Whether there are frames enough to say what changes."""
        return self._num_references >= MIN_FRAMES

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the thumbnails; of a usable clip."""
        return self._threshold.shape[0], self._threshold.shape[1]

    def change(self, index: int) -> npt.NDArray[np.float32]:
        """The share of the other reference frames from which each place of a frame differs.

        Args:
            index: Place of the frame among the thumbnails.

        Returns:
            (h, w) float32 in [0, 1].
        """
        return self._recent(index)

    def foreground(self, index: int) -> npt.NDArray[np.bool_]:
        """(h, w) bool: the places of a frame that differ from most others."""
        return self.change(index) > 0.5

    def motion(self, index: int, xyxy_px: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """How much changes inside boxes.

        Args:
            index: Place of the frame among the thumbnails.
            xyxy_px: (N, 4) corners in pixels of the original frame.

        Returns:
            (N,) float32 in [0, 1]: the mean of ``change`` over the box; NaN where the window has under three frames.
        """
        corners = np.asarray(xyxy_px, dtype=np.float64).reshape(-1, 4)
        if not self.usable:
            return np.full(len(corners), np.nan, dtype=np.float32)
        height, width = self.shape
        scaled = corners * ([width / self.width_px, height / self.height_px] * 2)
        # A box of less than a place of the thumbnail still covers the one it lies in.
        x1 = np.clip(np.floor(scaled[:, 0]), 0, width - 1).astype(np.intp)
        y1 = np.clip(np.floor(scaled[:, 1]), 0, height - 1).astype(np.intp)
        x2 = np.clip(np.ceil(scaled[:, 2]).astype(np.intp), x1 + 1, width)
        y2 = np.clip(np.ceil(scaled[:, 3]).astype(np.intp), y1 + 1, height)
        table = cv2.integral(self.change(index), sdepth=cv2.CV_64F)
        total = table[y2, x2] - table[y1, x2] - table[y2, x1] + table[y1, x1]
        return np.clip(total / ((x2 - x1) * (y2 - y1)), 0, 1).astype(np.float32)

    def _compare(self, index: int) -> npt.NDArray[np.float32]:
        frame = self._frames[index]
        others = [reference for i, reference in self._references.items() if i != index]
        count = np.zeros(frame.shape, dtype=np.uint8)
        for other in others:
            count += cv2.absdiff(frame, other) > self._threshold
        return (count / np.float32(len(others))).astype(np.float32)


def _spread(num_frames: int, at_most: int) -> npt.NDArray[np.intp]:
    """Indices spread evenly over the frames, first and last included."""
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, at_most)).round().astype(np.intp))


def _at_brightness(frame: Thumbnail, median: npt.NDArray[np.float64]) -> Thumbnail:
    """The frame scaled so that its places are as bright as the window's median; the median ratio ignores animals."""
    lit = median > 20  # darker places say nothing about the ratio
    if lit.mean() < 0.02:
        return frame
    gain = float(np.median(frame[lit] / median[lit]))
    return np.asarray(cv2.convertScaleAbs(frame, alpha=1 / min(max(gain, 0.25), 4.0)), dtype=np.uint8)


def _threshold(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w) grey levels above which a difference counts, from the differences of frames that follow each other."""
    first = _spread(len(frames) - 1, MAX_NOISE_PAIRS)
    steps = np.stack([cv2.absdiff(frames[i], frames[i + 1]) for i in first])
    noise = np.maximum(np.median(steps, axis=0), np.median(steps)) * MEDIAN_TO_STD
    threshold: npt.NDArray[np.uint8] = np.clip(NOISE_FACTOR * noise, MIN_DIFFERENCE, MAX_DIFFERENCE).astype(np.uint8)
    return threshold

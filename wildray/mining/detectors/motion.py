"""The motion detector: boxes of what moves, without weights.

In: a ``ClipModel`` of a window, and the place of a frame in it. Out: boxes of the category animal. It finds what
networks miss (birds, fish, night infra-red) where the camera stands still; an animal that rests all window long is
background, and two that touch are one box. The alternative, a tracker on optical flow, costs more than the default
detector.

The score is contrast times size times persistence: the mean change of the blob's places (0.5 to 1); a share that
grows with the blob's area, for noise is small; and a half for what has no foreground near it in either neighbouring
frame, for noise comes and goes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from wildray.mining.boxes import Boxes
from wildray.mining.detectors.base import Image
from wildray.mining.detectors.clip import THUMBNAIL_PX, ClipModel, thumbnail

logger = logging.getLogger(__name__)

MIN_AREA = 0.0008
"""Least foreground of a blob, as a share of the frame: a bird of 8 by 6 places of 320 by 180."""
TYPICAL_AREA = 0.0025
"""Area at which the share for size reaches 1 - 1/e."""
JOIN = 0.01
"""Parts of one animal that lie nearer than this share of the frame's longest side become one blob."""
MAX_FOREGROUND = 0.7
"""A frame that differs from the others in more than this share has been knocked, lit or covered: no boxes."""


class MotionDetector:
    """Boxes of what moves.

    Args:
        min_score: Boxes below are left out.
    """

    name = "motion"
    needs_clip = True

    def __init__(self, *, min_score: float) -> None:
        self._min_score = min_score

    @property
    def digest_facts(self) -> Mapping[str, object]:
        """The settings of the foreground."""
        return {"detector": self.name, "version": 1, "thumbnail_px": THUMBNAIL_PX}

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """The boxes of each frame of one clip: frames in order, all of one size."""
        if not images:
            return []
        height, width = images[0].shape[:2]
        clip = ClipModel([thumbnail(image) for image in images], width_px=width, height_px=height)
        if not clip.usable:
            logger.info("motion: a window of %d frames has no background to compare with: no boxes", len(images))
        return [self.boxes(clip, i) for i in range(len(images))]

    def boxes(self, clip: ClipModel, index: int) -> Boxes:
        """The boxes of one frame.

        Args:
            clip: Of the window the frame is in.
            index: Its place there.

        Returns:
            Highest score first, in pixels of the original frame; none where the window has under three frames.
        """
        if not clip.usable:
            return Boxes.empty()
        mask = _clean(clip.foreground(index))
        if mask.mean() > MAX_FOREGROUND:
            return Boxes.empty()
        height, width = mask.shape
        blobs, stats = _blobs(mask, join=max(1, round(JOIN * max(height, width))))
        num_blobs = len(stats)
        area = np.bincount(blobs[mask], minlength=num_blobs)
        change = np.bincount(blobs[mask], weights=clip.change(index)[mask], minlength=num_blobs) / np.maximum(area, 1)
        size = 1 - np.exp(-area / (TYPICAL_AREA * height * width))
        persistent = np.bincount(blobs[mask & _near(clip, index)], minlength=num_blobs) > 0
        score = change * size * np.where(persistent, 1.0, 0.5)
        keep = (area >= MIN_AREA * height * width) & (score >= self._min_score)
        keep[0] = False  # the background's label
        scale = [clip.width_px / width, clip.height_px / height] * 2
        return (
            Boxes.of_category(stats[keep] * scale, score[keep], "animal")
            .clipped(clip.width_px, clip.height_px)
            .sorted()
        )


def _clean(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Single places and lines of one place out, pinholes shut."""
    return np.asarray(cv2.medianBlur(mask.astype(np.uint8), 3)) > 0


def _blobs(mask: npt.NDArray[np.bool_], *, join: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """(h, w) label of every place, parts nearer than ``join`` together, and (labels, 4) corners of each label."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * join + 1, 2 * join + 1))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    x, y = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    corners = np.stack([x, y, x + stats[:, cv2.CC_STAT_WIDTH], y + stats[:, cv2.CC_STAT_HEIGHT]], axis=1)
    return np.asarray(labels, dtype=np.int32), corners.astype(np.float64)


def _near(clip: ClipModel, index: int) -> npt.NDArray[np.bool_]:
    """(h, w) places near foreground of a neighbouring frame."""
    found = np.zeros(clip.shape, dtype=np.uint8)
    for other in (index - 1, index + 1):
        if 0 <= other < clip.num_frames:
            found |= _clean(clip.foreground(other)).astype(np.uint8)
    reach = math.ceil(0.1 * max(clip.shape))
    return np.asarray(cv2.dilate(found, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))) > 0

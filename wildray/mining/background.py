"""What a clip shows without what was found in it: the median of its frames, and the parts of that behind boxes.

In: the frames of one window and their boxes, one after the other. Out: for a box, the background at exactly the place
and padding of its crop, small and as a JPEG. Training sets crops against it to tell animal from scenery, and puts
animals onto the scenery of other cameras. The median is over the frames in which no box covers a place, since a
grazing animal stands in one place for most of a clip and a plain median shows it; where a box always is, the colours
around it are spread over it. The window's frames are too many to keep, so at most ``2 * NUM_FRAMES`` of them are, at
``FRAME_PX``, evenly spread. The alternative, the grey thumbnails of ``detectors.clip``, is at hand without a further
pixel kept, but has neither the colours nor the resolution that scenery wants.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from wildray.packs import UInt8, crop_corners, encode_jpeg, shrunk

NUM_FRAMES = 25
"""Frames that the median is of."""
MIN_FRAMES = 3
"""Of two frames nobody can say which one holds an animal that was not found."""
GROW = 0.1
"""Share of a box's sides by which it covers more than itself: detectors cut off tails and feet."""
FILL_SCALE = 4
"""What is not known is filled in a picture smaller by this, since nothing fine is to be had."""
FILL_SIGMA = 2.0
"""Reach of the first try, a standard deviation in pixels of that; doubled as long as something is left."""
FILL_WEIGHT = 0.02
"""Share of what lies within reach that must be known."""
FRAME_PX = 640
"""Longest side of the frames that are kept: 0.7 MB each."""
CROP_PX = 160
"""Longest side of a background crop; backbones take 64 to 224 pixels, and blurred scenery is scenery still."""
STRIDE = 4
"""Every so many pixels are looked at for the change of light."""
QUALITY = 85
"""JPEG quality of background crops."""
MIN_DIFFERENCE = 12
"""Grey levels by which a place differs from the background: above compression noise, which is 2 to 4."""
MIN_SHARE = 0.03
"""A crop that differs in less than this share of its places shows what the background shows."""


class Background:
    """The background of one window; frames are added in order."""

    def __init__(self) -> None:
        self._frames: list[UInt8] = []
        self._covered: list[npt.NDArray[np.bool_]] = []
        self._seen = 0
        self._every = 1
        self._picture: UInt8 | None = None

    def add(self, image: UInt8, xyxy_px: npt.NDArray[np.float32]) -> None:
        """Look at a frame; one that is not of the first one's size is passed over.

        Args:
            image: (H, W, 3) uint8 RGB.
            xyxy_px: (N, 4) boxes of what was found in it, which is no background.
        """
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        small = shrunk(image, longest_px=FRAME_PX)
        if self._frames and small.shape != self._frames[0].shape:  # a stream may change its size on the way
            return
        self._frames.append(small if small is not image else image.copy())
        self._covered.append(_covered(xyxy_px, image.shape, small.shape))
        self._picture = None
        if len(self._frames) == 2 * NUM_FRAMES:
            self._frames, self._covered, self._every = self._frames[::2], self._covered[::2], 2 * self._every

    def crop(self, image: UInt8, xyxy_px: npt.ArrayLike, *, size_px: tuple[int, int], padding: float) -> bytes | None:
        """The background behind one crop.

        Args:
            image: (h, w, 3) uint8, the crop.
            xyxy_px: (4,) its box in pixels of the frame, half-open.
            size_px: Width and height of the frame.
            padding: Of the crop, as in ``crop_image``.

        Returns:
            A JPEG of the crop's proportions; None where the window has too few frames, or the crop differs so little
            from the background that nothing but scenery is in the one or an animal is in both.
        """
        if len(self._frames) < MIN_FRAMES:
            return None
        if self._picture is None:
            places = np.linspace(0, len(self._frames) - 1, min(NUM_FRAMES, len(self._frames))).round().astype(int)
            median, known = median_image([self._frames[i] for i in places], [self._covered[i] for i in places])
            self._picture = filled(median, known)
        height, width = self._picture.shape[:2]
        corners = crop_corners(xyxy_px, padding=padding, width_px=size_px[0], height_px=size_px[1])
        part = _cut(self._picture, corners * ([width / size_px[0], height / size_px[1]] * 2))
        return encode_jpeg(part, quality=QUALITY) if _differs(image, part) else None


def median_image(
    images: Sequence[UInt8], covered: Sequence[npt.NDArray[np.bool_]]
) -> tuple[UInt8, npt.NDArray[np.bool_]]:
    """The median of every place over the images in which nothing covers it.

    Sorted by exchanges of whole images, which is ten times faster than numpy's median along the first axis.

    Args:
        images: N of (h, w, 3) uint8.
        covered: N of (h, w) bool.

    Returns:
        (h, w, 3) uint8, of an even number the upper of the two in the middle; and (h, w) bool, where at least
        ``MIN_FRAMES`` are uncovered. Elsewhere the value means nothing.
    """
    rows = [image.copy() for image in images]
    for row, hidden in zip(rows, covered, strict=True):
        row[hidden] = 255  # sorts behind all that is open
    for turn in range(len(rows)):
        for i in range(turn % 2, len(rows) - 1, 2):
            rows[i], rows[i + 1] = np.minimum(rows[i], rows[i + 1]), np.maximum(rows[i], rows[i + 1])
    num_open = len(rows) - np.sum(covered, axis=0)
    middle = np.minimum(num_open // 2, len(rows) - 1)
    picture = rows[len(rows) // 2].copy()
    for place in np.unique(middle[middle != len(rows) // 2]):
        here = middle == place
        picture[here] = rows[place][here]
    return picture, np.asarray(num_open >= MIN_FRAMES)


def filled(image: UInt8, known: npt.NDArray[np.bool_]) -> UInt8:
    """(h, w, 3) image with the places that are not known in the colours of those around them."""
    if known.all() or not known.any():
        return image
    height, width = known.shape
    size = (max(1, width // FILL_SCALE), max(1, height // FILL_SCALE))
    weight = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    colors = cv2.resize(np.where(known[..., None], image, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    out = np.zeros_like(colors)
    missing = np.ones(weight.shape, bool)
    sigma = FILL_SIGMA
    while missing.any():
        near = cv2.GaussianBlur(weight, (0, 0), sigma)
        here = missing & (near > FILL_WEIGHT)
        out[here] = cv2.GaussianBlur(colors, (0, 0), sigma)[here] / near[here][:, None]
        missing &= ~here
        sigma *= 2
    around = cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR).round().clip(0, 255).astype(np.uint8)
    return np.where(known[..., None], image, around)


def _covered(xyxy_px: npt.NDArray[np.float32], shape: tuple[int, ...], small: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(h, w) bool of a frame of ``small`` size: the places in boxes, a little grown."""
    mask = np.zeros(small[:2], bool)
    corners = crop_corners(xyxy_px.reshape(-1, 4), padding=GROW, width_px=shape[1], height_px=shape[0])
    scaled = corners * ([small[1] / shape[1], small[0] / shape[0]] * 2)
    for left, top, right, bottom in np.concatenate([np.floor(scaled[:, :2]), np.ceil(scaled[:, 2:])], 1).astype(int):
        mask[top:bottom, left:right] = True
    return mask


def _cut(image: UInt8, xyxy: npt.NDArray[np.float64]) -> UInt8:
    """The part of an image between corners that may lie within pixels, its longest side at most ``CROP_PX``."""
    left, top = xyxy[:2]
    size = np.maximum(1, np.round(xyxy[2:] - xyxy[:2])).astype(int)
    step = (xyxy[2:] - xyxy[:2]) / size
    # pixel i of the part lies at left + (i + 1/2) step, in the image's pixels whose centres are at whole numbers + 1/2
    matrix = np.array([[step[0], 0, left + step[0] / 2 - 0.5], [0, step[1], top + step[1] / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(image, matrix, (int(size[0]), int(size[1])), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return shrunk(np.asarray(part, dtype=np.uint8), longest_px=CROP_PX)


def _differs(image: UInt8, background: UInt8) -> bool:
    """Whether a crop shows something that its background does not."""
    size = (background.shape[1], background.shape[0])
    small = cv2.blur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (3, 3)).astype(np.int16)
    difference = small - cv2.blur(background, (3, 3))
    light = np.median(difference[::STRIDE, ::STRIDE], axis=(0, 1))  # a change of it is no animal
    difference -= light.astype(np.int16)
    return bool((np.abs(difference).max(axis=2) > MIN_DIFFERENCE).mean() >= MIN_SHARE)

"""How the inside of a box is coloured: a signature that tells two animals apart where their boxes cross.

In: a frame and a box. Out: 54 bytes, mean and spread of red, green and blue in the cells of a 3x3 grid over the box; of
stored rows, arrays. It is of the box alone and not of the padded crop, whose rim shows the neighbour. A colour
histogram of the whole box would lose where on the body a colour is; the crop itself would have to be decoded.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.packs import crop_corners

UInt8 = npt.NDArray[np.uint8]

GRID = 3
"""Cells along each side of a box."""
NUM_VALUES = GRID * GRID * 3 * 2
"""Values of a box: for every cell, row by row, mean R, std R, mean G, std G, mean B, std B."""
LONGEST_PX = 96
"""Of larger boxes so many pixels along a side are looked at, evenly spread: 1,024 in each cell. To average all pixels
instead (INTER_AREA) takes 20 times as long for a box of 600 px, and makes the spread depend on the resolution."""


def colour_signature(image: UInt8, xyxy_px: npt.ArrayLike) -> UInt8:
    """Means and standard deviations of the colours in a box.

    Args:
        image: (H, W, 3) uint8 RGB.
        xyxy_px: (4,) corners in pixels, half-open; pixels that the box covers in part count whole.

    Returns:
        (54,) uint8, rounded: the cells row by row, of each mean R, std R, mean G, std G, mean B, std B. Where a box
        has fewer pixels than cells along a side, cells share them.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = crop_corners(xyxy_px, padding=0.0, width_px=width, height_px=height).tolist()
    inside = image[top:bottom, left:right]
    size = (min(right - left, LONGEST_PX), min(bottom - top, LONGEST_PX))
    if size != (right - left, bottom - top):
        inside = np.asarray(cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    found = [
        cv2.meanStdDev(inside[first:last, begin:end])
        for first, last in _cells(size[1])
        for begin, end in _cells(size[0])
    ]
    # (9, 2, 3, 1) to mean and spread side by side for each channel
    signature: UInt8 = np.rint(np.asarray(found)[..., 0].transpose(0, 2, 1)).astype(np.uint8).reshape(-1)
    return signature


def colour_arrays(column: pa.ChunkedArray) -> tuple[UInt8, npt.NDArray[np.bool_]]:
    """The stored column ``colour`` as arrays.

    Args:
        column: (N,) lists of 54 bytes, or null.

    Returns:
        (N, 54) uint8, zeros where it is null, and (N,) whether it is known.
    """
    known = np.asarray(pc.is_valid(column).to_numpy(), dtype=bool)
    values = np.zeros((len(column), NUM_VALUES), dtype=np.uint8)
    if known.any():
        values[known] = pc.list_flatten(column).to_numpy().reshape(-1, NUM_VALUES)
    return values, known


def _cells(length: int) -> list[tuple[int, int]]:
    """(first, end) pixel of each cell along a side of ``length`` pixels, at least one."""
    starts = [number * length // GRID for number in range(GRID + 1)]
    return [(first, max(end, first + 1)) for first, end in itertools.pairwise(starts)]

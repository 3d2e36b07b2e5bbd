"""Drawing: a posed animal as a picture with transparency, and laying pictures over each other.

In: an individual, a flank, a pose and a place in the frame. Out: ``Layer``: premultiplied RGBA pixels and where they
go. All of it is uint8 arithmetic on small patches, which is what makes hundreds of frames a second possible; a
supersampled float canvas of the whole frame looks no better after video compression.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wildray.simulate.bodies import LEVELS, puppet
from wildray.simulate.coats import U8
from wildray.simulate.poses import Pose, part_transforms
from wildray.simulate.randomness import F64
from wildray.simulate.species import Individual

OPAQUE = 127
"""Alpha above which a pixel counts as the animal's."""


@dataclass(frozen=True)
class Layer:
    """A picture to lay over a frame.

    Attributes:
        pixels: (h, w, 4) uint8, RGB premultiplied with alpha.
        x, y: Where its first pixel lies in the frame; may be negative.
    """

    pixels: U8
    x: int
    y: int


def draw_animal(
    animal: Individual,
    flank: str,
    pose: Pose,
    *,
    x_px: float,
    y_px: float,
    length_px: float,
    width_factor: float,
    texture_px: int,
) -> Layer:
    """An animal as it stands in the frame.

    Args:
        animal: Who.
        flank: The side seen: ``right`` faces right, ``left`` faces left.
        pose: How it stands.
        x_px: Middle of its trunk.
        y_px: Where its feet are.
        length_px: Length of its trunk.
        width_factor: Foreshortening while it turns round, in (0, 1].
        texture_px: Pixels of the trunk's length in its coat.
    """
    body = puppet(animal, flank, texture_px)
    facing = width_factor if flank == "right" else -width_factor
    place = np.array([[facing * length_px, 0, x_px - facing * length_px * 0.5], [0, length_px, y_px], [0, 0, 1]])
    level = max((i for i, share in enumerate(LEVELS) if share * texture_px >= length_px), default=0)
    pieces = []
    for sprites, transform in zip(body.sprites, part_transforms(animal.form, body.parts, pose), strict=True):
        sprite = sprites[level]
        sx, sy = sprite.px_per_unit
        # pixel centres lie half a pixel inside
        units = np.array(
            [[1 / sx, 0, sprite.origin[0] + 0.5 / sx], [0, 1 / sy, sprite.origin[1] + 0.5 / sy], [0, 0, 1]]
        )
        shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
        pieces.append((sprite.pixels, shift @ place @ transform @ units))
    return _assemble(pieces)


def _assemble(pieces: list[tuple[U8, F64]]) -> Layer:
    boxes = np.array([_extent(pixels, matrix) for pixels, matrix in pieces])
    x, y = int(boxes[:, 0].min()), int(boxes[:, 1].min())
    canvas = np.zeros((int(boxes[:, 3].max()) - y, int(boxes[:, 2].max()) - x, 4), np.uint8)
    for (pixels, matrix), (x1, y1, x2, y2) in zip(pieces, boxes, strict=True):
        local = matrix[:2].copy()
        local[:, 2] -= (x1, y1)
        piece = np.asarray(cv2.warpAffine(pixels, local, (int(x2 - x1), int(y2 - y1))), np.uint8)
        over(canvas[y1 - y : y2 - y, x1 - x : x2 - x], piece)
    return Layer(canvas, x, y)


def _extent(pixels: U8, matrix: F64) -> tuple[int, int, int, int]:
    height, width = pixels.shape[:2]
    corners = matrix[:2] @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    low, high = np.floor(corners.min(1)).astype(int) - 1, np.ceil(corners.max(1)).astype(int) + 2
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def over(below: U8, above: U8) -> None:
    """Lay premultiplied RGBA pixels over RGB or RGBA pixels of the same size, in place."""
    channels = below.shape[2]
    clear = cv2.cvtColor(255 - above[..., 3], cv2.COLOR_GRAY2RGB if channels == 3 else cv2.COLOR_GRAY2RGBA)
    if channels == 4:
        clear[..., 3] = 255 - above[..., 3]
    cv2.multiply(below, clear, dst=below, scale=1 / 255)
    cv2.add(below, above[..., :channels], dst=below)


def clip(layer: Layer, width: int, height: int) -> tuple[slice, slice, U8] | None:
    """Rows and columns of the frame that a layer covers and its pixels there; None where it lies outside."""
    x1, y1 = max(layer.x, 0), max(layer.y, 0)
    x2, y2 = min(layer.x + layer.pixels.shape[1], width), min(layer.y + layer.pixels.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return None
    return slice(y1, y2), slice(x1, x2), layer.pixels[y1 - layer.y : y2 - layer.y, x1 - layer.x : x2 - layer.x]

"""Distractors: rocks, stumps and logs that a detector takes for animals.

In: a stream, the frame's size and the ground. Out: ``Distractor`` values: a picture at a place of its own, the same in
every clip of a camera. They are tawny and as large as animals, and unlike a resting animal they do not even breathe.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wildray.simulate.bodies import smooth_outline
from wildray.simulate.drawing import Layer
from wildray.simulate.randomness import cloud_noise

_KINDS = {  # outline in shares of width and height from the lower left corner; height and width relative to an animal
    "rock": ([(0.0, 0.0), (0.02, 0.5), (0.2, 0.85), (0.5, 1.0), (0.78, 0.85), (0.97, 0.5), (1.0, 0.0)], 0.55, 1.0),
    "stump": ([(0.0, 0.0), (0.14, 0.4), (0.16, 0.95), (0.5, 1.0), (0.82, 0.9), (0.86, 0.4), (1.0, 0.0)], 0.8, 0.5),
    "log": ([(0.0, 0.1), (0.0, 0.9), (0.3, 1.0), (0.7, 0.92), (1.0, 0.8), (1.0, 0.1), (0.5, 0.0)], 0.28, 1.0),
}


@dataclass(frozen=True)
class Distractor:
    """A thing that looks like an animal.

    Attributes:
        name: Its name in the truth: the same in every clip of the camera.
        y_px: Row of its foot: what stands nearer hides it.
        layer: Its picture and place.
    """

    name: str
    y_px: float
    layer: Layer


def distractors_of(
    rng: np.random.Generator, shape: tuple[int, int], camera_id: str, ground: tuple[float, float]
) -> tuple[Distractor, ...]:
    """One or two distractors at places of their own.

    Args:
        rng: Where they are drawn from.
        shape: (height, width) of the frame in pixels.
        camera_id: Part of their names.
        ground: Rows between which the ground lies, as shares of the height.
    """
    sides = rng.permutation([(0.03, 0.40), (0.55, 0.95)])[: int(rng.integers(1, 3))]
    return tuple(_distractor(rng, shape, f"{camera_id}-{n}", ground, side) for n, side in enumerate(sides))


def _distractor(
    rng: np.random.Generator,
    shape: tuple[int, int],
    suffix: str,
    ground: tuple[float, float],
    side: tuple[float, float],
) -> Distractor:
    height, width = shape
    kind = sorted(_KINDS)[int(rng.integers(len(_KINDS)))]
    corners, tall_share, long_share = _KINDS[kind]
    near = rng.uniform(0.1, 0.75)
    animal = (0.12 + 0.1 * near) * width * rng.uniform(0.8, 1.2)
    tall, long = animal * tall_share, animal * long_share
    foot = (ground[0] + (ground[1] - ground[0]) * near) * height
    x = float(np.clip(rng.uniform(*side) * width, 2, width - long - 2))
    jitter = rng.uniform(-0.04, 0.04, (len(corners), 2))
    points = [(px + float(j[0]), py + float(j[1])) for (px, py), j in zip(corners, jitter, strict=True)]
    left, top = int(x - 0.06 * long), int(foot - 1.08 * tall)
    size = (round(1.16 * tall) + 2, round(1.12 * long) + 2)
    outline = smooth_outline([(x + px * long - left, foot - py * tall - top) for px, py in points])
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    color = np.array([168, 140, 106], np.float32) * rng.uniform(0.8, 1.1)
    rows = np.linspace(1, 0, size[0], dtype=np.float32)[:, None]
    texture = (0.62 + 0.5 * rows) * (1 + 0.2 * cloud_noise(rng, size, (6, 9), 3))
    alpha = mask.astype(np.float32)[..., None] / 255
    picture = np.dstack([np.clip(color * texture[..., None], 0, 255) * alpha, mask.astype(np.float32)])
    return Distractor(f"{kind}-{suffix}", foot, Layer(np.round(picture).astype(np.uint8), left, top))

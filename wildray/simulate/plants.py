"""Plants that sway: tufts of grass and bushes, between and in front of the animals.

In: a stream, the frame's size and a leaf colour. Out: ``Plant`` values that ``sway`` bends at a time. A plant is one
picture sheared about its foot by two sines of its own; moving every blade would cost more than drawing the animals.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wildray.simulate.coats import U8
from wildray.simulate.drawing import Layer
from wildray.simulate.randomness import F32


@dataclass(frozen=True)
class Plant:
    """A plant.

    Attributes:
        pixels: (h, w, 4) premultiplied uint8 RGBA, upright, with room to sway at the sides.
        x_px, y_px: Middle of its foot in the frame.
        bend: Shear of a full swing: pixels sideways per pixel of height.
        pace: Swings a second, of the slow sine; the fast one is 2.7 times as quick.
        phase: Where it begins, in cycles.
    """

    pixels: U8
    x_px: float
    y_px: float
    bend: float
    pace: float
    phase: float


def plants_of(
    rng: np.random.Generator, shape: tuple[int, int], leaf: F32, ground: tuple[float, float], *, macro: bool
) -> tuple[Plant, ...]:
    """The plants of a scene, the farthest first.

    Args:
        rng: Where they are drawn from.
        shape: (height, width) of the frame in pixels.
        leaf: RGB of the leaves, 0 to 255.
        ground: Rows between which the ground lies, as shares of the height.
        macro: Whether the camera is close: fewer plants, all large.
    """
    height, width = shape
    plants = []
    for _ in range(4 if macro else int(rng.integers(9, 15))):
        depth = rng.uniform(0, 1) ** 1.3
        foot = (ground[0] + (ground[1] - ground[0]) * depth) * height
        tall = (0.06 + 0.08 * depth) * height * rng.uniform(0.7, 1.3) * (1.3 if macro else 1.0)
        color = leaf * rng.uniform(0.8, 1.25) + rng.uniform(-8, 8, 3).astype(np.float32)
        plants.append(_plant(rng, _tuft(rng, tall, color), rng.uniform(0, 1) * width, foot, 0.20))
    for _ in range(1 if macro else int(rng.integers(1, 4))):
        depth = rng.uniform(0.45, 1.0)
        foot = (ground[0] + (ground[1] - ground[0]) * depth) * height
        side = rng.uniform(0.0, 0.16) if rng.uniform() < 0.5 else rng.uniform(0.84, 1.0)
        picture = _bush(rng, (0.14 + 0.14 * depth) * height * rng.uniform(0.8, 1.2), leaf * rng.uniform(0.75, 1.1))
        plants.append(_plant(rng, picture, side * width, foot, 0.07))
    for _ in range(int(rng.integers(4, 9))):  # right in front of the lens, at the bottom edge
        picture = _tuft(rng, rng.uniform(0.12, 0.22) * height, leaf * rng.uniform(0.7, 1.0))
        plants.append(_plant(rng, picture, rng.uniform(0, 1) * width, 1.04 * height, 0.16))
    return tuple(sorted(plants, key=lambda plant: plant.y_px))


def sway(plant: Plant, time_s: float, wind: float) -> Layer:
    """The plant at a time, bent by the wind.

    Args:
        plant: Which.
        time_s: Seconds of the simulated day.
        wind: 0 still, 1 windy.
    """
    height, width = plant.pixels.shape[:2]
    cycle = 2 * np.pi * (plant.pace * time_s + plant.phase)
    shear = plant.bend * wind * (0.3 + np.sin(cycle) + 0.4 * np.sin(2.7 * cycle + 1.0))
    left, top = plant.x_px - width / 2, plant.y_px - height
    x, y = int(np.floor(left)), int(np.floor(top))
    matrix = np.array([[1, -shear, shear * height + left - x], [0, 1, top - y]])
    return Layer(np.asarray(cv2.warpAffine(plant.pixels, matrix, (width + 1, height + 1)), np.uint8), x, y)


def _plant(rng: np.random.Generator, pixels: U8, x_px: float, y_px: float, bend: float) -> Plant:
    return Plant(pixels, x_px, y_px, bend, pace=rng.uniform(0.25, 0.5), phase=rng.uniform(0, 1))


def _tuft(rng: np.random.Generator, tall: float, color: F32) -> U8:
    """Blades from one foot; the picture is as wide as tall."""
    side = max(8, round(tall))
    rgba = np.zeros((side, round(side * 1.5), 4), np.uint8)
    middle = rgba.shape[1] / 2
    for _ in range(int(rng.integers(12, 26))):
        lean, reach = rng.normal(0, 0.34), rng.uniform(0.5, 0.97)
        foot = middle + rng.uniform(-0.16, 0.16) * side
        t = np.linspace(0, 1, 6)
        blade = np.stack([foot + lean * side * t**1.7 * reach, side - side * reach * t], -1)
        shade = np.clip(color * rng.uniform(0.65, 1.3), 0, 255)
        ink = (*(float(value) for value in shade), 255.0)
        cv2.polylines(
            rgba, [np.round(blade * 16).astype(np.int32)], False, ink, max(1, round(side / 34)), cv2.LINE_AA, 4
        )
    return _soft(rgba)


def _bush(rng: np.random.Generator, tall: float, color: F32) -> U8:
    """Leaves heaped into a dome; wider than tall."""
    side = max(12, round(tall))
    rgba = np.zeros((side, round(side * 1.7), 4), np.uint8)
    middle = rgba.shape[1] / 2
    for share in np.sort(rng.uniform(0, 1, 190)):
        angle, radius = rng.uniform(0, np.pi), np.sqrt(rng.uniform(0.02, 1))
        x = middle + np.cos(angle) * radius * side * 0.62
        y = side - np.sin(angle) * radius * side * 0.86
        shade = np.clip(color * (0.5 + 0.75 * share) * rng.uniform(0.85, 1.15), 0, 255)
        axes = (max(1, round(side * rng.uniform(0.035, 0.06))), max(1, round(side * rng.uniform(0.02, 0.03))))
        ink = (*(float(value) for value in shade), 255.0)
        cv2.ellipse(rgba, (round(x), round(y)), axes, rng.uniform(0, 180), 0, 360, ink, -1, cv2.LINE_AA)
    return _soft(rgba)


def _soft(rgba: U8) -> U8:
    """Soften; blades drawn with smooth edges onto nothing come out premultiplied already."""
    return np.asarray(cv2.GaussianBlur(rgba, (0, 0), 0.6), np.uint8)

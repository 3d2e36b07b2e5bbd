"""Coats: the picture of one flank of one individual, flat, in the body's own coordinates.

In: an ``Individual`` and a flank. Out: an RGB texture over the region that a body at rest takes up; x runs from the
rump (0) to the chest (1), y upwards is negative and the ground is 0. Marks are drawn from a stream of the individual
and the flank, so that the flanks share size, density and colour of the marks and nothing of their layout. A pattern
computed by reaction and diffusion would look finer close up; at a hundred pixels nobody sees it, and it is slow.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wildray.simulate.randomness import F32, smooth_noise, stream
from wildray.simulate.species import SPECIES, Individual

U8 = npt.NDArray[np.uint8]

REGION = (-0.9, -1.75, 1.95, 0.1)
"""x1, y1, x2, y2 of the texture in units of the trunk's length: every part of every species at rest lies inside."""

_SUPERSAMPLE = 2


def flank_texture(animal: Individual, flank: str, px_per_unit: int) -> U8:
    """The coat of a flank.

    Args:
        animal: Whose.
        flank: ``left`` or ``right``.
        px_per_unit: Pixels of the trunk's length.

    Returns:
        (h, w, 3) uint8 RGB over ``REGION``, the animal facing right. Marks lie at the same places at every resolution.
    """
    scale = px_per_unit * _SUPERSAMPLE
    shape = (round((REGION[3] - REGION[1]) * scale), round((REGION[2] - REGION[0]) * scale))
    rng = stream(animal.seed, "coat", animal.identity, flank)
    marks, tint = _PATTERNS[SPECIES[animal.species].pattern](rng, animal, shape, scale)
    y = np.linspace(REGION[1], REGION[3], shape[0], dtype=np.float32)[:, None]
    belly = np.clip(1 - np.abs(y + animal.form.leg) / 0.12, 0, 1)
    base = np.array(animal.base_rgb, np.float32)
    fur = 1 + 0.035 * smooth_noise(rng, shape, (170, 270))[..., None]
    picture = (base + (246 - base) * (0.35 * belly)[..., None]) * fur
    picture -= tint[..., None] * 34
    picture += marks[..., None] * (np.array(animal.mark_rgb, np.float32) - picture) * np.float32(0.94)
    small = cv2.resize(picture, (shape[1] // _SUPERSAMPLE, shape[0] // _SUPERSAMPLE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(small, 0, 255), np.uint8)


def _points(rng: np.random.Generator, spacing: float) -> F32:
    """(N, 2) points on a jittered grid over the region, in units."""
    columns = np.arange(REGION[0], REGION[2], spacing)
    rows = np.arange(REGION[1], REGION[3], spacing)
    grid = np.stack(np.meshgrid(columns, rows), -1)
    grid[1::2, :, 0] += spacing / 2
    return (grid + rng.uniform(-0.36, 0.36, grid.shape) * spacing).reshape(-1, 2).astype(np.float32)


def _sample(field: F32, points: F32) -> F32:
    """(N,) values of a field over the region at points in units."""
    size = np.array([REGION[2] - REGION[0], REGION[3] - REGION[1]])
    share = (points - np.array(REGION[:2])) / size
    index = np.clip(share * np.array(field.shape[::-1]), 0, np.array(field.shape[::-1]) - 1).astype(int)
    return np.asarray(field[index[:, 1], index[:, 0]], np.float32)


def _pixels(points: F32, scale: int) -> npt.NDArray[np.int32]:
    """Points in units as pixels with 4 fractional bits, which is what OpenCV draws."""
    return np.round((points - np.array(REGION[:2], np.float32)) * (scale * 16)).astype(np.int32)


def _blob(rng: np.random.Generator, center: F32, radius: float, *, start: float = 0, end: float = 1) -> F32:
    """(15, 2) outline of an irregular ellipse in units, or of an arc of it."""
    angle = np.linspace(start, end, 15) * 2 * np.pi
    wobble = 1 + 0.16 * np.sin(angle * 2 + rng.uniform(0, 6.28)) + 0.12 * np.sin(angle * 3 + rng.uniform(0, 6.28))
    turn, aspect = rng.uniform(-0.5, 0.5), rng.uniform(0.65, 1.0)
    x, y = np.cos(angle) * radius * wobble, np.sin(angle) * radius * wobble * aspect
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], -1)
    return (turned + center).astype(np.float32)


def _seeds(rng: np.random.Generator, animal: Individual, spacing: float) -> tuple[F32, F32]:
    """Places of marks and a size factor for each: dense here and bare there, large here and small there.

    These coarse differences are what is left of a coat in a crop of 64 pixels.
    """
    dense, large = smooth_noise(rng, (96, 144), (8, 12)), smooth_noise(rng, (96, 144), (7, 10))
    points = _points(rng, spacing / animal.mark_density)
    chance = rng.uniform(size=len(points))
    kept = points[chance < 1 / (1 + np.exp(-(1.6 + 2.4 * _sample(dense, points))))]
    return kept, np.exp(0.34 * _sample(large, kept)) * rng.uniform(0.8, 1.2, len(kept)).astype(np.float32)


def _spots(rng: np.random.Generator, animal: Individual, shape: tuple[int, int], scale: int) -> tuple[F32, F32]:
    """Solid dark spots, the larger the higher on the body."""
    marks = np.zeros(shape, np.float32)
    points, factors = _seeds(rng, animal, 0.125)
    for center, factor in zip(points, factors, strict=True):
        radius = 0.038 * animal.mark_size * factor * (1.0 if center[1] < -0.42 else 0.6)
        cv2.fillPoly(marks, [_pixels(_blob(rng, center, radius), scale)], 1.0, cv2.LINE_AA, 4)
    return marks, np.zeros(shape, np.float32)


def _rosettes(rng: np.random.Generator, animal: Individual, shape: tuple[int, int], scale: int) -> tuple[F32, F32]:
    """Broken dark rings around a tinted middle; plain spots on legs and head."""
    marks, tint = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    points, factors = _seeds(rng, animal, 0.155)
    for center, factor in zip(points, factors, strict=True):
        radius = 0.056 * animal.mark_size * factor
        if center[1] > -0.36 or center[0] > 1.02:
            cv2.fillPoly(marks, [_pixels(_blob(rng, center, radius * 0.5), scale)], 1.0, cv2.LINE_AA, 4)
            continue
        cv2.fillPoly(tint, [_pixels(_blob(rng, center, radius), scale)], 1.0, cv2.LINE_AA, 4)
        start = rng.uniform()
        for arc in range(int(rng.integers(1, 4))):
            outline = _blob(
                rng, center, radius, start=start + 0.36 * arc, end=start + 0.36 * arc + rng.uniform(0.2, 0.3)
            )
            width = max(1, round(0.03 * scale * animal.mark_size))
            cv2.polylines(marks, [_pixels(outline, scale)], False, 1.0, width, cv2.LINE_AA, 4)
    return marks, tint


def _stripes(rng: np.random.Generator, animal: Individual, shape: tuple[int, int], scale: int) -> tuple[F32, F32]:
    """Dark stripes, upright on the trunk and level on the legs, that bend, fork and fade."""
    x = np.linspace(REGION[0], REGION[2], shape[1], dtype=np.float32)[None, :]
    y = np.linspace(REGION[1], REGION[3], shape[0], dtype=np.float32)[:, None]
    warp, width = smooth_noise(rng, shape, (7, 12)), smooth_noise(rng, shape, (6, 9))
    fork = smooth_noise(rng, shape, (5, 26))
    legs = np.clip((y + animal.form.leg + 0.02) / 0.08, 0, 1)
    frequency = 5.2 * animal.mark_density / animal.mark_size
    tilt = rng.uniform(-0.35, 0.35)
    upright = (x + tilt * y) * frequency + 0.42 * warp + 0.14 * fork
    phase = (1 - legs) * upright + legs * (y * 9.5 * animal.mark_density + 0.3 * warp + rng.uniform())
    wave = np.cos(2 * np.pi * phase) + 0.55 * width - 0.1
    return np.clip(wave * 3.5, 0, 1).astype(np.float32), np.zeros(shape, np.float32)


def _marks(rng: np.random.Generator, animal: Individual, shape: tuple[int, int], scale: int) -> tuple[F32, F32]:
    """A plain coat with a few pale bars, dots and patches, and a dark scar or two (a negative mark)."""
    marks, tint = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    top, belly = -animal.form.leg - animal.form.depth, -animal.form.leg
    for left in rng.permutation(np.linspace(0.08, 0.92, 9))[: int(rng.integers(3, 7))]:
        upper, lower = rng.uniform(0.0, 0.1), rng.uniform(0.16, 0.38)
        bend = rng.uniform(-0.05, 0.05, 4).cumsum()
        line = np.stack([left + bend, np.linspace(top + upper, top + lower, 4)], -1).astype(np.float32)
        width = max(1, round(rng.uniform(0.018, 0.036) * animal.mark_size * scale))
        cv2.polylines(marks, [_pixels(line, scale)], False, 1.0, width, cv2.LINE_AA, 4)
    for _ in range(int(rng.integers(3, 9) * animal.mark_density)):
        center = np.array([rng.uniform(0, 1), rng.uniform(top + 0.08, belly - 0.02)], np.float32)
        radius = rng.uniform(0.014, 0.036) * animal.mark_size
        cv2.fillPoly(marks, [_pixels(_blob(rng, center, radius), scale)], 1.0, cv2.LINE_AA, 4)
    for field, count in ((marks, rng.integers(0, 3)), (tint, rng.integers(1, 4))):
        for _ in range(int(count)):
            center = np.array([rng.uniform(-0.05, 1.25), rng.uniform(top - 0.1, belly)], np.float32)
            cv2.fillPoly(field, [_pixels(_blob(rng, center, rng.uniform(0.06, 0.13)), scale)], 1.0, cv2.LINE_AA, 4)
    return marks, tint * 2.2


def _fine_marks(rng: np.random.Generator, animal: Individual, shape: tuple[int, int], scale: int) -> tuple[F32, F32]:
    """Dots and short bars of 2 % of the length: sharp in a large crop, gone in one of fewer than 96 pixels.

    They are spread evenly, since clusters and bare patches would still be seen as light and dark in a small crop.
    """
    marks = np.zeros(shape, np.float32)
    points = _points(rng, 0.052 / animal.mark_density)
    for center in points[rng.uniform(size=len(points)) < 0.62]:
        radius = 0.0105 * animal.mark_size * rng.uniform(0.8, 1.2)
        if rng.uniform() < 0.3:
            line = np.stack([center, center + rng.uniform(-0.035, 0.035, 2).astype(np.float32)])
            width = max(1, round(radius * scale * 1.2))
            cv2.polylines(marks, [_pixels(line, scale)], False, 1.0, width, cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(marks, [_pixels(_blob(rng, center, radius), scale)], 1.0, cv2.LINE_AA, 4)
    return marks, np.zeros(shape, np.float32)


_PATTERNS = {
    "spots": _spots,
    "rosettes": _rosettes,
    "stripes": _stripes,
    "marks": _marks,
    "fine_marks": _fine_marks,
}

"""Scenery: what a fixed camera sees when nothing is there.

In: the seed, the camera's number and the frame's size. Out: ``Scene``: a still background by day, plants that sway,
things that stand still and look like animals, and how this camera renders colour. Every camera has its own palette,
horizon, trees and white balance, so that scenery tells cameras apart and never individuals. Photographs as
backgrounds would look better and would have to be licensed, shipped and kept apart from training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from wildray.simulate.coats import U8
from wildray.simulate.distractors import Distractor, distractors_of
from wildray.simulate.plants import Plant, plants_of
from wildray.simulate.randomness import F32, F64, cloud_noise, smooth_noise, stream

_GROUNDS = (  # near ground, far ground, leaves: savanna, forest floor, dry river bed, meadow, heath
    ((136, 124, 92), (126, 120, 90), (92, 104, 62)),
    ((110, 106, 82), (98, 100, 76), (64, 86, 50)),
    ((140, 132, 112), (128, 124, 104), (98, 106, 74)),
    ((116, 122, 80), (116, 122, 86), (78, 102, 54)),
    ((126, 114, 94), (114, 108, 92), (90, 90, 66)),
)


@dataclass(frozen=True)
class Scene:
    """What a camera sees.

    Attributes:
        camera_id: ``cam00``, ``cam01`` ...
        macro: Whether it looks closely at a log.
        background: (H, W, 3) uint8 RGB, daylight, without plants and distractors.
        plants: Plants that sway, the farthest first.
        distractors: Things that look like animals; a rock, a stump, a log.
        ground: Rows of the frame, as shares of its height, between which feet stand: farthest, nearest.
        white_balance: Factors on red, green and blue.
        blur_px: Softness of the lens: standard deviation in pixels.
    """

    camera_id: str
    macro: bool
    background: U8
    plants: tuple[Plant, ...]
    distractors: tuple[Distractor, ...]
    ground: tuple[float, float]
    white_balance: tuple[float, float, float]
    blur_px: float


def camera_name(camera: int) -> str:
    """The camera's name in paths and tables."""
    return f"cam{camera:02d}"


@lru_cache(maxsize=12)
def scene_of(seed: int, camera: int, width: int, height: int, macro: bool) -> Scene:
    """The scene of a camera at a size of frame in pixels; ``macro``: it looks closely at a log."""
    rng = stream(seed, "scene", camera)
    palette = _GROUNDS[int(rng.integers(len(_GROUNDS)))]
    near, far, leaf = (np.array(color, np.float32) * rng.uniform(0.95, 1.05, 3).astype(np.float32) for color in palette)
    horizon = 0.16 if macro else float(rng.uniform(0.26, 0.38))
    picture = _ground(rng, (height, width), near, far, horizon)
    _treeline(rng, picture, leaf, horizon)
    if macro:
        _log(rng, picture)
        ground = (0.60, 0.74)
    else:
        _trunks(rng, picture, horizon)
        ground = (horizon + 0.24, 0.93)
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8 * height / 360)
    gains = rng.uniform(0.96, 1.04, 3)
    return Scene(
        camera_id=camera_name(camera),
        macro=macro,
        background=np.clip(soft, 0, 255).astype(np.uint8),
        plants=plants_of(rng, (height, width), leaf, ground, macro=macro),
        distractors=distractors_of(rng, (height, width), camera_name(camera), ground),
        ground=ground,
        white_balance=(float(gains[0]), float(gains[1]), float(gains[2])),
        blur_px=float(rng.uniform(0.25, 0.6)) * height / 360,
    )


def _ground(rng: np.random.Generator, shape: tuple[int, int], near: F32, far: F32, horizon: float) -> F32:
    y = np.clip((np.linspace(0, 1, shape[0], dtype=np.float32) - horizon) / (1 - horizon), 0, 1)[:, None, None]
    picture = far + (near - far) * y
    coarse, fine = cloud_noise(rng, shape, (7, 6), 3), cloud_noise(rng, shape, (60, 70), 2)
    light = 1 + 0.07 * coarse + 0.08 * fine
    picture = picture * light[..., None]
    tint = smooth_noise(rng, shape, (5, 6))[..., None] * np.array([5, -1, -5], np.float32)
    return np.asarray(picture + tint, np.float32)


def _treeline(rng: np.random.Generator, picture: F32, leaf: F32, horizon: float) -> None:
    """Sky, and bushes far away, above the horizon."""
    height, width = picture.shape[:2]
    edge = int(horizon * height)
    sky = np.array([196, 206, 212], np.float32) * rng.uniform(0.85, 1.05)
    leaves = leaf * 0.75 * (1 + 0.28 * cloud_noise(rng, (edge, width), (9, 22), 3))[..., None]
    crown = smooth_noise(rng, (1, width), (1, 14))[0] * 0.2 + rng.uniform(0.05, 0.3)
    rows = np.linspace(0, 1, edge, dtype=np.float32)[:, None]
    ragged = crown[None, :] + 0.12 * smooth_noise(rng, (edge, width), (12, 40))
    share = np.clip((rows - ragged) * 12, 0, 1)[..., None]
    blend = np.clip((1 - rows) * edge / 5, 0, 1)[..., None]
    far = sky + (leaves - sky) * share
    picture[:edge] += (far - picture[:edge]) * blend


def _trunks(rng: np.random.Generator, picture: F32, horizon: float) -> None:
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        x, base = rng.uniform(0.03, 0.97) * width, (horizon + rng.uniform(0.02, 0.16)) * height
        thick, lean = rng.uniform(0.012, 0.035) * width, rng.uniform(-0.04, 0.04) * width
        outline = np.array(
            [[x - thick, base], [x - thick * 0.8 + lean, 0], [x + thick * 0.8 + lean, 0], [x + thick, base]]
        )
        bark = np.array([92, 80, 66], np.float32) * rng.uniform(0.7, 1.2)
        texture = 1 + 0.25 * smooth_noise(rng, (height, width), (20, 120))
        _paint(picture, outline, bark * texture[..., None])


def _log(rng: np.random.Generator, picture: F32) -> None:
    """A fallen log across the lower half of a macro camera's frame."""
    height, width = picture.shape[:2]
    edge = 0.57 * height + smooth_noise(rng, (1, width), (1, 9))[0] * 0.012 * height
    rows = np.arange(height, dtype=np.float32)[:, None]
    share = np.clip((rows - edge[None, :]) / 2, 0, 1)
    round_light = 1.12 - 0.55 * np.clip((rows - edge[None, :]) / (0.43 * height), 0, 1)
    bark = np.array([112, 96, 78], np.float32) * rng.uniform(0.8, 1.1)
    grain = 1 + 0.2 * cloud_noise(rng, (height, width), (60, 9), 3)
    picture *= 0.82
    picture += (bark * (grain * round_light)[..., None] - picture) * share[..., None]


def _paint(picture: F32, outline: F64, color: F32) -> None:
    """Fill an outline in pixels with colours, softly, in place."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32)[..., None] / 255
    picture += (color - picture) * share

"""Rendering: the frames of a capture, and the truth about every frame.

In: the configuration and a ``Capture``. Out: frames as uint8 RGB with the boxes of what is visible in them. Plants and
animals are laid down from far to near beside a map of who owns each pixel, from which boxes and visible shares are
read: so the truth is what was drawn, not what was meant to be drawn. Then come light or infra-red flash, the lens, the
sensor's noise and the date stamp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from wildray.config import SimulateConfig
from wildray.simulate.behaviour import Actor, placement, trunk_length
from wildray.simulate.coats import U8
from wildray.simulate.drawing import OPAQUE, clip, draw_animal, over
from wildray.simulate.plants import Plant, sway
from wildray.simulate.randomness import smooth_noise, stream
from wildray.simulate.scenery import Scene, scene_of
from wildray.simulate.script import Capture
from wildray.simulate.species import SPECIES

DISTRACTOR = "distractor"
MIN_VISIBLE_PX = 24
"""An animal with fewer visible pixels than this has no box."""
_INFRARED = np.array([[0.52, 0.34, 0.14]], np.float32)
"""How much of red, green and blue a sensor without its infra-red filter sees; the coats keep their contrast."""


@dataclass(frozen=True)
class Seen:
    """What is visible of one animal or distractor in one frame.

    Attributes:
        frame_index: From 0.
        mot_id: The animal's number in MOT files; 0 for a distractor.
        species: Its name, or ``distractor``.
        activity: ``walking``, ``grazing``, ``resting`` or ``distractor``.
        flank: ``left`` or ``right``; empty for a distractor.
        xyxy_px: Box of the visible pixels, half-open.
        visibility: Visible share of the animal, in (0, 1].
    """

    frame_index: int
    identity: str
    mot_id: int
    species: str
    activity: str
    flank: str
    xyxy_px: tuple[float, float, float, float]
    visibility: float


def frame_shape(config: SimulateConfig) -> tuple[int, int]:
    """(height, width) of the frames in pixels."""
    width, _, height = config.frame_size.partition("x")
    return int(height), int(width)


def render(config: SimulateConfig, capture: Capture) -> Iterator[tuple[U8, list[Seen]]]:
    """The frames of a capture in order: (H, W, 3) uint8 RGB, and what is seen in each."""
    height, width = frame_shape(config)
    scene = scene_of(config.seed, capture.camera, width, height, capture.macro)
    camera = _Camera(config, capture, scene, (height, width))
    rng = stream(config.seed, "frames", capture.name)
    things = _in_order(scene, capture, height)
    wind = float(stream(config.seed, "wind", capture.name).uniform(0.25, 1.0))
    # seconds of the day, so that plants do not begin every clip alike
    day_s = (capture.captured_at - capture.captured_at.replace(hour=0, minute=0, second=0)).total_seconds()
    for index in range(capture.num_frames):
        into_s = index / config.fps
        frame = scene.background.copy()
        owner = np.zeros((height, width), np.uint8)
        drawn: dict[int, tuple[Actor, str, str, int]] = {}
        for thing, number in things:
            if isinstance(thing, Plant):
                layer = sway(thing, day_s + into_s, wind)
            else:
                where = placement(thing, capture.offset_s + into_s, macro=capture.macro)
                if where is None:
                    continue
                length_px = trunk_length(thing, macro=capture.macro) * width
                y_px = _foot(scene, thing) * height
                if not capture.night:
                    _shadow(frame, where.x * width, y_px, length_px)
                layer = draw_animal(
                    thing.animal,
                    where.flank,
                    where.pose,
                    x_px=where.x * width,
                    y_px=y_px,
                    length_px=length_px,
                    width_factor=where.width_factor,
                    texture_px=_texture_px(width),
                )
                area = int(np.count_nonzero(layer.pixels[..., 3] > OPAQUE))
                drawn[number] = (thing, where.activity, where.flank, area)
            part = clip(layer, width, height)
            if part is None:
                continue
            rows, columns, pixels = part
            over(frame[rows, columns], pixels)
            np.copyto(owner[rows, columns], number, where=pixels[..., 3] > OPAQUE)
        owner[height - camera.bar_px :] = 0
        yield camera.expose(frame, rng, into_s), _truth(index, owner, drawn, scene)


def _texture_px(width: int) -> int:
    """Pixels of the trunk's length in a coat: as many as the nearest animal has in the frame."""
    return max(64, round(0.25 * width))


def _foot(scene: Scene, actor: Actor) -> float:
    """Row of the feet as a share of the frame's height."""
    return scene.ground[0] + (scene.ground[1] - scene.ground[0]) * actor.depth


def _in_order(scene: Scene, capture: Capture, height: int) -> list[tuple[Plant | Actor, int]]:
    """Plants (number 0) and actors (numbers from 1) from far to near."""
    things: list[tuple[float, Plant | Actor, int]] = [(plant.y_px, plant, 0) for plant in scene.plants]
    things += [(_foot(scene, actor) * height, actor, i + 1) for i, actor in enumerate(capture.actors)]
    return [(thing, number) for _, thing, number in sorted(things, key=lambda item: item[0])]


def _truth(
    index: int, owner: U8, drawn: dict[int, tuple[Actor, str, str, int]], scene: Scene
) -> list[Seen]:
    seen = []
    for number, (actor, activity, flank, area) in drawn.items():
        mask = (owner == number).view(np.uint8)
        count = cv2.countNonZero(mask)
        if count < MIN_VISIBLE_PX:
            continue
        x, y, w, h = cv2.boundingRect(mask)
        box = (float(x), float(y), float(x + w), float(y + h))
        animal = actor.animal
        species = SPECIES[animal.species].name
        seen.append(Seen(index, animal.identity, animal.mot_id, species, activity, flank, box, min(1.0, count / area)))
    for thing in scene.distractors:
        x1, y1, x2, y2 = (round(side) for side in thing.xyxy_px)
        share = 1.0 - cv2.countNonZero(owner[y1:y2, x1:x2]) / max(1, (x2 - x1) * (y2 - y1))
        seen.append(Seen(index, thing.name, 0, DISTRACTOR, DISTRACTOR, "", thing.xyxy_px, max(share, 0.01)))
    return seen


@lru_cache(maxsize=64)
def _shadow_picture(length_px: int) -> U8:
    """Soft dark ellipse; (h, w, 3) uint8 factors of which 255 leaves a pixel as it is."""
    size = (max(4, round(length_px * 1.5)), max(3, round(length_px * 0.26)))
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    radius = np.hypot((x + 0.5) / size[0] * 2 - 1, (y + 0.5) / size[1] * 2 - 1)
    factor = 255 - 105 * np.clip((1 - radius) / 0.7, 0, 1)
    return np.repeat(factor.astype(np.uint8)[..., None], 3, axis=2)


def _shadow(frame: U8, x_px: float, y_px: float, length_px: float) -> None:
    picture = _shadow_picture(round(length_px))
    height, width = picture.shape[:2]
    x, y = round(x_px - width / 2), round(y_px - height * 0.55)
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + width, frame.shape[1]), min(y + height, frame.shape[0])
    if x1 < x2 and y1 < y2:
        patch = frame[y1:y2, x1:x2]
        cv2.multiply(patch, np.ascontiguousarray(picture[y1 - y : y2 - y, x1 - x : x2 - x]), dst=patch, scale=1 / 255)


@lru_cache(maxsize=8)
def _noise_bank(seed: int, level: float, shape: tuple[int, int], channels: int) -> npt.NDArray[np.int16]:
    """Noise larger than a frame, of which every frame takes another part; one colour of noise in four is grey."""
    rng = stream(seed, "noise", level, channels)
    grey = rng.standard_normal((shape[0] + 96, shape[1] + 96, 1), np.float32)
    color = rng.standard_normal((shape[0] + 96, shape[1] + 96, channels), np.float32)
    noise = level * (0.8 * grey + (0.6 * color if channels == 3 else 0.0))
    return np.round(noise if channels == 3 else noise[..., :1]).astype(np.int16)


class _Camera:
    """Light, lens, sensor and stamp of one capture."""

    def __init__(self, config: SimulateConfig, capture: Capture, scene: Scene, shape: tuple[int, int]) -> None:
        rng = stream(config.seed, "light", capture.captured_at.isoformat(), capture.camera)
        self._seed, self._capture, self._scene, self._shape = config.seed, capture, scene, shape
        self.bar_px = max(8, round(shape[0] * 0.045))
        self._exposure = float(rng.uniform(0.78, 1.18))
        hour = capture.captured_at.hour + capture.captured_at.minute / 60
        golden = max(0.0, 1 - min(abs(hour - 6.5), abs(hour - 18.5)) / 2.0)
        self._tint = np.array([1 + 0.10 * golden, 1.0, 1 - 0.16 * golden]) * np.array(scene.white_balance)
        self._gamma = float(rng.uniform(0.9, 1.15))
        self._noise = float(rng.choice([4.0, 6.0]) if capture.night else rng.choice([1.5, 2.5]))
        self._flash = _flash_map(rng, shape) if capture.night else None
        self._celsius = int(rng.integers(8, 17) if capture.night else rng.integers(16, 34))
        self._drift = rng.uniform(0, 1, 2)
        self._stamped: tuple[int, U8] | None = None

    def expose(self, frame: U8, rng: np.random.Generator, into_s: float) -> U8:
        """The frame as the camera writes it; ``frame`` is used up."""
        cloud = 1 + 0.03 * np.sin(2 * np.pi * (into_s / 14 + self._drift[0])) + 0.004 * rng.standard_normal()
        if self._scene.blur_px > 0.3 * self._shape[0] / 360:
            frame = np.asarray(cv2.GaussianBlur(frame, (3, 3), self._scene.blur_px), np.uint8)
        top, left = rng.integers(0, 96, 2)
        bank = _noise_bank(self._seed, self._noise, self._shape, 1 if self._capture.night else 3)
        noise = bank[top : top + self._shape[0], left : left + self._shape[1]]
        curve = (np.arange(256) / 255) ** self._gamma * 255 * self._exposure
        if self._flash is None:
            table = np.clip(curve[:, None] * cloud * self._tint[None, :], 0, 255).astype(np.uint8)[None]
            lit = cv2.LUT(frame, table)
            picture = cv2.add(lit, noise, dtype=cv2.CV_8U)
        else:
            grey = cv2.LUT(cv2.transform(frame, _INFRARED), np.clip(curve * 1.15, 0, 255).astype(np.uint8))
            lit = cv2.multiply(grey, self._flash, scale=cloud / 200)
            picture = cv2.cvtColor(cv2.add(lit, noise[..., 0], dtype=cv2.CV_8U), cv2.COLOR_GRAY2RGB)
        self._stamp(picture, into_s)
        return np.asarray(picture, np.uint8)

    def _stamp(self, picture: U8, into_s: float) -> None:
        second = int(into_s)
        if self._stamped is None or self._stamped[0] != second:
            bar = np.zeros((self.bar_px, self._shape[1], 3), np.uint8)
            clock = self._capture.captured_at + timedelta(seconds=second)
            text = f"{self._scene.camera_id.upper()}  {self._celsius}C   {clock:%Y-%m-%d  %H:%M:%S}"
            size = self.bar_px / 34
            cv2.putText(
                bar, text, (self.bar_px // 2, round(self.bar_px * 0.74)), cv2.FONT_HERSHEY_SIMPLEX, size, (235,) * 3, 1, cv2.LINE_AA
            )
            self._stamped = (second, bar)
        picture[-self.bar_px :] = self._stamped[1]


def _flash_map(rng: np.random.Generator, shape: tuple[int, int]) -> U8:
    """Light of the infra-red flash: bright in the middle and near, dark at the edges and far; (H, W) uint8."""
    y = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :] - np.float32(rng.uniform(-0.25, 0.25))
    near = 0.30 + 0.70 * np.clip((y - 0.12) / 0.5, 0, 1)
    light = near * (0.42 + 0.58 * np.exp(-1.1 * x**2)) * (1 + 0.03 * smooth_noise(rng, shape, (4, 6)))
    return np.clip(light * 235, 0, 255).astype(np.uint8)

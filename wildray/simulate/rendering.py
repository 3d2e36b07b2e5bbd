"""Rendering: the frames of a capture, and the truth about every frame.

In: the configuration and a ``Capture``. Out: frames as uint8 RGB with the boxes of what is visible in them. Plants and
animals are laid down from far to near beside a map of who owns each pixel, from which boxes and visible shares are
read: so the truth is what was drawn, not what was meant to be drawn. Then come light or infra-red flash, the lens, the
sensor's noise and the date stamp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from wildray.config import SimulateConfig
from wildray.simulate.behaviour import Actor, Placement, placement, trunk_length
from wildray.simulate.coats import U8
from wildray.simulate.distractors import Distractor
from wildray.simulate.drawing import OPAQUE, Layer, clip, draw_animal, over
from wildray.simulate.exposure import Exposure, frame_shape
from wildray.simulate.plants import Plant, sway
from wildray.simulate.randomness import stream
from wildray.simulate.scenery import Scene, scene_of
from wildray.simulate.script import Capture
from wildray.simulate.species import SPECIES

DISTRACTOR = "distractor"
MIN_VISIBLE_PX = 24
"""An animal with fewer visible pixels than this has no box."""
Thing = Plant | Distractor | Actor


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


def render(config: SimulateConfig, capture: Capture) -> Iterator[tuple[U8, list[Seen]]]:
    """The frames of a capture in order: (H, W, 3) uint8 RGB, and what is seen in each."""
    height, width = frame_shape(config)
    scene = scene_of(config.seed, capture.camera, width, height, capture.macro)
    camera = Exposure(config, capture, scene)
    stage = _Stage(config, capture, scene)
    for index in range(capture.num_frames):
        frame, seen = stage.draw(index, camera.bar_px)
        yield camera.expose(frame, index / config.fps), seen


class _Stage:
    """Everything that stands in front of a camera during a capture, from far to near."""

    def __init__(self, config: SimulateConfig, capture: Capture, scene: Scene) -> None:
        self._capture, self._scene, self._fps = capture, scene, config.fps
        self._shape = frame_shape(config)
        # seconds of the day, so that plants do not begin every clip alike
        at = capture.captured_at
        self._day_s = at.hour * 3600 + at.minute * 60 + at.second
        self._wind = float(stream(config.seed, "wind", capture.name).uniform(0.25, 1.0))
        things: list[tuple[float, Thing]] = [(plant.y_px, plant) for plant in scene.plants]
        things += [(thing.y_px, thing) for thing in scene.distractors]
        things += [(self._foot_px(actor), actor) for actor in capture.actors]
        self._things = [thing for _, thing in sorted(things, key=lambda item: item[0])]

    def _foot_px(self, actor: Actor) -> float:
        """Row of the feet."""
        far, near = self._scene.ground
        return (far + (near - far) * actor.depth) * self._shape[0]

    def draw(self, index: int, bar_px: int) -> tuple[U8, list[Seen]]:
        """A frame before light and lens, and what is seen in it above the bar of the stamp."""
        into_s = index / self._fps
        frame = self._scene.background.copy()
        owner = np.zeros(self._shape, np.uint8)
        shown: list[tuple[int, Thing, Placement | None, int]] = []
        for number, thing in enumerate(self._things, 1):
            where = None
            if isinstance(thing, Plant):
                layer, number = sway(thing, self._day_s + into_s, self._wind), 0
            elif isinstance(thing, Distractor):
                layer = thing.layer
            else:
                where = placement(thing, self._capture.offset_s + into_s, macro=self._capture.macro)
                if where is None:
                    continue
                layer = self._actor_layer(frame, thing, where)
            if number:
                shown.append((number, thing, where, int(np.count_nonzero(layer.pixels[..., 3] > OPAQUE))))
            part = clip(layer, self._shape[1], self._shape[0])
            if part is not None:
                rows, columns, pixels = part
                over(frame[rows, columns], pixels)
                np.copyto(owner[rows, columns], number, where=pixels[..., 3] > OPAQUE)
        owner[self._shape[0] - bar_px :] = 0
        seen = [_seen(index, owner == number, thing, where, area) for number, thing, where, area in shown]
        return frame, [one for one in seen if one is not None]

    def _actor_layer(self, frame: U8, actor: Actor, where: Placement) -> Layer:
        """The actor's picture; by day its shadow falls on the frame."""
        width = self._shape[1]
        length_px = trunk_length(actor, macro=self._capture.macro) * width
        if not self._capture.night:
            _shadow(frame, where.x * width, self._foot_px(actor), length_px)
        return draw_animal(
            actor.animal,
            where.flank,
            where.pose,
            x_px=where.x * width,
            y_px=self._foot_px(actor),
            length_px=length_px,
            width_factor=where.width_factor,
            texture_px=max(64, round(0.25 * width)),  # the nearest animal's trunk is as long in the frame
        )


def _seen(index: int, mask: npt.NDArray[np.bool_], thing: Thing, where: Placement | None, area: int) -> Seen | None:
    """The box of the pixels that a thing owns; None where there are too few."""
    count = cv2.countNonZero(mask.view(np.uint8))
    if count < MIN_VISIBLE_PX:
        return None
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    box, share = (float(x), float(y), float(x + w), float(y + h)), min(1.0, count / area)
    if isinstance(thing, Actor) and where is not None:
        animal = thing.animal
        name = SPECIES[animal.species].name
        return Seen(index, animal.identity, animal.mot_id, name, where.activity, where.flank, box, share)
    assert isinstance(thing, Distractor), "plants are not truth"
    return Seen(index, thing.name, 0, DISTRACTOR, DISTRACTOR, "", box, share)


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

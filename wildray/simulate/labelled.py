"""The labelled set: held-out animals, photographed in several encounters and at several cameras.

In: the configuration. Out: ``Shot`` values, each one picture of one flank of one held-out animal, and their pictures,
made by the renderer and encoder of the videos. Both flanks are seen in every encounter, at a camera that differs from
the encounter before, so that the right answer in another encounter stands before other scenery.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from wildray.config import SimulateConfig
from wildray.simulate.behaviour import GRAZING, RESTING, WALKING, Actor, Stretch
from wildray.simulate.coats import U8
from wildray.simulate.encoding import video_look
from wildray.simulate.randomness import stream
from wildray.simulate.rendering import Seen, render
from wildray.simulate.scenery import camera_name
from wildray.simulate.script import Capture, VisitCalendar, cameras_of, inhabitants, macro_cameras

COLUMNS = ("image_id", "identity", "path", "bbox", "date", "orientation", "species", "camera_id", "encounter")
FLANKS = ("left", "right")
_CLEAR = 0.9
"""Visible share that a labelled picture should have."""
_TRIES = 6


@dataclass(frozen=True)
class Shot:
    """A labelled picture to be made: a capture of one frame with one actor, and its encounter's name."""

    capture: Capture
    encounter: str


def shots(config: SimulateConfig) -> list[Shot]:
    """Every labelled picture in order of animal, encounter and flank."""
    rng = stream(config.seed, "labelled")
    animals = [animal for animal in inhabitants(config) if animal.held_out]
    calendar = VisitCalendar(rng, len(animals) * config.labelled_encounters)
    macro = macro_cameras(config)
    result = []
    for animal in animals:
        cameras = rng.permutation(cameras_of(config, animal.species))
        for number in range(config.labelled_encounters):
            camera = int(cameras[number % len(cameras)])
            night = bool(rng.uniform() < config.night_share)
            start = calendar.take(night=night)
            encounter = f"{animal.identity}-e{number}"
            for index, flank in enumerate(flank for flank in FLANKS for _ in range(config.labelled_images)):
                actor = Actor(animal, float(rng.uniform(0.1, 1)), float(rng.uniform()), _stretch(rng, flank))
                capture = Capture(
                    name=f"{encounter}-{index}.jpg",
                    camera=camera,
                    macro=camera in macro,
                    captured_at=start + timedelta(seconds=4 * index),
                    offset_s=float(rng.uniform(1, 60)),
                    num_frames=1,
                    night=night,
                    actors=(actor,),
                )
                result.append(Shot(capture, encounter))
    return result


def _stretch(rng: np.random.Generator, flank: str) -> tuple[Stretch, ...]:
    activity = str(rng.choice([WALKING, WALKING, GRAZING, RESTING]))
    x = float(rng.uniform(0.28, 0.72))
    # the shot falls somewhere within the first minute, so the walk leads past x in that time
    step = {"left": -0.05, "right": 0.05}[flank] if activity == WALKING else 0.0
    return (Stretch(activity, -10.0, 70.0, x - step, x + step, flank),)


def photograph(config: SimulateConfig, shot: Shot) -> tuple[U8, Seen]:
    """Make a labelled picture, at another place in the frame where plants stand before the animal.

    Returns:
        (H, W, 3) uint8 RGB, and what is seen of the animal.
    """
    best: tuple[U8, Seen] | None = None
    rng = stream(config.seed, "shot", shot.capture.name)
    actor = shot.capture.actors[0]
    for _ in range(_TRIES):
        capture = replace(shot.capture, actors=(actor,))
        frame, seen = next(render(config, capture))
        animal = next((one for one in seen if one.mot_id), None)
        if animal is not None and (best is None or animal.visibility > best[1].visibility):
            best = (frame, animal)
        if best is not None and best[1].visibility >= _CLEAR:
            break
        actor = replace(actor, depth=float(rng.uniform(0.1, 1)), stretches=_stretch(rng, actor.stretches[0].flank))
    assert best is not None, "an animal in the middle of the frame is visible"
    return video_look(best[0]), best[1]


def write_metadata(folder: Path, rows: list[tuple[Shot, Seen]]) -> None:
    """Write ``metadata.csv`` in the wildlife-datasets form; ``path`` is relative to the folder."""
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for shot, seen in rows:
            x1, y1, x2, y2 = (round(side) for side in seen.xyxy_px)
            name = shot.capture.name
            box = json.dumps([x1, y1, x2 - x1, y2 - y1])
            date = shot.capture.captured_at.isoformat()
            camera = camera_name(shot.capture.camera)
            row = (name.removesuffix(".jpg"), seen.identity, f"images/{name}", box, date)
            writer.writerow((*row, seen.flank, seen.species, camera, shot.encounter))

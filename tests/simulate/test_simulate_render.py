"""Frames against the truth about them: boxes, flanks, patterns, rest and standstill."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest

from wildray.config import SimulateConfig
from wildray.simulate.behaviour import GRAZING, RESTING, WALKING, Actor, Stretch, placement
from wildray.simulate.bodies import puppet
from wildray.simulate.coats import REGION, flank_texture
from wildray.simulate.drawing import draw_animal
from wildray.simulate.encoding import video_look
from wildray.simulate.labelled import shots
from wildray.simulate.poses import Pose, part_transforms
from wildray.simulate.rendering import Seen, render
from wildray.simulate.scenery import scene_of
from wildray.simulate.script import Capture, captures, inhabitants
from wildray.simulate.species import INSECT, SPECIES, population

SETTINGS = SimulateConfig()
PEOPLE = population(0, num_individuals=20, num_held_out=0, num_species=5)


def capture(*actors: Actor, night: bool = False, num_frames: int = 1, camera: int = 0, macro: bool = False) -> Capture:
    at = datetime(2024, 3, 1, 12, tzinfo=UTC)
    return Capture("cam/x.mp4", camera, macro, at, 0.0, num_frames, night, actors)


def actor(number: int, activity: str = GRAZING, flank: str = "right", *, x: float = 0.5, depth: float = 0.9) -> Actor:
    step = {"right": 0.2, "left": -0.2}[flank] if activity == WALKING else 0.0
    return Actor(PEOPLE[number], depth, 0.3, (Stretch(activity, -5.0, 20.0, x - step, x + step, flank),))


@pytest.mark.parametrize("species", range(5))
@pytest.mark.parametrize("night", [False, True])
def test_the_box_is_where_the_frame_differs_from_one_without_the_animal(species: int, night: bool) -> None:
    macro = species == INSECT
    one = actor(species, depth=0.5)
    with_it = capture(one, night=night, macro=macro)
    frame, seen = next(render(SETTINGS, with_it))
    bare, nothing = next(render(SETTINGS, replace(with_it, actors=())))
    difference = np.abs(frame.astype(int) - bare.astype(int)).max(2)
    x1, y1, x2, y2 = (round(side) for side in next(s for s in seen if s.mot_id).xyxy_px)
    assert not [s for s in nothing if s.mot_id]
    inside = np.zeros(difference.shape, bool)
    inside[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
    # a shadow, by day, falls beside the feet; nothing else changes outside
    beyond = ~inside
    if not night:
        beyond[y2 - 30 : y2 + 30] = False
    assert difference[beyond].max() <= 2
    changed = difference > 14
    assert changed[y1:y2, x1:x2].mean() > 0.2
    # it reaches each side of the box
    for strip in (changed[y1 : y1 + 4, x1:x2], changed[y1:y2, x1 : x1 + 4], changed[y1:y2, x2 - 4 : x2]):
        assert strip.any()


def test_the_hidden_part_of_an_animal_is_not_in_its_box() -> None:
    far, near = actor(0, depth=0.3, x=0.45), actor(5, depth=0.5, x=0.55)
    alone = next(render(SETTINGS, capture(far)))[1]
    both = next(render(SETTINGS, capture(far, near)))[1]

    def of(seen: list[Seen], number: int) -> Seen:
        return next(s for s in seen if s.mot_id == PEOPLE[number].mot_id)

    assert of(both, 0).visibility < 0.8 * of(alone, 0).visibility
    assert of(both, 5).visibility > 0.8


def test_an_animal_outside_the_frame_has_no_box_and_one_at_its_edge_a_cut_one() -> None:
    assert not [s for s in next(render(SETTINGS, capture(actor(0, x=-0.6))))[1] if s.mot_id]
    cut = next(s for s in next(render(SETTINGS, capture(actor(0, x=0.0))))[1] if s.mot_id)
    assert cut.xyxy_px[0] == 0
    assert cut.visibility < 0.85


def test_flanks_of_one_animal_differ_and_share_their_colours() -> None:
    for animal in PEOPLE[:5]:
        left, right = (flank_texture(animal, flank, 100).astype(float) for flank in ("left", "right"))
        assert np.abs(left - right).mean() > 4
        assert np.abs(left.mean((0, 1)) - right.mean((0, 1))).max() < 30


def test_a_coat_is_the_same_at_every_resolution() -> None:
    for animal in PEOPLE[:4]:
        coarse = flank_texture(animal, "left", 80).astype(float)
        fine = flank_texture(animal, "left", 160).astype(float)
        shrunk = fine[: coarse.shape[0] * 2, : coarse.shape[1] * 2]
        shrunk = shrunk.reshape(coarse.shape[0], 2, coarse.shape[1], 2, 3).mean((1, 3))
        other = flank_texture(PEOPLE[animal.mot_id + 4], "left", 80).astype(float)
        assert np.abs(coarse - shrunk).mean() < 0.5 * np.abs(coarse - other).mean()


def trunk_crop(number: int, camera: int, *, night: bool) -> npt.NDArray[np.float64]:
    """Standardised grey picture of a standing animal, as the camera's encoder leaves it."""
    frame, seen = next(render(SETTINGS, capture(actor(number, depth=0.55), night=night, camera=camera)))
    x1, y1, x2, y2 = (round(side) for side in next(s for s in seen if s.mot_id).xyxy_px)
    grey = video_look(frame).astype(float).mean(2)[y1:y2, x1:x2]
    h, w = grey.shape
    grey = grey[int(0.25 * h) : int(0.6 * h), int(0.2 * w) : int(0.7 * w)]
    rows = np.linspace(0, grey.shape[0] - 1, 24).round().astype(int)
    columns = np.linspace(0, grey.shape[1] - 1, 40).round().astype(int)
    picked = grey[rows][:, columns]
    return (picked - picked.mean()) / picked.std()


def test_a_pattern_stays_with_its_animal_across_cameras_and_into_the_night() -> None:
    same_species = [0, 5, 10, 15]
    day = [trunk_crop(number, 0, night=False) for number in same_species]
    dark = [trunk_crop(number, 1, night=True) for number in same_species]
    likeness = np.array([[(a * b).mean() for b in dark] for a in day])
    assert (likeness.argmax(1) == np.arange(4)).all()


def test_a_walking_animal_moves_towards_its_nose_and_its_feet_do_not_slide() -> None:
    for flank, sign in (("right", 1), ("left", -1)):
        one = actor(0, WALKING, flank)
        places = [placement(one, time_s, macro=False) for time_s in np.arange(0, 3, 0.25)]
        assert all(place is not None and place.flank == flank for place in places)
        assert (sign * np.diff([place.x for place in places if place]) > 0).all()
    form, legs = PEOPLE[0].form, puppet(PEOPLE[0], "right", 64).parts
    foot = next(part for part in legs if part.name == "hind_near_lower")
    sole = np.append(foot.outline[foot.outline[:, 1].argmax()], 1.0)
    strides = np.linspace(0.08, 0.30, 8)  # hind_near stands in the first half of the cycle
    ground = [
        (part_transforms(form, legs, Pose(stride=stride, effort=1.0))[legs.index(foot)] @ sole)[0] + stride
        for stride in strides
    ]
    assert np.ptp(ground) < 0.35 * np.ptp(strides)


def test_a_resting_animal_stirs_and_a_distractor_does_not() -> None:
    config = SETTINGS.model_copy(update={"fps": 2.0})
    resting = capture(actor(0, RESTING, x=0.5, depth=0.2), num_frames=8)
    truth = [seen for _, seen in render(config, resting)]
    stones = [[s.xyxy_px for s in seen if s.activity == "distractor"] for seen in truth]
    assert stones[0]
    layers = [
        draw_animal(PEOPLE[0], "right", place.pose, x_px=320, y_px=300, length_px=100, width_factor=1, texture_px=120)
        for place in (placement(resting.actors[0], time_s, macro=False) for time_s in (0.0, 0.5, 1.0, 1.5))
        if place is not None
    ]
    assert len({layer.pixels.tobytes() for layer in layers}) == 4
    scene = scene_of(0, 0, 640, 360, False)
    assert scene.distractors
    again = scene_of.__wrapped__(0, 0, 640, 360, False)
    for one, other in zip(scene.distractors, again.distractors, strict=True):
        assert (one.layer.x, one.layer.y) == (other.layer.x, other.layer.y)
        assert np.array_equal(one.layer.pixels, other.layer.pixels)


def test_insect_marks_vanish_below_96_pixels_and_those_of_others_do_not() -> None:
    """What is left of a coat's contrast at 32 pixels of trunk (a crop of about 48) of that at 192."""
    for animal in PEOPLE[:10]:
        coat = flank_texture(animal, "left", 192).astype(float).mean(2)
        left, top = (0.1 - REGION[0]) * 192, (-animal.form.leg - 0.9 * animal.form.depth - REGION[1]) * 192
        side = coat[int(top) : int(top + 0.7 * animal.form.depth * 192), int(left) : int(left + 150)]
        h, w = (extent // 6 * 6 for extent in side.shape)
        small = side[:h, :w].reshape(h // 6, 6, w // 6, 6).mean((1, 3))
        kept = small.std() / side.std()
        assert kept < 0.6 if animal.species == INSECT else kept > 0.65


def test_the_script_keeps_every_animal_at_one_place_at_a_time() -> None:
    config = SETTINGS.model_copy(update={"num_videos": 60})
    plan = captures(config)
    assert sum(one.is_video for one in plan) == 60
    assert len({one.name for one in plan}) == len(plan)
    presence: dict[str, set[tuple[int, int]]] = {}
    for one in plan:
        half_hour = int(one.captured_at.timestamp() // 1800)
        for who in one.actors:
            presence.setdefault(who.animal.identity, set()).add((half_hour, one.camera))
    for places in presence.values():
        assert len({half_hour for half_hour, _ in places}) == len(places)
    held_out = {animal.identity for animal in inhabitants(config) if animal.held_out}
    assert not held_out & set(presence)
    assert held_out == {shot.capture.actors[0].animal.identity for shot in shots(config)}


def test_species_keep_to_their_cameras_and_herds_to_their_species() -> None:
    for one in captures(SETTINGS):
        kinds = {who.animal.species for who in one.actors}
        assert len(kinds) <= 1
        if kinds:
            assert (kinds == {INSECT}) == one.macro
    assert any(len(one.actors) > 1 for one in captures(SETTINGS))
    assert {one.night for one in captures(SETTINGS)} == {True, False}
    assert len(SPECIES) == INSECT + 1

import numpy as np
import pytest

from wildray.config import Config, MineConfig
from wildray.mining.static import Scene, Verdict, find_static

ROCK = np.array([60.0, 60.0, 80.0, 80.0])
HOUR_S = 3600.0
NAN = float("nan")


class Reserve:
    """Sequences of one or more cameras, with boxes that jitter as a detector's do."""

    def __init__(self, seed: int = 0, jitter: float = 0.05) -> None:
        self.rng, self.jitter = np.random.default_rng(seed), jitter
        self.boxes: list[np.ndarray] = []
        self.motion: list[float] = []
        self.frame: list[int] = []
        self.what: list[str] = []
        self.frame_sequence: list[int] = []
        self.stretch: list[int] = []
        self.time_s: list[float] = []
        self.dense: set[int] = set()

    def sequence(self, time_s: float, num_frames: int, *, camera: int = 0) -> range:
        """Begin a sequence; returns its frames."""
        self.stretch.append(camera)
        self.time_s.append(time_s)
        first = len(self.frame_sequence)
        self.frame_sequence += [len(self.stretch) - 1] * num_frames
        return range(first, first + num_frames)

    def see(self, what: str, frame: int, box: np.ndarray, motion: float) -> None:
        size = np.tile(box[2:] - box[:2], 2)
        self.boxes.append(box + self.rng.normal(0, self.jitter, 4) * size)
        self.motion.append(motion)
        self.frame.append(frame)
        self.what.append(what)

    def share(self, what: str, config: MineConfig | None = None) -> float:
        """Share of the boxes of one thing that are marked static."""
        chosen = np.array(self.what) == what
        return float(self.verdict(config).static[chosen].mean())

    def verdict(self, config: MineConfig | None = None) -> Verdict:
        order = np.argsort(self.frame, kind="stable")
        scene = Scene(
            xyxy=np.array(self.boxes, dtype=np.float32).reshape(-1, 4)[order].T,
            motion=np.array(self.motion, dtype=np.float32)[order],
            frame=np.array(self.frame, dtype=np.int64)[order],
            frame_sequence=np.array(self.frame_sequence, dtype=np.int64),
            stretch=np.array(self.stretch, dtype=np.int64),
            time_s=np.array(self.time_s),
            base=~np.isin(np.arange(len(self.frame_sequence)), list(self.dense)),
        )
        verdict = find_static(scene, config or Config().mine)
        back = np.argsort(order)
        return Verdict(verdict.static[back], verdict.presence[back], verdict.motion[back])


def walker(step: int) -> np.ndarray:
    return np.array([8.0 * step, 20.0, 8.0 * step + 25, 40.0])


def test_in_one_clip_a_rock_is_static_and_drinking_and_passing_animals_are_not() -> None:
    reserve = Reserve()
    for step, frame in enumerate(reserve.sequence(0.0, 30)):
        if step % 5:  # the detector misses the rock now and then
            reserve.see("rock", frame, ROCK, 0.02 if step != 9 else 0.5)
        reserve.see("drinker", frame, np.array([10.0, 60, 30, 90]), 0.25)
        reserve.see("walker", frame, walker(step), 0.6)
    assert reserve.share("rock") == 1
    assert reserve.share("drinker") == 0
    assert reserve.share("walker") == 0
    verdict = reserve.verdict()
    rock = np.array(reserve.what) == "rock"
    np.testing.assert_allclose(verdict.presence[rock], 0.8)
    np.testing.assert_allclose(verdict.motion[rock], 0.02)


def test_what_stands_in_too_few_frames_is_not_static() -> None:
    reserve = Reserve()
    for step, frame in enumerate(reserve.sequence(0.0, 30)):
        if step < 12:
            reserve.see("sleeper", frame, ROCK, 0.01)
    assert reserve.share("sleeper") == 0
    assert reserve.share("sleeper", Config.load(None, {"mine.static_presence": 0.4}).mine) == 1


def reserve_with_a_visitor(num_dense: int) -> Reserve:
    """A clip in which an animal sleeps for a third; meanwhile more frames are looked at."""
    reserve = Reserve(jitter=0.0)
    for step, frame in enumerate(reserve.sequence(0.0, 30 + num_dense)):
        if step >= 30:
            reserve.dense.add(frame)
        if step % 2:
            reserve.see("rock", frame, ROCK, 0.02)
        if step < 10 or step >= 30:
            reserve.see("sleeper", frame, np.array([10.0, 60, 40, 80]), 0.02)
    return reserve


def test_frames_that_were_looked_at_because_of_animals_are_no_evidence() -> None:
    base, dense = reserve_with_a_visitor(0), reserve_with_a_visitor(50)
    assert base.share("rock") == dense.share("rock") == 1, "its boxes in the further frames too"
    assert base.share("sleeper") == dense.share("sleeper") == 0
    counted = ~np.isin(dense.frame, list(dense.dense))
    np.testing.assert_array_equal(dense.verdict().static[counted], base.verdict().static)
    np.testing.assert_array_equal(dense.verdict().presence[counted], base.verdict().presence)
    dense.dense.clear()
    assert dense.share("sleeper") == 1, "which it would be if they counted"


def test_one_clip_without_motion_proves_nothing() -> None:
    reserve = Reserve()
    for frame in reserve.sequence(0.0, 30):
        reserve.see("sleeper or rock", frame, ROCK, NAN)
    verdict = reserve.verdict()
    assert not verdict.static.any()
    assert np.isnan(verdict.motion).all()
    np.testing.assert_allclose(verdict.presence, 1.0)


@pytest.mark.parametrize("motion", [NAN, 0.02, 0.4])
@pytest.mark.parametrize("clock", [True, False])
def test_what_recurs_over_days_is_static_and_a_visitor_is_not(motion: float, clock: bool) -> None:
    reserve = Reserve()
    for number in range(8):
        for step, frame in enumerate(reserve.sequence(number * 7 * HOUR_S if clock else NAN, 12)):
            if step % 2 or number % 4:
                reserve.see("stump", frame, ROCK, motion)
            if number == 3:  # sleeps all through one clip, and moves no more than the stump
                reserve.see("sleeper", frame, np.array([10.0, 60, 40, 80]), motion)
            if number % 2:
                reserve.see("walker", frame, walker(step), 0.6)
    assert reserve.share("stump") == 1
    assert reserve.share("sleeper") == 0
    assert reserve.share("walker") == 0


def test_one_empty_clip_of_another_day_tells_a_sleeper_from_a_rock() -> None:
    reserve = Reserve()
    for number in range(2):
        for frame in reserve.sequence(number * 30 * HOUR_S, 10):
            reserve.see("rock", frame, ROCK, 0.02)
            if number == 0:
                reserve.see("sleeper", frame, np.array([10.0, 60, 40, 80]), 0.02)
    assert reserve.share("rock") == 1
    assert reserve.share("sleeper") == 0


def test_a_burst_of_stills_without_clocks_may_be_of_one_moment() -> None:
    reserve = Reserve()
    for _ in range(10):
        (frame,) = reserve.sequence(NAN, 1)
        reserve.see("animal or rock", frame, ROCK, NAN)
    assert reserve.share("animal or rock") == 0


@pytest.mark.parametrize("begin_s", [0.0, 3000.0])
def test_an_animal_that_sleeps_through_an_hour_of_clips_does_not_recur(begin_s: float) -> None:
    reserve = Reserve()
    for number in range(3):
        for frame in reserve.sequence(0.0 if number == 0 else 8 * HOUR_S * number, 10):
            reserve.see("rock", frame, ROCK, NAN)
    for number in range(6):  # wherever the hours since the first clip begin, this is one visit
        for frame in reserve.sequence(20 * HOUR_S + begin_s + number * 400.0, 10):
            reserve.see("rock", frame, ROCK, NAN)
            reserve.see("sleeper", frame, np.array([10.0, 60, 40, 80]), NAN)
    assert reserve.share("sleeper") == 0
    assert reserve.share("rock") == 1


def test_how_long_a_place_must_be_taken_is_a_setting() -> None:
    reserve = Reserve()
    for number in range(4):
        for frame in reserve.sequence(number * HOUR_S, 10):
            reserve.see("sleeper or rock", frame, ROCK, NAN)
    assert reserve.share("sleeper or rock") == 0
    assert reserve.share("sleeper or rock", Config.load(None, {"mine.static_span": "3h"}).mine) == 1


def test_stills_hours_apart_show_what_recurs() -> None:
    reserve = Reserve()
    for number in range(30):
        (frame,) = reserve.sequence(number * HOUR_S, 1)
        if number % 4:
            reserve.see("stump", frame, ROCK, NAN)
        if 10 <= number < 14:
            reserve.see("sleeper", frame, np.array([10.0, 10, 40, 30]), NAN)
    assert reserve.share("stump") == 1
    assert reserve.share("sleeper") == 0


def test_a_trail_that_all_animals_walk_is_no_static_place() -> None:
    reserve = Reserve(jitter=0.02)
    for number in range(20):
        for step, frame in enumerate(reserve.sequence(number * 9 * HOUR_S, 14)):
            reserve.see("walker", frame, walker(step), NAN)
    assert reserve.share("walker") == 0


def test_a_line_along_which_slow_animals_stand_anywhere_is_no_static_place() -> None:
    reserve = Reserve(jitter=0.02)
    for number in range(12):
        starts, steps = reserve.rng.uniform(0, 300, 3), reserve.rng.uniform(-6, 6, 3)
        for step, frame in enumerate(reserve.sequence(number * 9 * HOUR_S, 12)):
            for x, dx in zip(starts, steps, strict=True):
                reserve.see("grazer", frame, np.array([x + dx * step, 10, x + dx * step + 60, 70]), NAN)
            reserve.see("stump", frame, np.array([100.0, 100, 140, 140]), NAN)
    assert reserve.share("stump") == 1
    assert reserve.share("grazer") < 0.05


def test_cameras_are_judged_apart() -> None:
    reserve = Reserve()
    for camera in range(2):
        for number in range(6):
            for frame in reserve.sequence(number * 9 * HOUR_S, 8, camera=camera):
                if camera == 0:
                    reserve.see("stump", frame, ROCK, NAN)
                elif number == 2:
                    reserve.see("visitor", frame, ROCK, NAN)
    assert reserve.share("stump") == 1
    assert reserve.share("visitor") == 0


def test_two_static_things_side_by_side_are_two_places() -> None:
    reserve = Reserve(jitter=0.02)
    other = ROCK + np.array([8.0, 0, 8, 0])  # IoU 0.43 with the first
    for frame in reserve.sequence(0.0, 20):
        reserve.see("one", frame, ROCK, 0.01)
        if frame < 14:
            reserve.see("other", frame, other, 0.01)
    verdict = reserve.verdict()
    assert verdict.static.all()
    presence = np.where(np.array(reserve.what) == "one", 1.0, 0.7)
    np.testing.assert_allclose(verdict.presence, presence, atol=1e-6)


def test_no_boxes_no_verdicts() -> None:
    reserve = Reserve()
    reserve.sequence(0.0, 10)
    assert len(reserve.verdict().static) == 0


def test_many_frames_are_judged_by_a_sample_as_by_all() -> None:
    reserve = Reserve(seed=3)
    for step, frame in enumerate(reserve.sequence(0.0, 2000)):
        if reserve.rng.uniform() < 0.7:
            reserve.see("rock", frame, ROCK, 0.03)
        reserve.see("roamer", frame, walker(step % 60), 0.5)
    assert reserve.share("rock") > 0.97
    assert reserve.share("roamer") == 0


def test_the_rest_of_a_rock_that_something_hides_is_the_rock() -> None:
    reserve = Reserve()
    for visit in range(6):
        for frame in reserve.sequence(visit * 5 * HOUR_S, 10):
            hidden = visit == 3  # an animal stands in front of its lower half through one clip
            reserve.see("hidden" if hidden else "rock", frame, ROCK - [0, 0, 0, 9] if hidden else ROCK, 0.02)
    assert reserve.share("rock") == 1
    assert reserve.share("hidden") == 1

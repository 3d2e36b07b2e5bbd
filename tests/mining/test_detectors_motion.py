"""The clip model and the motion detector, on clips drawn here."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import av
import numpy as np
import pytest

from wildray.config import Config
from wildray.mining.boxes import iou_matrix
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.clip import MIN_DIFFERENCE, ClipModel, thumbnail
from wildray.mining.detectors.motion import MotionDetector

WIDTH, HEIGHT = 240, 160


def scene(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.integers(60, 180, (HEIGHT // 8, WIDTH // 8))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float64)


def clip(
    num_frames: int, *, seed: int = 0, noise: float = 2.0, walker: bool = True, light: float = 0.0
) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of a textured scene in which a dark square of 24 px walks to the right; (T, 4) its corners."""
    rng = np.random.default_rng(seed)
    ground = scene(rng)
    frames, corners = [], []
    for i in range(num_frames):
        grey = ground.copy()
        x1 = round(10 + i * (WIDTH - 60) / max(num_frames - 1, 1))
        if walker:
            grey[60:84, x1 : x1 + 24] = 15
        grey *= 1 + light * np.sin(i)
        grey += rng.normal(0, noise, grey.shape)
        frames.append(np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
        corners.append([x1, 60, x1 + 24, 84])
    return frames, np.array(corners, np.float64)


def model(frames: list[np.ndarray]) -> ClipModel:
    return ClipModel([thumbnail(frame) for frame in frames], width_px=WIDTH, height_px=HEIGHT)


def test_motion_of_a_walker_a_rock_and_a_resting_animal() -> None:
    frames, corners = clip(20)
    rng = np.random.default_rng(5)
    for frame in frames:  # an animal that rests and moves its head about
        frame[110:134, 150:174] = 20
        y = 100 + int(rng.integers(0, 14))
        frame[y : y + 10, 170:184] = 20
    rock, resting = [20, 110, 60, 140], [148, 98, 186, 136]
    values = np.array([model(frames).motion(i, [corners[i], rock, resting]) for i in range(20)])
    assert values[:, 0].min() > 0.7
    assert values[:, 1].max() < 0.01
    assert 0.04 < np.median(values[:, 2]) < 0.4


def test_change_equals_the_naive_share() -> None:
    frames, _ = clip(6, noise=0)
    small = [thumbnail(frame) for frame in frames]
    change = model(frames).change(2)
    others = [other for i, other in enumerate(small) if i != 2]
    naive = np.zeros(small[2].shape)
    for other in others:
        for y in range(0, HEIGHT, 5):
            for x in range(0, WIDTH, 5):
                naive[y, x] += abs(int(small[2][y, x]) - int(other[y, x])) > MIN_DIFFERENCE
    np.testing.assert_allclose(change[::5, ::5], naive[::5, ::5] / 5, atol=1e-6)
    assert change.max() == 1


def test_motion_is_the_mean_of_change_over_the_box() -> None:
    frames, corners = clip(8)
    clips = model(frames)
    boxes = np.array([corners[3], [0, 0, WIDTH, HEIGHT], [50, 50, 120, 90]])
    expected = [clips.change(3)[int(y1) : int(y2), int(x1) : int(x2)].mean() for x1, y1, x2, y2 in boxes.astype(int)]
    np.testing.assert_allclose(clips.motion(3, boxes), expected, atol=1e-6)
    assert clips.motion(3, [[-50, -50, -20, -20], [WIDTH, 0, WIDTH + 9, 9], [3, 3, 3.1, 3.1]]).shape == (3,)
    assert clips.motion(3, np.zeros((0, 4))).shape == (0,)


def test_boxes_count_in_pixels_of_the_frame() -> None:
    frames, corners = clip(10)
    large = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for frame in frames]
    clips = ClipModel([thumbnail(frame) for frame in large], width_px=4 * WIDTH, height_px=4 * HEIGHT)
    assert clips.shape == (213, 320)
    rock = np.array([[20, 110, 60, 140]]) * 4.0
    assert clips.motion(4, corners[4] * 4)[0] > 0.7
    assert clips.motion(4, rock)[0] < 0.01


@pytest.mark.parametrize("noise", [0, 3, 10])
def test_noise_and_changing_light_are_no_motion(noise: float) -> None:
    frames, _ = clip(24, noise=noise, walker=False, light=0.25)
    clips = model(frames)
    assert max(clips.motion(i, [[0, 0, WIDTH, HEIGHT]])[0] for i in range(24)) < 0.05
    assert sum(len(boxes) for boxes in MotionDetector(min_score=0.1).detect(frames)) == 0


def test_the_detector_finds_the_walker_in_every_frame_and_nothing_else() -> None:
    frames, corners = clip(20, light=0.1)
    found = MotionDetector(min_score=0.1).detect(frames)
    assert [len(boxes) for boxes in found] == [1] * 20
    iou = [iou_matrix(boxes.xyxy_px, [box])[0, 0] for boxes, box in zip(found, corners, strict=True)]
    assert min(iou) > 0.75
    assert all(boxes.category.tolist() == ["animal"] and 0.4 < boxes.score[0] <= 1 for boxes in found)


def test_an_animal_in_the_first_frames_only_is_found_there() -> None:
    frames, _ = clip(12, walker=False)
    for frame in frames[:3]:
        frame[40:70, 100:140] = 10
    counts = [len(boxes) for boxes in MotionDetector(min_score=0.1).detect(frames)]
    assert counts == [1, 1, 1] + [0] * 9


def test_what_flickers_once_scores_half_and_dust_nothing() -> None:
    frames, _ = clip(12, walker=False, noise=1)
    steady, _ = clip(12, walker=False, noise=1)
    frames[6][40:70, 100:140] = 10
    for frame in steady[5:8]:
        frame[40:70, 100:140] = 10
    once = MotionDetector(min_score=0.1).detect(frames)[6].score[0]
    thrice = MotionDetector(min_score=0.1).detect(steady)[6].score[0]
    assert once < 0.55 < thrice
    frames[6][:] = frames[5]
    frames[6][20:23, 20:23] = 255
    assert len(MotionDetector(min_score=0.01).detect(frames)[6]) == 0


def test_a_frame_that_differs_all_over_has_no_boxes() -> None:
    frames, _ = clip(10)
    frames[4] = np.random.default_rng(9).integers(0, 255, frames[4].shape).astype(np.uint8)
    assert len(MotionDetector(min_score=0.1).detect(frames)[4]) == 0


@pytest.mark.parametrize("num_frames", [0, 1, 2])
def test_short_windows_say_that_nothing_is_known(num_frames: int, caplog: pytest.LogCaptureFixture) -> None:
    frames, _ = clip(num_frames)
    with caplog.at_level(logging.INFO):
        assert [len(boxes) for boxes in MotionDetector(min_score=0.1).detect(frames)] == [0] * num_frames
    assert ("no background" in caplog.text) == (num_frames > 0)
    assert np.isnan(model(frames).motion(0, [[0, 0, 5, 5], [1, 1, 2, 2]])).tolist() == [True, True]


def test_three_frames_are_enough() -> None:
    frames, corners = clip(3)
    found = MotionDetector(min_score=0.1).detect(frames)
    assert [len(boxes) for boxes in found] == [1, 1, 1]
    assert iou_matrix(found[1].xyxy_px, corners[1:2])[0, 0] > 0.7


def test_long_windows_are_compared_with_a_bounded_number_of_frames() -> None:
    frames, corners = clip(130)
    clips = model(frames)
    assert clips.motion(77, corners[77])[0] > 0.7
    shares = np.unique((clips.change(77) * 50).round(3) % 1)
    assert len(clips._references) == 50
    assert np.allclose(np.minimum(shares, 1 - shares), 0, atol=1e-3)


def test_the_same_frames_give_the_same_boxes() -> None:
    frames, _ = clip(10)
    detector = make_detector(Config.load(overrides={"detect.detector": "motion"}).detect)
    assert detector.needs_clip
    assert detector.detect(frames) == detector.detect([frame.copy() for frame in frames])


def test_dark_clips_without_light_to_scale_by() -> None:
    frames, corners = clip(10, noise=1)
    night = [(frame // 14).astype(np.uint8) for frame in frames]
    for frame, (x1, y1, x2, y2) in zip(night, corners.astype(int), strict=True):
        frame[y1:y2, x1:x2] = 120
    assert [len(boxes) for boxes in MotionDetector(min_score=0.1).detect(night)] == [1] * 10


@pytest.mark.real_data
def test_a_rock_is_told_from_chimpanzees_that_hardly_move() -> None:
    folder = os.environ.get("WILDRAY_TEST_DATA")
    if not folder:
        pytest.skip("WILDRAY_TEST_DATA is not set")
    with av.open(str(Path(folder) / "clips" / "chimps_waterhole.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][::15]
    clips = ClipModel([thumbnail(frame) for frame in frames], width_px=320, height_px=180)
    rock, pair, one = [225, 125, 306, 178], [101, 49, 148, 88], [150, 51, 180, 86]
    values = np.array([clips.motion(i, [rock, pair, one]) for i in range(len(frames))])
    assert np.quantile(values[:, 0], 0.9) < 0.05
    assert values[:, 1:].min() > 0.2

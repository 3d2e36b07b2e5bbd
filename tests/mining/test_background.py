"""What a clip shows without what was found in it."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from wildray.mining.background import CROP_PX, MIN_FRAMES, NUM_FRAMES, Background, filled, median_image
from wildray.packs import crop_image, decode_jpeg


def ground(seed, height, width):
    coarse = np.random.default_rng(seed).integers(40, 140, (10, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def walk(scene, *, num_frames=12, side=60, step=None):
    """Frames with a bright square that walks to the right, and its boxes; without a step it stands."""
    boxes = [(20 + (step or 0) * n, 30, 20 + (step or 0) * n + side, 30 + side) for n in range(num_frames)]
    frames = [scene.copy() for _ in boxes]
    for frame, (x1, y1, x2, y2) in zip(frames, boxes, strict=True):
        frame[y1:y2, x1:x2] = 230
    return frames, np.array(boxes, np.float32)[:, None]


def background_of(frames, boxes):
    background = Background()
    for frame, found in zip(frames, boxes, strict=True):
        background.add(frame, found)
    return background


@pytest.mark.parametrize("size", [(200, 320), (720, 1280)])
def test_a_background_crop_shows_the_scene_at_exactly_the_crops_place(size):
    scene = ground(1, *size)
    frames, boxes = walk(scene, step=size[1] // 20, side=size[0] // 4)
    background = background_of(frames, boxes)
    for index in (0, 5, 11):
        box = boxes[index, 0]
        crop = crop_image(frames[index], box, padding=0.1, longest_px=640)
        jpeg = background.crop(crop, box, size_px=(size[1], size[0]), padding=0.1)
        found = decode_jpeg(jpeg)
        assert max(found.shape[:2]) <= CROP_PX
        expected = cv2.resize(
            crop_image(scene, box, padding=0.1, longest_px=640), found.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        error = np.abs(found.astype(int) - expected).mean()
        assert error < 3, error
        shifted = np.abs(found[:, 2:].astype(int) - expected[:, :-2]).mean()
        assert shifted > 1.2 * error, "two pixels aside would be seen"


def test_an_animal_that_stands_all_clip_long_leaves_no_trace():
    scene = np.full((120, 200, 3), 100, np.uint8)
    scene[:, 100:] = 60
    frames, boxes = walk(scene)
    crop = crop_image(frames[0], boxes[0, 0], padding=0.1, longest_px=640)
    found = decode_jpeg(background_of(frames, boxes).crop(crop, boxes[0, 0], size_px=(200, 120), padding=0.1))
    assert np.abs(found.astype(int) - 100).max() < 25, "the ground around it"


def test_crops_that_show_only_background_have_none_and_nor_have_short_clips():
    scene = ground(2, 120, 200)
    frames, boxes = walk(scene, step=8)
    empty = np.zeros((0, 4), np.float32)
    box = np.array([140, 60, 190, 110], np.float32)
    crop = crop_image(scene, box, padding=0.1, longest_px=640)
    background = background_of([scene] * 5, [empty] * 5)
    assert background.crop(crop, box, size_px=(200, 120), padding=0.1) is None
    lighter = np.clip(crop.astype(int) + 30, 0, 255).astype(np.uint8)
    assert background.crop(lighter, box, size_px=(200, 120), padding=0.1) is None, "another light is no animal"
    walker = crop_image(frames[0], boxes[0, 0], padding=0.1, longest_px=640)
    assert background.crop(walker, boxes[0, 0], size_px=(200, 120), padding=0.1) is not None
    short = background_of(frames[: MIN_FRAMES - 1], boxes[: MIN_FRAMES - 1])
    assert short.crop(walker, boxes[0, 0], size_px=(200, 120), padding=0.1) is None


def test_the_median_is_over_the_frames_in_which_a_place_is_open():
    rng = np.random.default_rng(0)
    for num in (1, 2, 7, 10):
        images = [rng.integers(0, 256, (6, 7, 3), dtype=np.uint8) for _ in range(num)]
        covered = [rng.random((6, 7)) < 0.4 for _ in range(num)]
        picture, known = median_image(images, covered)
        for y, x in np.ndindex(6, 7):
            open_ones = [image[y, x] for image, hidden in zip(images, covered, strict=True) if not hidden[y, x]]
            assert known[y, x] == (len(open_ones) >= MIN_FRAMES)
            if open_ones:
                expected = np.sort(np.stack(open_ones), axis=0)[len(open_ones) // 2]
                assert picture[y, x].tolist() == expected.tolist()


def test_what_is_not_known_is_filled_from_around_it_and_the_rest_kept():
    image = np.full((80, 120, 3), 50, np.uint8)
    image[:, 60:] = 150
    known = np.ones((80, 120), bool)
    known[20:60, 10:40] = known[20:60, 80:110] = False
    image[~known] = 255
    out = filled(image, known)
    assert np.array_equal(out[known], image[known])
    assert np.abs(out[20:60, 10:40].astype(int) - 50).max() < 12
    assert np.abs(out[20:60, 80:110].astype(int) - 150).max() < 12
    nothing = filled(image, np.zeros_like(known))
    assert nothing.shape == image.shape


def test_long_windows_keep_few_frames_spread_over_all_of_them():
    background = Background()
    for number in range(1000):
        background.add(np.full((20, 30, 3), number % 251, np.uint8), np.zeros((0, 4), np.float32))
    kept = [int(frame[0, 0, 0]) for frame in background._frames]
    assert NUM_FRAMES <= len(kept) < 2 * NUM_FRAMES
    steps = {(b - a) % 251 for a, b in pairwise(kept)}
    assert steps == {32}


def test_a_stream_that_changes_its_size_does_not_break_the_background():
    scene = ground(3, 120, 200)
    frames, boxes = walk(scene, step=25, num_frames=6, side=30)
    background = background_of(frames, boxes)
    half = cv2.resize(frames[0], (100, 60), interpolation=cv2.INTER_AREA)
    background.add(half, boxes[0] / 2)
    crop = crop_image(half, boxes[0, 0] / 2, padding=0.1, longest_px=640)
    found = decode_jpeg(background.crop(crop, boxes[0, 0] / 2, size_px=(100, 60), padding=0.1))
    whole = crop_image(scene, boxes[0, 0], padding=0.1, longest_px=640)
    expected = cv2.resize(whole, found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 4

import logging

import numpy as np
import pytest
import torch
from learning_store import PAIRS_DIGEST, add_backgrounds, colour_of, make_store

from wildray.config import AugmentConfig
from wildray.errors import StageError
from wildray.learning.crops import CropCache, SceneryDraw, read_crops
from wildray.learning.pairs import box_in_crop, read_pairs
from wildray.schema import hash64

SWAP = AugmentConfig(background="swap")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Pairs whose crops have backgrounds of one colour each; those of every tenth pair have none."""
    return add_backgrounds(make_store(str(tmp_path_factory.mktemp("backgrounds") / "store")))


def cache_of(store, augment=SWAP, cache_bytes=2**22, side_px=16):
    pairs = read_pairs(store, PAIRS_DIGEST)
    cache = CropCache(store, pairs, side_px=side_px, cache_bytes=cache_bytes, threads=1, augment=augment)
    return cache, pairs


def read(store, rows, *, augment=SWAP, seed=0, epoch=0, num_sources=2, cache_bytes=2**22, num_sceneries=1):
    cache, pairs = cache_of(store, augment, cache_bytes)
    settings = {"seed": seed, "epoch": epoch, "num_sources": num_sources, "num_sceneries": num_sceneries}
    return read_crops(cache, pairs, np.array(rows), **settings)


def test_backgrounds_stand_beside_their_crops(store):
    crops = read(store, [3, 10, 14])
    assert crops.has_background.tolist() == [[True, False, True]] * 2
    for source in range(2):
        for place, pair in ((0, 3), (2, 14)):
            expected = colour_of(1000 + 2 * pair + source, pair % 8 % 2)
            mean = crops.background[source, place].float().mean((1, 2))
            np.testing.assert_allclose(mean.numpy(), expected, atol=3)
    assert int(crops.background[0, 1].max()) == 0


def test_scenery_is_of_the_other_camera_and_a_function_of_the_sample_alone(store):
    rows = list(range(96))
    whole = read(store, rows)
    red = whole.scenery[0].float().mean((3, 4))[:, :, 0]
    cameras = torch.tensor([row % 8 % 2 for row in rows])
    assert torch.equal((red > 120).long(), (1 - cameras).expand(2, -1))
    part = read(store, rows[50:60][::-1])
    assert torch.equal(part.scenery, whole.scenery[:, :, 50:60].flip(2))
    assert not torch.equal(read(store, rows, epoch=1).scenery, whole.scenery)
    assert not torch.equal(read(store, rows, seed=1).scenery, whole.scenery)
    green = whole.scenery[0].float().mean((3, 4))[:, :, 1]
    assert len(torch.unique(green.round())) > 40, "many different backgrounds are drawn"
    assert not torch.equal(whole.scenery[0, 0], whole.scenery[0, 1]), "the two sides of a pair have different scenery"
    again = read(store, [7 + 96])  # the row a second time in one epoch
    assert not torch.equal(again.scenery[:, :, 0], whole.scenery[:, :, 7])


def test_further_sceneries_leave_the_first_as_it_is(store):
    one, three = read(store, [3, 8]), read(store, [3, 8], num_sceneries=3)
    assert three.scenery.shape == (3, *one.scenery.shape[1:])
    assert torch.equal(three.scenery[:1], one.scenery)
    assert not torch.equal(three.scenery[1], one.scenery[0])
    assert not torch.equal(three.scenery[1], three.scenery[2])


def test_one_source_gets_the_scenery_of_its_side(store):
    both, one = read(store, list(range(40))), read(store, list(range(40)), num_sources=1)
    side = one.facts.detection_id[0] % 2
    for place in range(40):
        assert torch.equal(one.scenery[0, 0, place], both.scenery[0, side[place], place])
        assert torch.equal(one.background[0, place], both.background[side[place], place])


def test_every_background_of_the_other_cameras_is_as_likely(store):
    _, pairs = cache_of(store)
    known = np.zeros(len(pairs.pack), bool)
    known[::3] = True
    draw = SceneryDraw(pairs, known)
    camera = np.zeros(len(known), np.int64)
    camera[pairs.crop.reshape(-1)] = np.repeat(pairs.camera_id, 2)
    for name in ("cam0", "cam1", "elsewhere"):
        wanted = hash64((name,))
        expected = np.flatnonzero(known & (camera != wanted))
        drawn = draw.crops(np.full(3 * len(expected), wanted), np.arange(3 * len(expected)))
        assert np.array_equal(np.sort(drawn), np.repeat(expected, 3))


def test_cached_and_decoded_backgrounds_are_equal(store):
    kept, decoded, half = (read(store, list(range(60)), cache_bytes=size) for size in (2**22, 0, 50 * 6 * 256))
    for name in ("images", "background", "scenery"):
        assert torch.equal(getattr(kept, name), getattr(decoded, name))
        assert torch.equal(getattr(kept, name), getattr(half, name))


def test_the_cache_keeps_within_its_memory(store):
    for augment, kinds in ((AugmentConfig(), 1), (SWAP, 2)):
        cache, _ = cache_of(store, augment, cache_bytes=20_000)
        assert cache._images._pictures.nbytes + cache._backgrounds._pictures.nbytes <= 20_000
        assert len(cache._images._pictures) == 20_000 // (kinds * 3 * 16 * 16)


@pytest.mark.parametrize(
    ("settings", "background", "scenery"),
    [
        ({}, False, False),
        ({"background": "blur"}, True, False),
        ({"background": "gray", "background_mask": "box"}, False, False),
        ({"background": "swap", "background_mask": "box"}, False, True),
        ({"background": "swap", "background_share": 0.0}, False, False),
    ],
)
def test_only_what_is_wanted_is_read(store, settings, background, scenery):
    crops = read(store, [1, 2], augment=AugmentConfig(**settings))
    assert (crops.background is not None, crops.has_background is not None) == (background, background)
    assert (crops.scenery is not None) == scenery
    assert crops.box.shape == (2, 2, 4)


def test_crops_without_backgrounds_are_warned_of_and_cannot_be_swapped(pair_store, caplog):
    with caplog.at_level(logging.WARNING):
        crops = read(pair_store, [0, 1], augment=AugmentConfig(background="blur"))
    assert not crops.has_background.any()
    assert "of 0 % of the crops" in caplog.text
    assert "run detect and mine again" in caplog.text
    with pytest.raises(StageError, match="detect and mine again"):
        read(pair_store, [0, 1])


def test_boxes_in_crops_follow_padding_and_the_frames_edges():
    xyxy_px = np.array([[[20, 10, 40, 50], [0, 0, 10, 10]], [[90.5, 70, 100, 80], [50, 20, 70, 40]]], np.float32)
    size_px = np.tile(np.array([100, 80]), (2, 2, 1))
    got = box_in_crop(xyxy_px, padding=0.1, size_px=size_px)
    for i, j in np.ndindex(2, 2):
        x1, y1, x2, y2 = xyxy_px[i, j].astype(float)
        left, right = max(0, np.floor(x1 - 0.1 * (x2 - x1))), min(100, np.ceil(x2 + 0.1 * (x2 - x1)))
        top, bottom = max(0, np.floor(y1 - 0.1 * (y2 - y1))), min(80, np.ceil(y2 + 0.1 * (y2 - y1)))
        width, height = right - left, bottom - top
        expected = [(x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height]
        np.testing.assert_allclose(got[i, j], expected, atol=1e-6)


def test_the_box_of_a_crop_alone_is_its_middle(store):
    from dataclasses import replace

    cache, pairs = cache_of(store)
    bare = replace(pairs, box=None)
    crops = read_crops(cache, bare, np.array([1]), seed=0, epoch=0, num_sources=2)
    expected = torch.tensor([1 / 12, 1 / 12, 11 / 12, 11 / 12])
    torch.testing.assert_close(crops.box, expected.expand(2, 1, 4))

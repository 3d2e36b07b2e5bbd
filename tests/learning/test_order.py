import numpy as np
import pytest

from wildray.learning.order import epoch_order, worker_slice

SETTINGS = {"seed": 1, "batch_size": 8, "window_packs": 2}


def some_pairs(num: int = 203, *, packs: int = 7, cameras: int = 3):
    rng = np.random.default_rng(0)
    return rng.integers(0, packs, num), rng.integers(0, cameras, num)


def test_every_pair_comes_at_most_once_and_only_the_last_batch_is_left_out():
    pack, _ = some_pairs()
    order = epoch_order(pack, None, epoch=0, **SETTINGS)
    assert order.shape == (25, 8)
    assert len(np.unique(order)) == 200


def test_the_order_is_a_function_of_seed_and_epoch():
    pack, camera = some_pairs()
    for group in (None, camera):
        first = epoch_order(pack, group, epoch=3, **SETTINGS)
        assert np.array_equal(first, epoch_order(pack, group, epoch=3, **SETTINGS))
        assert not np.array_equal(first, epoch_order(pack, group, epoch=4, **SETTINGS))
        assert not np.array_equal(first, epoch_order(pack, group, epoch=3, **SETTINGS | {"seed": 2}))


def test_a_window_of_packs_is_read_before_the_next_is_begun():
    pack = np.repeat(np.arange(6), 16)
    order = epoch_order(pack, None, epoch=0, **SETTINGS)
    windows = [set(pack[order[begin : begin + 4].reshape(-1)].tolist()) for begin in range(0, 12, 4)]
    assert [len(window) for window in windows] == [2, 2, 2]
    assert set.union(*windows) == set(range(6))
    assert len(set(pack[order[0]].tolist())) == 2  # and the two are shuffled together


def test_balanced_batches_are_of_one_camera_as_far_as_pairs_suffice():
    pack, camera = some_pairs(300, packs=1)
    order = epoch_order(pack, camera, epoch=0, **SETTINGS)
    pure = sum(len(np.unique(camera[batch])) == 1 for batch in order)
    assert pure == sum(np.bincount(camera) // 8)
    assert len(order) == 300 // 8
    assert len(np.unique(order)) == order.size


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_workers_parts_are_the_global_batch(num_workers):
    batch = epoch_order(*some_pairs()[:1], None, epoch=0, **SETTINGS)[5]
    parts = [worker_slice(batch, rank=rank, num_workers=num_workers) for rank in range(num_workers)]
    assert np.array_equal(np.concatenate(parts), batch)


def herds(num: int = 203, *, seed: int = 0):
    """Frames with 1 to 5 animals: the frame, pack and camera of each pair; a frame may lie in two packs."""
    rng = np.random.default_rng(seed)
    frame = np.repeat(np.arange(num), rng.integers(1, 6, num))[:num]
    pack = np.minimum(frame // 15 + (rng.random(num) < 0.05), 6)
    places = rng.permutation(num)
    return (1000 * frame + 7)[places], pack[places], (frame % 3)[places]


def cut_frames(order, unit):
    """Frames of more than one pair of which not all pairs are in one batch, of those that are in the epoch wholly."""
    batch_of = {row: number for number, batch in enumerate(order.tolist()) for row in batch}
    cut = whole = 0
    for value in np.unique(unit):
        rows = np.flatnonzero(unit == value).tolist()
        if len(rows) > 1 and all(row in batch_of for row in rows):
            whole += 1
            cut += len({batch_of[row] for row in rows}) > 1
    return cut, whole


@pytest.mark.parametrize("by_camera", [False, True])
def test_pairs_that_share_a_frame_stay_in_one_batch(by_camera):
    unit, pack, camera = herds()
    settings = {"seed": 1, "batch_size": 20, "window_packs": 8}
    group = camera if by_camera else None
    order = epoch_order(pack, group, unit=unit, epoch=0, **settings)
    assert order.shape == (10, 20)
    assert len(np.unique(order)) == 200
    cut, whole = cut_frames(order, unit)
    assert whole > 40
    assert cut <= (3 if by_camera else 0)  # what is left over of each camera is mixed
    assert cut_frames(epoch_order(pack, group, epoch=0, **settings), unit)[0] > 30
    assert np.array_equal(order, epoch_order(pack, group, unit=unit, epoch=0, **settings))
    assert not np.array_equal(order, epoch_order(pack, group, unit=unit, epoch=1, **settings))
    if by_camera:
        assert sum(len(np.unique(camera[batch])) == 1 for batch in order) == sum(np.bincount(camera) // 20)


def test_a_frame_with_more_pairs_than_a_quarter_of_a_batch_is_cut_into_quarters():
    unit = np.repeat(np.arange(4), 40)
    order = epoch_order(np.zeros(160), None, unit=unit, epoch=0, seed=0, batch_size=16, window_packs=1)
    assert len(np.unique(order)) == 160
    for batch in order:
        assert set(np.bincount(unit[batch], minlength=4) % 4) == {0}


def test_frames_of_one_pair_change_nothing():
    pack, camera = some_pairs()
    for group in (None, camera):
        plain = epoch_order(pack, group, epoch=0, **SETTINGS)
        assert np.array_equal(plain, epoch_order(pack, group, unit=np.arange(203) * 3, epoch=0, **SETTINGS))


def test_frames_that_no_batch_has_room_for_do_not_wait_for_ever():
    unit = np.repeat(np.arange(100), 3)
    order = epoch_order(np.zeros(300), None, unit=unit, epoch=0, seed=0, batch_size=16, window_packs=1)
    assert order.shape == (18, 16)
    assert len(np.unique(order)) == 288
    cut, whole = cut_frames(order, unit)
    assert cut < whole / 4  # 5 frames to a batch, and one that fills it up

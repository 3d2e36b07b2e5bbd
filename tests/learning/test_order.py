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

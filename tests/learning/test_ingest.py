import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import torch
from learning_store import DETECTIONS_DIGEST, PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import StageError, StoreError
from wildray.learning.crops import CropCache, read_crops
from wildray.learning.ingest import epoch_batches, load_ahead, spans
from wildray.learning.methods import METHODS
from wildray.learning.pairs import read_pairs
from wildray.packs import PackReader
from wildray.schema import MEDIA, hash64


def test_pairs_are_joined_with_their_detections(pair_store):
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    assert len(pairs) == 96
    assert pairs.detections == DETECTIONS_DIGEST
    row = 5
    assert pairs.detection_id[row].tolist() == [1010, 1011]
    assert pairs.xyxy_px[row].tolist() == [[5, 2, 35, 40], [5, 2, 35, 41]]
    assert pairs.camera_id[row] == hash64(("cam1",))
    assert pairs.frame_key[row].tolist() == [hash64((f"{5:032x}", 50)), hash64((f"{5:032x}", 51))]
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()
    assert pairs.captured_at_s[row].tolist() == [start + 5, start + 6]
    assert np.isnan(pairs.captured_at_s[0]).all()


def test_a_clock_that_was_reset_tells_no_time(tmp_path):
    store = make_store(str(tmp_path / "s"))
    flags = {3: "epoch", 5: "future"}
    rows = [
        {"media_id": f"{animal:032x}", "clock_flag": flags.get(animal, "ok"), "uri": "", "status": "done"}
        for animal in range(8)
    ]
    empty = {field.name: None for field in MEDIA}
    table = pa.Table.from_pylist(
        [empty | row for row in rows], schema=pa.schema([field.with_nullable(True) for field in MEDIA])
    )
    store.collection("detections", DETECTIONS_DIGEST).write("media", "all", table)
    pairs = read_pairs(store, PAIRS_DIGEST)
    unknown = np.isnan(pairs.captured_at_s).all(1)
    assert set((np.flatnonzero(unknown) % 8).tolist()) == {0, 3}  # the first has no clock at all


def test_crops_are_those_the_pairs_name(pair_store):
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    cache = CropCache(pair_store, pairs, side_px=48, cache_bytes=0, threads=2)
    rows = np.array([7, 3])
    crops = read_crops(cache, pairs, rows, seed=0, epoch=0, num_sources=2)
    reader = PackReader(pair_store, ("crops", DETECTIONS_DIGEST))
    for source in range(2):
        for i, row in enumerate(rows):  # pair i lies in pack i % 3, its crops beside each other
            expected = reader.image(f"chunk{row % 3}-000", 2 * (row // 3) + source)
            assert np.array_equal(crops.images[source, i].permute(1, 2, 0).numpy(), expected)
    assert crops.facts.detection_id.tolist() == [[1014, 1006], [1015, 1007]]
    assert crops.tracklet_id.tolist() == [7, 3]


def test_cached_and_decoded_crops_are_equal(pair_store):
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    wanted = np.arange(40)
    small = [CropCache(pair_store, pairs, side_px=20, cache_bytes=size, threads=1) for size in (0, 20 * 1200, 2**20)]
    first = [cache.images(wanted) for cache in small]
    again = [cache.images(wanted) for cache in small]
    assert all(torch.equal(first[0], other) for other in first + again)


def test_one_source_takes_anchors_and_positives_in_turn(pair_store):
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    cache = CropCache(pair_store, pairs, side_px=16, cache_bytes=0, threads=1)
    ids = [
        read_crops(cache, pairs, np.arange(96), seed=0, epoch=epoch, num_sources=1).facts.detection_id[0]
        for epoch in (0, 0, 1)
    ]
    assert torch.equal(ids[0], ids[1])
    assert not torch.equal(ids[0], ids[2])
    assert torch.equal(torch.div(ids[0] - 1000, 2, rounding_mode="floor"), torch.arange(96))
    assert 30 < int((ids[0] % 2).sum()) < 66


def test_loading_goes_on_from_any_step_and_shares_out_batches(pair_store):
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    cache = CropCache(pair_store, pairs, side_px=16, cache_bytes=2**20, threads=2)
    order = np.random.default_rng(0).permutation(96).reshape(12, 8)

    def load(first_step, rank, num_workers):
        settings = {"seed": 0, "epoch": 0, "first_step": first_step, "num_sources": 2}
        return list(load_ahead(cache, pairs, order, rank=rank, num_workers=num_workers, **settings))

    whole = load(0, 0, 1)
    assert [crops.index.tolist() for crops in whole] == order.tolist()
    late = load(9, 0, 1)
    assert len(late) == 3
    assert torch.equal(late[0].images, whole[9].images)
    halves = [load(0, rank, 2)[4] for rank in range(2)]
    assert torch.equal(torch.cat([half.images for half in halves], 1), whole[4].images)


def test_a_loader_that_is_left_early_ends_its_thread(pair_store):
    import threading

    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    cache = CropCache(pair_store, pairs, side_px=16, cache_bytes=2**20, threads=1)
    settings = {"seed": 0, "epoch": 0, "first_step": 0, "num_sources": 2, "rank": 0, "num_workers": 1}
    batches = load_ahead(cache, pairs, np.arange(96).reshape(48, 2), **settings)
    next(batches)
    batches.close()
    assert not any(thread.name == "load_ahead" for thread in threading.enumerate())


def test_a_missing_pack_is_an_error_of_the_training_thread(pair_store):
    from wildray.packs import forget_packs

    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    forget_packs()
    pair_store.path("crops", DETECTIONS_DIGEST, "chunk1-000.arrow").unlink()
    cache = CropCache(pair_store, pairs, side_px=16, cache_bytes=0, threads=1)
    settings = {"seed": 0, "epoch": 0, "first_step": 0, "num_sources": 2, "rank": 0, "num_workers": 1}
    with pytest.raises(StoreError, match="chunk1-000"):
        list(load_ahead(cache, pairs, np.arange(96).reshape(12, 8), **settings))


def test_pairs_without_crops_are_refused_and_so_are_none(tmp_path):
    bare = make_store(str(tmp_path / "bare"), num_pairs=6, with_crops=False)
    with pytest.raises(StageError, match="6 of 6 pairs have no crops"):
        read_pairs(bare, PAIRS_DIGEST)
    with pytest.raises(StageError, match="nothing to train on"):
        read_pairs(make_store(str(tmp_path / "none"), num_pairs=0), PAIRS_DIGEST)


@pytest.mark.parametrize(("method", "balance"), [("simclr", "none"), ("simclr", "camera"), ("byol", "none")])
def test_workers_that_become_more_or_fewer_in_mid_epoch_go_on_in_the_same_order(pair_store, method, balance):
    config = tiny_config(train__method=method, train__balance=balance)
    pairs = read_pairs(pair_store, PAIRS_DIGEST)
    order = epoch_batches(pairs, config, METHODS[method], epoch=2)
    assert len(np.unique(order)) == 96
    cache = CropCache(pair_store, pairs, side_px=8, cache_bytes=2**20, threads=1)
    settings = {"seed": 0, "epoch": 2, "num_sources": 2}
    for num_workers in (1, 2, 4, 8):
        parts = [
            [
                crops.index.tolist()
                for crops in load_ahead(
                    cache, pairs, order, first_step=3, rank=rank, num_workers=num_workers, **settings
                )
            ]
            for rank in range(num_workers)
        ]
        joined = [[number for part in step for number in part] for step in zip(*parts, strict=True)]
        assert joined == order[3:].tolist()


@pytest.mark.parametrize(("first", "last", "per_pass"), [(0, 12, 4), (3, 3, 4), (5, 6, 4), (2, 17, 5), (0, 3, 7)])
def test_spans_are_the_steps_in_order(first, last, per_pass):
    steps = [
        number * per_pass + step
        for number, begin, stop in spans(first, last, per_pass=per_pass)
        for step in range(begin, stop)
    ]
    assert steps == list(range(first, last))

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from learning_store import DETECTIONS_DIGEST, PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import StoreError
from wildray.learning.batch import Crops, Facts
from wildray.learning.crops import open_cache
from wildray.learning.ingest import epoch_batches, load_ahead
from wildray.learning.labels import read_samples
from wildray.learning.methods import METHODS
from wildray.learning.ray_ingest import Source, decoding_share, load_through_ray, packed, unpacked
from wildray.learning.train import pretrain


def tensors(crops) -> dict[str, torch.Tensor]:
    found = {field.name: getattr(crops, field.name) for field in dataclasses.fields(crops)}
    found |= {f"facts.{field.name}": getattr(crops.facts, field.name) for field in dataclasses.fields(crops.facts)}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def assert_equal(first, second):
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value.nan_to_num(-1), theirs[name].nan_to_num(-1)), name


def test_packed_crops_are_unpacked_as_they_were():
    images = torch.randint(0, 256, (6, 5, 5, 3), dtype=torch.uint8).permute(0, 3, 1, 2).view(2, 3, 3, 5, 5)
    ids = torch.arange(6).view(2, 3)
    facts = Facts(ids, ids + 1, torch.rand(2, 3, 4), ids, torch.full((2, 3), torch.nan, dtype=torch.float64))
    crops = Crops(images, torch.arange(3), torch.arange(3) - 2**62, facts)
    again = unpacked(packed(crops))
    assert_equal(crops, again)
    assert again.labels is None
    assert again.images.stride() == images.stride()
    again.images.zero_()  # a copy of its own, that may be written to


def streams(store, config, order, **settings):
    samples = read_samples(config, store, PAIRS_DIGEST)
    native = load_ahead(open_cache(config, store, samples, cache_bytes=0, threads=1), samples, order, **settings)
    return native, load_through_ray(Source(config, store, PAIRS_DIGEST), order, **settings)


@pytest.mark.parametrize(("rank", "num_workers", "first_step", "num_sources"), [(0, 1, 0, 2), (1, 2, 5, 1)])
def test_ray_gives_the_batches_of_native_in_the_same_order(
    pair_store, ray_here, rank, num_workers, first_step, num_sources
):
    config = tiny_config()
    order = epoch_batches(read_samples(config, pair_store, PAIRS_DIGEST), config, METHODS["simclr"], epoch=1)
    settings = {"seed": 0, "epoch": 1, "first_step": first_step, "num_sources": num_sources}
    native, through_ray = streams(pair_store, config, order, rank=rank, num_workers=num_workers, **settings)
    num = 0
    for ours, theirs in zip(native, through_ray, strict=True):
        assert_equal(ours, theirs)
        num += 1
    assert num == len(order) - first_step


class Holder:
    """Stands for a training worker: holds CPUs while it reads."""

    def numbers(self, source, order, settings) -> list[list[int]]:
        return [crops.index.tolist() for crops in load_through_ray(source, order, **settings)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_decoding_goes_on_where_training_holds_every_cpu(pair_store, ray_here, num_workers):
    import ray

    order = np.random.default_rng(0).permutation(96).reshape(12, 8)
    settings = {"seed": 0, "epoch": 0, "first_step": 2, "num_sources": 2, "num_workers": num_workers}
    source = Source(tiny_config(), pair_store, PAIRS_DIGEST)
    holders = [ray.remote(num_cpus=2 // num_workers)(Holder).remote() for _ in range(num_workers)]
    parts = ray.get(
        [holder.numbers.remote(source, order, settings | {"rank": rank}) for rank, holder in enumerate(holders)],
        timeout=240,
    )
    for holder in holders:
        ray.kill(holder)
    assert [[number for part in step for number in part] for step in zip(*parts, strict=True)] == order[2:].tolist()


def executors() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "Executor" in thread.name and "ray" in repr(thread)]


def test_a_stream_that_is_left_early_leaves_nothing_running(pair_store, ray_here):
    import ray

    order = np.arange(96).reshape(48, 2)
    settings = {"seed": 0, "epoch": 0, "first_step": 0, "num_sources": 2, "rank": 0, "num_workers": 1}
    for _ in range(2):
        _, through_ray = streams(pair_store, tiny_config(), order, **settings)
        next(through_ray)
        through_ray.close()
    deadline = time.monotonic() + 20
    while executors() or ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, executors()
        time.sleep(0.1)


def test_a_missing_pack_is_the_error_that_native_raises(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"), num_pairs=12)
    store.path("crops", DETECTIONS_DIGEST, "chunk1-000.arrow").unlink()
    settings = {"seed": 0, "epoch": 0, "first_step": 0, "num_sources": 2, "rank": 0, "num_workers": 1}
    _, through_ray = streams(store, tiny_config(), np.arange(12).reshape(6, 2), **settings)
    with pytest.raises(StoreError, match="chunk1-000"):
        list(through_ray)


@pytest.mark.parametrize(
    ("total", "held", "num_workers", "expected"),
    [(2, 1, 2, (0.0, 1)), (2, 2, 1, (0.0, 2)), (2, 0, 1, (1.0, 2)), (70, 3, 2, (1.0, 32)), (9, 2, 4, (0.0, 2))],
)
def test_decoding_takes_the_cpus_that_training_leaves(monkeypatch, total, held, num_workers, expected):
    class Context:
        def get_actor_id(self):
            return "training worker"

        def get_assigned_resources(self):
            return {"CPU": held}

    monkeypatch.setattr("ray.get_runtime_context", Context)
    nodes = [
        {"Alive": True, "Labels": {}, "Resources": {"CPU": float(total)}},
        {"Alive": True, "Labels": {"work": "decode"}, "Resources": {"CPU": 0.0}},
        {"Alive": False, "Labels": {}, "Resources": {"CPU": 64.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert decoding_share(num_workers) == expected
    nodes[1]["Resources"]["CPU"] = 6.0
    assert decoding_share(2, "work=decode") == (1.0, 3), "other nodes than those that train"


class DiesOnce:
    """A probe whose first call kills the worker that it is in: after the first epoch, before its end is saved."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(self, backbone) -> dict[str, float]:
        if not os.path.exists(self.mark):
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"mAP": 0.5}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
def test_training_through_ray_killed_in_mid_epoch_ends_with_the_weights_of_native(tmp_path, ray_here, workers):
    store = make_store(str(tmp_path / "s"))
    mark = tmp_path / "mark"
    pretrain(tiny_config(workers=workers, train__epochs=2), store, run="native")
    config = tiny_config(workers=workers, train__epochs=2, train__ingest="ray", train__checkpoint_steps=4)
    pretrain(config, store, run="ray", probe=DiesOnce(str(mark)))
    assert mark.exists()
    first, second = (
        safetensors.torch.load_file(store.path("models", run, "backbone.safetensors")) for run in ("native", "ray")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

import importlib.util
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from learning_store import DETECTIONS_DIGEST, PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import ConfigError, StageError
from wildray.learning.attempts import _interruptible
from wildray.learning.first_backbone import open_backbone
from wildray.learning.placing import check_shares, cpu_share, even_share, place_workers
from wildray.learning.train import pretrain
from wildray.schema import DETECTIONS, PAIRS


def weights(root, run):
    return safetensors.torch.load_file(Path(root) / "models" / run / "backbone.safetensors")


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class DiesOnce:
    """A probe whose first call kills the worker that it is in."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(self, backbone) -> dict[str, float]:
        if not os.path.exists(self.mark):
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"mAP": 0.5}


@pytest.mark.parametrize(
    ("node_cpus", "workers", "expected"),
    [([2], 1, 2), ([2], 2, 1), ([8], 3, 2), ([3, 3], 3, 1), ([4, 8], 3, 4), ([16, 16], 2, 16)],
)
def test_every_worker_finds_a_place(node_cpus, workers, expected):
    share = cpu_share([float(cpus) for cpus in node_cpus], workers)
    assert share == expected
    assert sum(int(node // share) for node in node_cpus) >= workers


def test_more_workers_than_cpus_are_refused_unless_they_are_to_share():
    with pytest.raises(ConfigError, match="got 50 workers, the cluster has 2 CPUs, expected at most 2 workers"):
        cpu_share([2.0], 50)
    with pytest.raises(ConfigError, match="got 3 workers with 2 CPUs each, the cluster has 6 CPUs, expected at most 2"):
        cpu_share([3.0, 3.0], 3, asked=2.0)
    assert cpu_share([2.0], 20, asked=0.1) == 0.1
    with pytest.raises(ConfigError, match="at most 20"):
        cpu_share([2.0], 21, asked=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 3}, "over 3 workers .scale.workers.: take --train.batch-size 15 or 18"),
        ({"workers": 4, "scale__min_workers": 2}, "evenly over 3 workers, and scale.min_workers 2 to scale.workers 4"),
        ({"workers": 7, "scale__min_workers": 1}, "evenly over 3, 5, 6, 7 workers"),
        ({"workers": 2, "scale__min_workers": 3}, "min_workers: got 3, expected at most scale.workers, which is 2"),
        ({"workers": 2, "scale__min_workers": 1, "scale__cpus_per_worker": 0.5}, "need whole CPUs"),
        ({"workers": 2, "train__accumulate": 16}, "in 16 parts .train.accumulate.: take --train.batch-size 32"),
    ],
)
def test_worker_counts_that_do_not_share_a_batch_evenly_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_shares(tiny_config(**settings))
    check_shares(tiny_config(workers=2, scale__min_workers=1, train__accumulate=8))


@pytest.mark.parametrize(
    ("node_cpus", "workers", "expected"),
    [
        ([2], 1, 2),
        ([2], 4, 0.5),
        ([0, 1, 1], 1, 1),
        ([0, 1, 1], 3, 0.5),
        ([4, 1], 3, 4 / 3),
        ([2, 2], 3, 1),
        ([], 2, 0.5),
    ],
)
def test_even_shares_are_the_largest_that_nodes_have_room_for(node_cpus, workers, expected):
    share = even_share([float(cpus) for cpus in node_cpus], workers)
    assert share == pytest.approx(expected)
    assert sum(int(cpus / share + 1e-6) for cpus in node_cpus or [1]) >= workers


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([{"CPU": 2}], {"workers": 1}, (1, False, {"CPU": 2})),
        ([{"CPU": 8}], {"workers": 4, "scale__min_workers": 1}, ((1, 4), False, {"CPU": 2})),
        ([{"CPU": 2}], {"workers": 4, "scale__min_workers": 1}, ((1, 4), False, {"CPU": 1})),
        ([{"CPU": 16, "GPU": 2}], {"workers": 4, "scale__min_workers": 2}, ((2, 4), True, {"CPU": 8, "GPU": 1})),
        ([{"CPU": 16, "GPU": 2}], {"workers": 4}, (4, False, {"CPU": 4})),
        # a node of CPUs alone has no place for a worker that wants a GPU
        ([{"CPU": 64}, {"CPU": 8, "GPU": 4}], {"workers": 4}, (4, True, {"CPU": 2, "GPU": 1})),
        # a head that takes no work, and two small nodes
        ([{}, {"CPU": 1}, {"CPU": 1}], {"workers": 2}, (2, False, {"CPU": 1})),
        # a cluster that grows: what is not there yet is asked for, what is there is used as it is
        ([{}], {"workers": 2, "scale__grows": True}, (2, False, {"CPU": 1})),
        ([{}, {"CPU": 8}], {"workers": 2, "scale__grows": True}, (2, False, {"CPU": 4})),
        (
            [{}, {"CPU": 8}],
            {"workers": 2, "scale__grows": True, "scale__use_gpu": True, "scale__cpus_per_worker": 4},
            (2, True, {"CPU": 4, "GPU": 1}),
        ),
    ],
)
def test_ray_is_asked_for_what_is_there(nodes, settings, expected):
    placement = place_workers(tiny_config(**settings), nodes)
    assert (placement.workers, placement.use_gpu, placement.resources) == expected


@pytest.fixture
def trained(monkeypatch):
    """Training without Ray: one epoch's traces are written and the pairs trained on are noted."""
    seen = []

    def train(job, scaling, probe, **facts):
        seen.append(job.pairs)
        result = {"epochs": job.config.train.epochs, "num_steps": 1, "loss": 1.0, "images_per_s": 1.0, "seconds": 1.0}
        job.store.write_text(json.dumps([result]), "models", job.run, "history.json")
        job.store.write_text(json.dumps(result), "models", job.run, "result.json")

    monkeypatch.setattr("wildray.learning.train._train", train)
    monkeypatch.setattr("wildray.learning.train.scaling_of", lambda config: None)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    return seen


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train__batch_size": 100000}, "lower train.batch_size"),
        ({"backbone__name": "resnet18x"}, "Did you mean 'resnet18"),
        ({"backbone__weights": "imagenet"}, "expected none, pypi, timm"),
        ({"train__method": "dinno"}, "Did you mean 'dino'"),
        ({"train__pairs": "zzz"}, f"no pairs 'zzz'. Known: {PAIRS_DIGEST}"),
        ({"train__pairs": "a" * 15 + "b"}, f"Did you mean '{PAIRS_DIGEST}'"),
    ],
)
def test_a_name_is_not_taken_by_a_run_that_was_refused(tmp_path, trained, wrong, message):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    with pytest.raises((ConfigError, StageError), match=message):
        pretrain(tiny_config(**wrong), store, run="r")
    assert not store.path("models", "r").exists()
    assert pretrain(tiny_config(), store, run="r").pairs == PAIRS_DIGEST


def test_an_empty_pair_set_is_refused_before_the_name_is_taken(tmp_path, trained):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    empty = store.collection("pairs", "e" * 16)
    empty.begin({"detections": "d" * 16})
    empty.write("pairs", "all", PAIRS.empty_table())
    empty.done("all", {"rows": 0})
    with pytest.raises(StageError, match="nothing to train on"):
        pretrain(tiny_config(), store, run="r")
    assert not store.path("models", "r").exists()
    assert trained == []


def test_a_run_keeps_its_pairs_when_newer_ones_are_mined(tmp_path, trained, caplog):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    pretrain(tiny_config(), store, run="r")
    newer = store.collection("pairs", "b" * 16)
    newer.begin({"detections": "d" * 16})
    newer.write("pairs", "all", store.collection("pairs", PAIRS_DIGEST).read("pairs", PAIRS))
    newer.done("all", {"rows": 20})
    assert store.newest("pairs") == "b" * 16
    with caplog.at_level(logging.INFO):
        assert pretrain(tiny_config(train__epochs=5), store, run="r").pairs == PAIRS_DIGEST
    assert f"{'b' * 16} are newer" in caplog.text
    assert pretrain(tiny_config(), store, run="new").pairs == "b" * 16
    assert trained == [PAIRS_DIGEST, PAIRS_DIGEST, "b" * 16]
    with pytest.raises(ConfigError, match=r"train\.pairs was a+, now b+"):
        pretrain(tiny_config(train__epochs=5, train__pairs="b" * 16), store, run="r")


@pytest.mark.parametrize("name", ["", "../../x", "a/b"])
def test_a_bad_name_leaves_nothing_behind(tmp_path, name):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        pretrain(tiny_config(), store, run=name)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupt_is_one_whatever_ray_train_makes_of_it():
    before = signal.getsignal(signal.SIGINT)

    @_interruptible()
    def fit():
        signal.signal(signal.SIGINT, lambda number, frame: sys.exit(0))
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_settings_that_cannot_be_are_refused_before_ray_starts(tmp_path):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    with pytest.raises(ConfigError, match=r"train\.batch_size 16 cannot be .* over 3 workers") as caught:
        pretrain(tiny_config(workers=3), store, run="r")
    assert "take --train.batch-size 15 or 18, or a number of workers that divides 16." in str(caught.value)
    with pytest.raises(ConfigError, match=r"take --train\.batch-size 50, or a number"):
        pretrain(tiny_config(workers=50), store, run="r")
    with pytest.raises(ConfigError, match="Did you mean 'dino'"):
        pretrain(tiny_config(train__method="dinno"), store, run="r")
    store.path("pairs", PAIRS_DIGEST, "collection.json").unlink()
    with pytest.raises(StageError, match="run 'wildray mine' first"):
        pretrain(tiny_config(), store, run="r")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pretrain_on_one_worker_and_on_two(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"))
    result = pretrain(tiny_config(), store, run="one")
    assert (result.epochs, result.num_steps, result.pairs) == (3, 18, PAIRS_DIGEST)
    begun = time.monotonic()
    assert pretrain(tiny_config(), store, run="one") == result
    assert time.monotonic() - begun < 2
    with pytest.raises(ConfigError, match=r"train\.seed"):
        pretrain(tiny_config(train__seed=4), store, run="one")
    two = pretrain(tiny_config(workers=2), store, run="two")
    histories = [json.loads(store.path("models", run, "history.json").read_text()) for run in ("one", "two")]
    assert two.num_steps == 18
    for one, other in zip(*histories, strict=True):  # the batches and the statistics are those of one worker
        assert abs(one["loss"] - other["loss"]) < 2e-2


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is an extra")
def test_zero_goes_on_under_ray_and_refuses_other_workers(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"))
    settings = {"workers": 2, "scale__strategy": "zero3", "train__epochs": 1}
    pretrain(tiny_config(**settings), store, run="r")
    with pytest.raises(ConfigError, match=r"is shared out \(it holds zero3-0-of-2.pt, zero3-1-of-2.pt\)"):
        pretrain(tiny_config(workers=1, train__epochs=2), store, run="r")
    assert pretrain(tiny_config(**settings | {"train__epochs": 2}), store, run="r").num_steps == 12
    assert open_backbone(store.path("models", "r", "backbone.safetensors")).dim


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_elastic_range_of_workers_trains(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"))
    settings = {"workers": 4, "scale__min_workers": 1, "train__batch_size": 24, "train__epochs": 1}
    assert pretrain(tiny_config(**settings), store, run="r").num_steps == 4  # there are CPUs for two of the four


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_workers_error_reaches_the_caller_as_it_was_raised(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"))
    store.collection("detections", DETECTIONS_DIGEST).write("detections", "all", DETECTIONS.empty_table())
    with pytest.raises(StageError, match="does not hold: mine again"):
        pretrain(tiny_config(), store, run="r")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_dies_is_replaced_and_the_weights_are_the_same(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"))
    pretrain(tiny_config(), store, run="whole")
    pretrain(tiny_config(), store, run="parts", probe=DiesOnce(str(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()
    assert equal(weights(store.root, "whole"), weights(store.root, "parts"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("through", [[], ["ray"]], ids=["loop", "ray"])
def test_killed_at_random_moments_and_run_again_equals_uninterrupted(tmp_path, through):
    root = str(tmp_path / "s")
    store = make_store(root)
    script = [sys.executable, str(Path(__file__).with_name("learning_pretrain.py")), root]
    subprocess.run([*script, "whole", *through], check=True)
    moment = random.Random(0)
    run_dir = store.path("models", "parts")
    num_killed = 0
    for _ in range(3):
        (run_dir / ".progress.json").unlink(missing_ok=True)
        process = subprocess.Popen([*script, "parts", *through], start_new_session=True)
        while not (run_dir / ".progress.json").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moment.uniform(0, 1.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            num_killed += 1
        process.wait()
    assert num_killed >= 1
    subprocess.run([*script, "parts", *through], check=True)
    assert equal(weights(root, "whole"), weights(root, "parts"))
    assert len(json.loads((run_dir / "history.json").read_text())) == 3

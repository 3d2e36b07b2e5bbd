import json
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
from learning_store import PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import ConfigError, StageError
from wildray.learning.train import cpu_share, pretrain


@pytest.fixture(scope="module")
def ray_here():
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield
    ray.shutdown()


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
    [([2], 1, 2), ([2], 2, 1), ([8], 3, 2), ([3, 3], 3, 1), ([4, 8], 3, 4), ([16, 16], 2, 16), ([2], 4, 0.25)],
)
def test_every_worker_finds_a_place(node_cpus, workers, expected):
    share = cpu_share([float(cpus) for cpus in node_cpus], workers)
    assert share == expected
    assert sum(int(node // share) for node in node_cpus) >= workers


def test_settings_that_cannot_be_are_refused_before_ray_starts(tmp_path):
    store = make_store(str(tmp_path / "s"), num_pairs=20)
    with pytest.raises(ConfigError, match=r"train\.batch_size 16 cannot be shared out evenly over 3 workers"):
        pretrain(tiny_config(workers=3), store, run="r")
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
def test_a_workers_error_reaches_the_caller_as_it_was_raised(tmp_path, ray_here):
    store = make_store(str(tmp_path / "s"), num_pairs=5)
    with pytest.raises(StageError, match="5 pairs do not fill a batch of 16"):
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

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from wildray.config import Config, TrainConfig
from wildray.errors import StageError
from wildray.learning.job import make_method, num_batches, recipe_of, takes_bf16
from wildray.learning.optim import Recipe, learning_rate_at, make_optimizer, peak_learning_rate


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate_at(step, 100, peak=2.0, warmup=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0)
    assert max(rates) == pytest.approx(2.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.0)
    assert rates[10 + 45] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_very_short_trainings_have_a_rate(num_steps):
    rates = [learning_rate_at(step, num_steps, peak=1.0, warmup=0.9) for step in range(num_steps)]
    assert all(0 <= rate <= 1 for rate in rates)


def test_the_peak_grows_with_the_batch():
    linear = Recipe("sgd", 0.03, 1e-4)
    assert linear.peak(128) == pytest.approx(0.015)
    root = Recipe("lars", 1.2, 1e-6, scaling="sqrt")
    assert root.peak(256) == pytest.approx(0.075 * 256**0.5)  # lightly's benchmark: 0.075 sqrt(batch)
    assert root.peak(1024) == pytest.approx(0.075 * 1024**0.5)
    assert peak_learning_rate(linear, TrainConfig(learning_rate=0.5)) == 0.5


def test_biases_norms_and_positions_do_not_decay():
    config = Config.load(overrides={"backbone.image_size": 32})
    method = make_method(config)
    optimizer = make_optimizer(method, recipe_of(method, config), config.train)
    name_of = {parameter: name for name, parameter in method.named_parameters()}
    free = {name_of[p] for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    decayed = {name_of[p] for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    assert "backbone.net.pos_embed" in free
    assert "backbone.net.cls_token" in free
    assert "backbone.net.blocks.0.norm1.weight" in free
    assert "backbone.net.blocks.0.attn.qkv.weight" in decayed
    assert free | decayed == {name for name, p in method.named_parameters() if p.requires_grad}
    assert not free & decayed


def test_every_recipe_makes_a_step():
    for kind in ("adamw", "sgd", "lars"):
        network = nn.Linear(3, 2)
        before = network.weight.clone()
        optimizer = make_optimizer(network, Recipe(kind, 0.1, 1e-4), TrainConfig())
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert not torch.equal(before, network.weight)


def test_bf16_is_taken_where_asked_for_or_native():
    device = torch.device("cpu")
    assert takes_bf16("bf16", device)
    assert not takes_bf16("fp32", device)
    native = "_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False
    assert takes_bf16("auto", device) is native


def test_too_few_pairs_for_a_batch():
    assert num_batches(129, 64) == 2
    with pytest.raises(StageError, match="63 pairs do not fill a batch of 64"):
        num_batches(63, 64)

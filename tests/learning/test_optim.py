import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from wildray.config import Config, TrainConfig
from wildray.errors import StageError
from wildray.learning.job import make_method, num_batches, recipe_of, takes_bf16
from wildray.learning.methods import METHODS
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


def test_what_does_not_decay_has_a_rate_of_its_own_where_the_recipe_says_so():
    train = TrainConfig(batch_size=256)
    (weights, others) = make_optimizer(nn.Linear(3, 2), METHODS["barlow_twins"].stock_recipe, train).param_groups
    assert (weights["lr"], others["lr"]) == pytest.approx((0.2, 0.0048))
    assert (weights["rate_share"], others["rate_share"]) == (1.0, 0.024)


def test_every_recipe_makes_a_step():
    for kind in ("adamw", "sgd", "lars"):
        network = nn.Linear(3, 2)
        before = network.weight.clone()
        optimizer = make_optimizer(network, Recipe(kind, 0.1, 1e-4), TrainConfig())
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert not torch.equal(before, network.weight)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", ["adamw", "stock"])
def test_both_recipes_of_every_method_make_a_step_that_leaves_frozen_weights(method, recipe):
    config = Config.load(
        overrides={"train.method": method, "train.recipe": recipe, "train.freeze_patches": True}
        | {"backbone.name": "test_vit", "backbone.image_size": 32}
        | {"method.hidden_dim": 16, "method.projection_dim": 16, "method.local_views": 0}
    )
    network = make_method(config, num_identities=3)
    chosen = recipe_of(network, config)
    assert chosen is (network.recipe if recipe == "adamw" else network.stock_recipe)
    if recipe == "adamw":
        assert chosen.optimizer == "adamw"
    optimizer = make_optimizer(network, chosen, config.train)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    frozen = dict(network.backbone.net.patch_embed.named_parameters())
    assert not trained & {id(p) for p in frozen.values()}
    assert trained == {id(p) for p in network.parameters() if p.requires_grad}
    before = {name: p.clone() for name, p in network.named_parameters()}
    for p in network.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    optimizer.step()
    standing = {"head.last_layer.weight_v"} if method in ("dino", "dinov2") else set()
    assert {
        name for name, p in network.named_parameters() if id(p) in trained and torch.equal(p, before[name])
    } == standing
    if standing:
        network.teacher.progress.fill_(0.5)
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in network.parameters())
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]) is not p.requires_grad, name


def test_bf16_is_taken_where_asked_for_or_native(caplog):
    device = torch.device("cpu")
    assert takes_bf16("bf16", device)
    assert not takes_bf16("fp32", device)
    native = "_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False
    assert takes_bf16("auto", device) is native
    assert ("imitates it" in caplog.text) is not native  # said of the one that was asked for


def test_too_few_pairs_for_a_batch():
    train = TrainConfig(batch_size=64)
    assert num_batches(129, train) == 2
    with pytest.raises(StageError, match="63 pairs do not fill a batch of 64"):
        num_batches(63, train)

"""Every method learns a tiny task, and what makes it the method is what makes it learn: each planted fault fails.

Shuffled pairs (or labels) fail every method. Terms that keep the spread are left out of networks without batch
normalisation, beside a control that has the term: batch normalisation alone keeps VICReg without variance and LeJEPA
without SIGReg from collapse on this task. So it does BYOL and FastSiam without stop-gradient and predictor, which learn
nothing without it in any case: that no gradient flows through their targets is held in test_methods_selfdist.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_task import Learned, make_method, measure, settings_of, small_encoder, train, without_batch_normalisation

from wildray.learning.batch import Crops
from wildray.learning.methods import METHODS, lejepa

SLOW = {"dinov2", "moco", "fastsiam", "dino", "simclr", "vicreg", "lejepa"}
"""Whose shuffled runs are left to the slow tests: they take longer, or have a fault of their own below."""


def shuffled(crops: Crops, generator: torch.Generator) -> Crops:
    """Other positives in every step; other labels, the same in every step."""
    if crops.labels is not None:
        order = torch.randperm(len(crops.labels), generator=generator.manual_seed(0))
        return replace(crops, labels=crops.labels[order])
    images = crops.images.clone()
    images[1] = images[1][torch.randperm(images.shape[1], generator=generator)]
    return replace(crops, images=images)


def one_tracklet(crops: Crops, generator: torch.Generator) -> Crops:
    """Every crop surely the same animal: no negatives are left."""
    return replace(crops, tracklet_id=torch.zeros_like(crops.tracklet_id))


def shown(what: str, result: Learned) -> Learned:
    print(f"{what}: gap {result.gap:.3f}, rank {result.rank:.1f}")
    return result


@pytest.mark.parametrize("name", ["simclr", "dinov2"])
def test_an_untrained_encoder_fails(name):
    torch.manual_seed(3)
    result = shown(f"untrained {name}", measure(small_encoder(name), coat=settings_of(name).coat))
    assert not result.passes
    assert result.gap < 0.15


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns(name):
    result = shown(name, train(make_method(name)))
    assert result.passes, result


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(METHODS)]
)
def test_shuffled_pairs_teach_nothing(name):
    result = shown(f"{name} shuffled", train(make_method(name), spoil=shuffled))
    assert not result.passes, result


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_without_negatives_nothing_is_learned(name):
    result = shown(f"{name} without negatives", train(make_method(name), spoil=one_tracklet))
    assert not result.passes, result


def test_vicreg_needs_its_invariance():
    method = make_method("vicreg")
    method.loss.lambda_param = 0.0
    result = shown("vicreg without invariance", train(method))
    assert not result.passes, result


def test_lejepa_needs_its_prediction(monkeypatch):
    monkeypatch.setattr(lejepa, "LAMBDA", 1.0)
    result = shown("lejepa without prediction", train(make_method("lejepa")))
    assert not result.passes, result


@pytest.mark.parametrize("name", ["vicreg", "lejepa"])
@pytest.mark.parametrize("planted", [False, True])
def test_variance_and_sigreg_keep_the_spread(name, planted, monkeypatch):
    method = make_method(name)
    without_batch_normalisation(method)
    if planted and name == "vicreg":
        method.loss.mu_param = 0.0
    if planted and name == "lejepa":
        monkeypatch.setattr(lejepa, "LAMBDA", 0.0)
    result = shown(f"{name} without batch normalisation, planted {planted}", train(method, steps=200))
    assert result.passes is not planted, result

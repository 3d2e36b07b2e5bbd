"""Every method learns a tiny task, and what makes it the method is what makes it learn: each planted fault fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_task import Learned, make_method, measure, small_encoder, train
from torch import Tensor, nn

from wildray.learning.batch import Crops
from wildray.learning.methods import METHODS, Method
from wildray.learning.methods import lejepa as lejepa_module

STEPS, RATE = 100, 3e-3


class Copycat(nn.Module):
    """In the place of a teacher: the student itself, with gradient."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.network = nn.Sequential(*parts)
        self.register_buffer("progress", torch.ones(()))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def follow(self, network: nn.Module, progress: float) -> None:
        pass


def shuffled(crops: Crops, generator: torch.Generator) -> Crops:
    """Other positives in every step; other labels, the same in every step."""
    if crops.labels is not None:
        return replace(
            crops, labels=crops.labels[torch.randperm(len(crops.labels), generator=generator.manual_seed(0))]
        )
    images = crops.images.clone()
    images[1] = images[1][torch.randperm(images.shape[1], generator=generator)]
    return replace(crops, images=images)


def one_tracklet(crops: Crops, generator: torch.Generator) -> Crops:
    """Every crop surely the same animal: no negatives are left."""
    return replace(crops, tracklet_id=torch.zeros_like(crops.tracklet_id))


def no_stop_gradient(method: Method, patch: pytest.MonkeyPatch) -> None:
    if hasattr(method, "predictor"):
        method.predictor = nn.Identity()
    if hasattr(method, "teacher"):
        method.teacher = Copycat(method.backbone, method.head)
    patch.setattr(Tensor, "detach", lambda self: self)


def without(name: str, value: float = 0.0) -> Callable[[Method, pytest.MonkeyPatch], None]:
    """The weight of a term of a lightly loss set to 0."""
    return lambda method, patch: setattr(method.loss, name, value)


def lejepa_weight(value: float) -> Callable[[Method, pytest.MonkeyPatch], None]:
    return lambda method, patch: patch.setattr(lejepa_module, "LAMBDA", value)


FAULTS = {
    "barlow_twins without redundancy": without("lambda_param"),
    "vicreg without variance": without("mu_param"),
    "vicreg without invariance": without("lambda_param"),
    "byol without stop-gradient": no_stop_gradient,
    "fastsiam without stop-gradient": no_stop_gradient,
    "dino without stop-gradient": no_stop_gradient,
    "lejepa without sigreg": lejepa_weight(0.0),
    "lejepa without prediction": lejepa_weight(1.0),
}


def learned(name: str, **kwargs: object) -> Learned:
    result = train(make_method(name), steps=STEPS, rate=RATE, **kwargs)
    print(f"{name}: gap {result.gap:.3f}, rank {result.rank:.1f}")
    return result


@pytest.mark.parametrize("name", ["simclr", "dinov2"])
def test_an_untrained_encoder_fails(name):
    torch.manual_seed(3)
    result = measure(small_encoder(name))
    print(result)
    assert not result.passes
    assert result.gap < 0.15


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns(name):
    result = learned(name)
    assert result.passes, result


@pytest.mark.parametrize("name", sorted(METHODS))
def test_shuffled_pairs_teach_nothing(name):
    result = learned(name, spoil=shuffled)
    assert not result.passes, result


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_without_negatives_nothing_is_learned(name):
    result = learned(name, spoil=one_tracklet)
    assert not result.passes, result


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_without_what_holds_it_up_it_fails(fault, monkeypatch):
    method = make_method(fault.split()[0])
    FAULTS[fault](method, monkeypatch)
    result = train(method, steps=STEPS, rate=RATE)
    print(f"{fault}: gap {result.gap:.3f}, rank {result.rank:.1f}")
    assert not result.passes, result

"""A task that a method learns in seconds or not at all: tell animals by their coat, whatever the light.

64 animals, each a 4 x 4 pattern of light and dark. Every drawing of an animal adds what is not the animal, and is far
louder: a colour cast and a coloured pattern, both drawn anew. An untrained network sees mostly those. What is measured
is the backbone's own output, as retrieval uses it: plain cosine, no centring, on drawings that were not trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Crops, Facts
from wildray.learning.methods import METHODS, Method
from wildray.learning.monitor import effective_rank
from wildray.learning.optim import learning_rate_at

NUM_ANIMALS, SIZE_PX, CELLS = 64, 32, 4
CAST, SCENERY = 0.2, 0.25
"""Amplitudes in [0, 1] of the colour cast and of the coloured pattern."""


@dataclass(frozen=True)
class Settings:
    """How a method is trained on the task.

    Attributes:
        steps: Optimiser steps.
        rate: Peak learning rate.
        coat: Amplitude of the pattern that is the animal.
        momentum: Of a teacher: a memory of a tenth of the run or less.
        outputs: Dimensions of the projection.
    """

    steps: int = 100
    rate: float = 3e-3
    coat: float = 0.2
    momentum: float = 0.9
    outputs: int = 64


SETTINGS = {
    "arcface": Settings(rate=1e-2),
    "byol": Settings(rate=1e-2),
    "fastsiam": Settings(rate=1e-2),
    "moco": Settings(rate=1e-2, coat=0.25),
    # a transformer, whose heads have no batch normalisation: slower, and on louder coats
    "dinov2": Settings(rate=1e-3, steps=150, coat=0.5, momentum=0.95, outputs=128),
}
"""Where a method's differ from the others'."""


@dataclass(frozen=True)
class Learned:
    """What a backbone makes of unseen drawings.

    Attributes:
        gap: Mean cosine of two drawings of one animal less that of drawings of two.
        rank: Effective rank of all drawings' vectors.
    """

    gap: float
    rank: float

    @property
    def passes(self) -> bool:
        """The bar: 0.3 and 8."""
        return self.gap >= 0.3 and self.rank >= 8


def settings_of(name: str) -> Settings:
    return SETTINGS.get(name, Settings())


def drawings(num: int, *, seed: int, coat: float) -> Tensor:
    """(num, NUM_ANIMALS, 3, SIZE_PX, SIZE_PX) uint8: so many drawings of every animal."""
    coats = torch.randn(NUM_ANIMALS, 1, CELLS, CELLS, generator=torch.Generator().manual_seed(7)).sign()
    generator = torch.Generator().manual_seed(seed)
    cast = torch.randn(num, NUM_ANIMALS, 3, 1, 1, generator=generator)
    scenery = torch.randn(num, NUM_ANIMALS, 3, CELLS, CELLS, generator=generator)
    scenery = scenery - scenery.mean(dim=2, keepdim=True)  # colour alone: the coat is in the brightness
    cells = 0.5 + coat * coats + CAST * cast + SCENERY * scenery
    images = F.interpolate(cells.flatten(0, 1), (SIZE_PX, SIZE_PX), mode="nearest").unflatten(0, (num, NUM_ANIMALS))
    noise = 0.02 * torch.randn(images.shape, generator=generator)
    return ((images + noise).clamp(0, 1) * 255).to(torch.uint8)


def small_encoder(name: str) -> Backbone:
    if name == "dinov2":  # which wants the tokens of a transformer
        net = timm.create_model("test_vit", num_classes=0, img_size=SIZE_PX, patch_size=SIZE_PX // CELLS, depth=2)
        return Backbone("test_vit", SIZE_PX, net=net, mean=(0.5,) * 3, std=(0.5,) * 3)
    cell_px = SIZE_PX // CELLS
    layers = [nn.Conv2d(3, 24, cell_px, stride=cell_px), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(24 * CELLS**2, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64)]
    return Backbone("tiny", SIZE_PX, net=nn.Sequential(*layers), mean=(0.5,) * 3, std=(0.5,) * 3)


def make_method(name: str) -> Method:
    settings = settings_of(name)
    overrides = {
        "train.method": name,
        "train.views": "temporal",
        "train.epochs": 100,
        "backbone.image_size": SIZE_PX,
        "method.hidden_dim": 128,
        "method.projection_dim": settings.outputs,
        "method.local_views": 0,
        "method.momentum": settings.momentum,
        "method.queue_size": 256,
        "augment.min_crop": 0.9,
        "augment.color_jitter": 0.0,
        "augment.grayscale": 0.0,
        "augment.blur": 0.0,
    }
    torch.manual_seed(3)
    config = Config.load(overrides=overrides)
    method = METHODS[name](small_encoder(name), config, num_identities=NUM_ANIMALS if METHODS[name].supervised else 0)
    if name == "lejepa":
        method.sigreg.num_vectors = 64  # a tenth of the time of 1,024
    return method


def without_batch_normalisation(network: nn.Module) -> None:
    """Take it out everywhere: it keeps the spread of a batch, and hides the lack of what else should."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, nn.Identity())
        else:
            without_batch_normalisation(child)


def pairs(method: Method, *, coat: float) -> Crops:
    """All there is to train on: two drawings of each animal, as pairs or as labelled images."""
    images, animals = drawings(2, seed=0, coat=coat), torch.arange(NUM_ANIMALS)
    labels = None
    if method.supervised:
        images, animals = images.reshape(1, -1, *images.shape[2:]), animals.repeat(2)
        labels = animals
    shape = images.shape[:2]
    ids = torch.arange(shape[0] * shape[1]).view(shape)
    facts = Facts(ids, ids, torch.zeros(*shape, 4), torch.zeros_like(ids), torch.full(shape, torch.nan).double())
    return Crops(images, torch.arange(shape[1]), animals, facts, labels)


def train(
    method: Method,
    *,
    spoil: Callable[[Crops, torch.Generator], Crops] | None = None,
    steps: int | None = None,
) -> Learned:
    """Train on all pairs at once and measure.

    Args:
        method: From ``make_method``.
        spoil: A planted fault of the data, called before every step.
        steps: In the place of the method's settings.
    """
    settings = settings_of(method.config.train.method)
    settings = replace(settings, steps=steps or settings.steps)
    clean, generator = pairs(method, coat=settings.coat), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], weight_decay=1e-4)
    for step in range(settings.steps):
        crops = clean if spoil is None else spoil(clean, generator)
        batch = method.views.batch(crops, seed=0, epoch=step, device=torch.device("cpu"))
        loss = method(batch)
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings.steps, peak=settings.rate, warmup=0.1)
        optimizer.step()
        method.after_step((step + 1) / settings.steps)
    return measure(method.backbone, coat=settings.coat)


@torch.no_grad()
def measure(backbone: Backbone, *, coat: float) -> Learned:
    """How well unseen drawings of the animals are told apart."""
    backbone.eval()
    unseen = drawings(2, seed=99, coat=coat).float() / 255
    vectors = backbone(unseen.flatten(0, 1)).view(2, NUM_ANIMALS, -1)
    first, second = F.normalize(vectors, dim=2)
    similar = first @ second.T
    same = torch.eye(NUM_ANIMALS, dtype=torch.bool)
    gap = float(similar[same].mean() - similar[~same].mean())
    return Learned(gap, effective_rank(vectors.flatten(0, 1)))

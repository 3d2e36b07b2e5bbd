"""What is trained, and by which worker: two small records, and what follows from the configuration.

In: the configuration. Out: a method with its backbone from the seed, its recipe, the number of batches. Kept apart from
the loop, so that a test or a sweep can build a method without a store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from wildray.config import Config, TrainConfig
from wildray.errors import StageError
from wildray.learning.backbone import Backbone
from wildray.learning.first_backbone import first_backbone
from wildray.learning.methods import Method, method_class
from wildray.learning.optim import Recipe
from wildray.schema import hash64
from wildray.store import Store

logger = logging.getLogger(__name__)

Probe = Callable[[Backbone], dict[str, float]]
"""Measures a backbone, such as its mAP on labelled images; must pickle."""


@runtime_checkable
class KnowsData(Protocol):
    """A probe that can say what it measures on."""

    def lineage(self) -> dict[str, Any]:
        """Arguments of ``RunLog.input``."""


@dataclass(frozen=True)
class Job:
    """What is trained; pickles.

    Attributes:
        config: The whole configuration.
        store: Where everything lies.
        run: Name of the run.
        pairs: Digest of the pairs, or of the labelled images that are trained on in their place (``train.labels``).
        until: Epochs after which it stops, while the learning rate is laid out over all; None: it goes on to the end.
    """

    config: Config
    store: Store
    run: str
    pairs: str
    until: int | None = None

    @property
    def last_epoch(self) -> int:
        """Epochs that are done when it stops."""
        epochs = self.config.train.epochs
        return epochs if self.until is None else min(epochs, self.until)

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.store.path("models", self.run)


@dataclass(frozen=True)
class Place:
    """Which worker this is, and what it may use.

    Attributes:
        rank: From 0.
        num_workers: W.
        device: Where it trains.
        threads: CPU threads.
    """

    rank: int = 0
    num_workers: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1


def seed_of(*parts: object) -> int:
    """A seed for torch, in [0, 2^63), that depends on the parts alone."""
    return hash64(parts) & (2**63 - 1)


def make_method(config: Config, *, num_identities: int = 0) -> Method:
    """The method that a configuration names, with its backbone, from the seed; supervised ones are told of how many."""
    kind = method_class(config.train.method)
    backbone = first_backbone(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("heads", config.train.seed))
        return kind(backbone, config, num_identities=num_identities)


def takes_bf16(precision: str, device: torch.device) -> bool:
    """Whether the forward pass is in bfloat16; ``auto`` asks the processor, since emulation is slower than float32."""
    if precision == "fp32":
        return False
    native = _has_bf16(device)
    if precision == "bf16" and not native:
        logger.warning(
            "train.precision bf16: this %s has no bfloat16 arithmetic and imitates it, which took up to 50 times as "
            "long as fp32 where it was measured. auto, the default, takes what is fast.",
            "GPU" if device.type == "cuda" else "processor",
        )
    return native or precision == "bf16"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(flags.read_text().split()))


def recipe_of(method: Method | type[Method], config: Config) -> Recipe:
    """AdamW for every backbone, or what lightly's benchmark of the method uses."""
    return method.recipe if config.train.recipe == "adamw" else method.stock_recipe


def batches_per_epoch(num_samples: int, train: TrainConfig) -> int:
    """Batches between two measurements: ``train.epoch_size`` of samples, or a pass; errors as ``num_batches``."""
    whole = num_batches(num_samples, train)
    return whole if train.epoch_size is None else max(1, train.epoch_size // train.batch_size)


def num_batches(num_samples: int, train: TrainConfig) -> int:
    """Batches in a pass over all; StageError where the pairs, or labelled images, do not fill one."""
    if num_samples < train.batch_size:
        what, remedy = ("pairs", "mine more pairs") if train.labels is None else ("labelled images", "give more images")
        raise StageError(
            f"{num_samples} {what} do not fill a batch of {train.batch_size}: lower train.batch_size, or {remedy}."
        )
    return num_samples // train.batch_size

"""Optimisers and the learning rate over time.

In: a method's recipe and the configuration. Out: an optimiser, and the learning rate of every step as a function of the
step alone, so that a checkpoint needs no scheduler state. lightly's stock recipes are tuned for convolutional nets and
large batches; AdamW with warm-up and cosine decay is the default, ``train.recipe stock`` takes the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightly.utils.lars import LARS
from lightly.utils.scheduler import cosine_warmup_schedule
from torch import nn

from wildray.config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised.

    Attributes:
        optimizer: adamw, sgd (momentum 0.9) or lars (momentum 0.9).
        learning_rate: Peak, at a batch of ``reference_batch`` pairs.
        weight_decay: Of weights; biases, norms and positions have none.
        scaling: How the peak grows with the batch: linear or sqrt.
        reference_batch: Pairs in a batch, over all workers, at which ``learning_rate`` holds.
        exempt_share: Share of the learning rate for what has no weight decay.
    """

    optimizer: Literal["adamw", "sgd", "lars"]
    learning_rate: float
    weight_decay: float
    scaling: Literal["linear", "sqrt"] = "linear"
    reference_batch: int = 256
    exempt_share: float = 1.0

    def peak(self, batch_size: int) -> float:
        """Learning rate for a batch of so many pairs over all workers."""
        ratio = batch_size / self.reference_batch
        return self.learning_rate * (ratio if self.scaling == "linear" else math.sqrt(ratio))


def peak_learning_rate(recipe: Recipe, train: TrainConfig) -> float:
    """The configured learning rate, or the recipe's for this batch size."""
    return recipe.peak(train.batch_size) if train.learning_rate is None else train.learning_rate


def learning_rate_at(step: int, num_steps: int, *, peak: float, warmup: float) -> float:
    """Learning rate of a step: a linear rise, then a cosine to 0.

    Args:
        step: From 0.
        num_steps: Of the whole training.
        peak: Highest value.
        warmup: Share of the steps over which it rises.
    """
    warmup_steps = min(round(warmup * num_steps), num_steps - 1)
    return peak * float(cosine_warmup_schedule(step, num_steps, 1.0, 0.0, warmup_steps, 0.0))


def make_optimizer(method: nn.Module, recipe: Recipe, train: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that take a gradient.

    Args:
        method: Whose parameters. A part with a condition ``stands_still`` takes no steps while that is true.
        recipe: Of the method. Groups carry its ``rate_share``, by which the loop's rate is multiplied.
        train: Overrides weight decay and learning rate where it sets them.
    """
    decay = recipe.weight_decay if train.weight_decay is None else train.weight_decay
    exempt = _exempt(method)
    named = [(name, parameter) for name, parameter in method.named_parameters() if parameter.requires_grad]
    peak = peak_learning_rate(recipe, train)
    standing = [module for module in method.modules() if hasattr(module, "stands_still")]
    conditions: list[Callable[[], bool]] = [vars(module)["stands_still"] for module in standing]
    held = {id(p) for module in standing for p in module.parameters()}
    groups: list[dict[str, Any]] = []
    for is_held in (False, True):
        here = [(name, p) for name, p in named if (id(p) in held) is is_held]
        weights = [p for name, p in here if name not in exempt and p.ndim > 1]
        others = [p for name, p in here if name in exempt or p.ndim <= 1]
        share = recipe.exempt_share
        groups += [
            {"params": weights, "weight_decay": decay, "rate_share": 1.0, "held": is_held},
            {"params": others, "weight_decay": 0.0, "rate_share": share, "lr": peak * share, "held": is_held},
        ]
    optimizer = _optimizer(recipe, [group for group in groups if group["params"]], peak)
    if standing:
        _hold(optimizer, lambda: any(condition() for condition in conditions))
    return optimizer


def _optimizer(recipe: Recipe, groups: list[dict[str, Any]], peak: float) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        # fused: without temporary tensors, which under ZeRO are as large as a worker's whole part
        return torch.optim.AdamW(groups, lr=peak, fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=0.9)
    lars: torch.optim.Optimizer = LARS(groups, lr=peak, momentum=0.9)
    return lars


def _hold(optimizer: torch.optim.Optimizer, while_true: Callable[[], bool]) -> None:
    """Let steps leave the held groups, their moments and their count of steps alone.

    Moments that saw the zeros of a held layer would make its first steps several times too large. Done in hooks, since
    DeepSpeed takes the steps itself, with flat copies of the groups' parameters.
    """
    rates: list[float] = []

    def before(*_: object) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            if group["held"] and while_true():
                group["lr"] = 0.0

    def after(*_: object) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            if group["held"] and while_true():
                for parameter in group["params"]:
                    optimizer.state.pop(parameter, None)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _exempt(method: nn.Module) -> set[str]:
    """Names of the parameters that the networks themselves want without decay, such as position embeddings."""
    names: set[str] = set()
    for prefix, module in method.named_modules():
        ask = getattr(module, "no_weight_decay", None)
        if callable(ask):
            names |= {f"{prefix}.{name}" if prefix else name for name in ask()}
    return names

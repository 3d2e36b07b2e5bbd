"""How the workers of a job share a model: each holds all of it, or DeepSpeed shares it out.

In: a method and its optimiser. Out: one object with the same few calls for one process, DistributedDataParallel and
ZeRO: add a part's gradient, take a step, say the state, give the backbone whole. The loop above reads the same for
all of them. Lightning's strategies are classes of forty hooks; these six are all that the loop needs.
"""

from __future__ import annotations

import contextlib
import importlib.util
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.checkpoint import Shard, State
from wildray.learning.job import Place, takes_bf16
from wildray.learning.methods import Method, method_class
from wildray.learning.optim import Recipe


class Strategy(Protocol):
    """What the loop asks of the way in which workers share a model.

    Attributes:
        shard: Which part of the state this worker writes; None where worker 0 holds all of it.
    """

    shard: Shard | None

    def backward(self, batch: Batch, *, num_parts: int, last: bool) -> Tensor:
        """Add a part's share to the gradient; returns its loss (), detached."""

    def step(self, *, clip_norm: float) -> float:
        """Take the optimiser's step over what was added, and forget it.

        Args:
            clip_norm: A gradient with a larger norm is scaled down to it.

        Returns:
            The norm before clipping, over all workers; where it is not finite, no weight was changed.
        """

    def after_step(self, progress: float) -> None:
        """The method's ``after_step``, where parameters are at hand."""

    def states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """State dicts of method and optimiser, or this worker's part of them."""

    def whole_backbone(self) -> Backbone | None:
        """The backbone with all its weights, to be measured or written by worker 0; None on the others.

        Every worker calls it.
        """


class Replicated:
    """Every worker holds the whole model: one process, or DistributedDataParallel.

    Args:
        method: What is trained, on its device.
        optimizer: Over its parameters.
        place: Which worker this is.
        bf16: Whether the forward pass is in bfloat16.
        state: To go on from, where it has steps.
    """

    shard: Shard | None = None

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, *, place: Place, bf16: bool, state: State
    ) -> None:
        self._method, self._optimizer, self._place, self._bf16 = method, optimizer, place, bf16
        if state.step:
            method.load_state_dict(state.method)
            optimizer.load_state_dict(state.optimizer)
        self._parallel: nn.Module = method
        if place.num_workers > 1:
            self._parallel = DistributedDataParallel(
                method,
                device_ids=[place.device] if place.device.type == "cuda" else None,
                # all methods compute their buffers from the batches of all workers: they are equal, and sending
                # worker 0's (moco's queue is megabytes) at every step changes nothing
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,  # else a second copy of all gradients is kept
            )

    def backward(self, batch: Batch, *, num_parts: int, last: bool) -> Tensor:
        """Add a part's share to the gradient; workers exchange gradients with the last part."""
        parallel = self._parallel
        alone: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if not last and isinstance(parallel, DistributedDataParallel):
            alone = parallel.no_sync()
        with alone:
            with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._bf16):
                loss = parallel(batch)
            torch.autograd.backward(loss / num_parts)
        assert isinstance(loss, Tensor)
        return loss.detach()

    def step(self, *, clip_norm: float) -> float:
        """Clip, step, forget the gradient; see ``Strategy.step``."""
        norm = float(nn.utils.clip_grad_norm_(self._method.parameters(), clip_norm))
        if norm == norm and norm != float("inf"):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def after_step(self, progress: float) -> None:
        """The method's ``after_step``."""
        self._method.after_step(progress)

    def states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All of both."""
        return self._method.state_dict(), self._optimizer.state_dict()

    def whole_backbone(self) -> Backbone | None:
        """The backbone itself on worker 0."""
        return self._method.backbone if self._place.rank == 0 else None


def make_strategy(
    method: Method, optimizer: torch.optim.Optimizer, *, config: Config, place: Place, state: State
) -> Strategy:
    """Wrap a method as ``scale.strategy`` says, going on from a state where it has steps."""
    bf16 = takes_bf16(config.train.precision, place.device)
    if shard_of(config, place) is None:
        return Replicated(method, optimizer, place=place, bf16=bf16, state=state)
    from wildray.learning.zero import Zero  # the extra deepspeed, and seconds to import

    return Zero(method, optimizer, config=config, place=place, bf16=bf16, state=state)


def shard_of(config: Config, place: Place) -> Shard | None:
    """The part of a checkpoint that a worker writes; None where worker 0 writes all of it."""
    if config.scale.strategy == "ddp" or place.num_workers == 1:
        return None
    return Shard(config.scale.strategy, place.rank, place.num_workers)


def check_strategy(config: Config) -> None:
    """Refuse, before anything is started, what does not go with ``scale.strategy``.

    Raises:
        ConfigError: DeepSpeed is not installed, or another setting does not go with it.
    """
    scale, train = config.scale, config.train
    if scale.strategy == "ddp":
        return
    found = f"scale.strategy: got {scale.strategy}"
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"{found}, which DeepSpeed does: pip install 'wildray[deepspeed]', or take ddp.")
    if scale.min_workers is not None and scale.min_workers != scale.workers:
        raise ConfigError(
            f"{found} with scale.min_workers {scale.min_workers}: a state that is shared out among {scale.workers} "
            f"workers does not fit fewer. Leave scale.min_workers away, or take --scale.strategy ddp."
        )
    if recipe_for(config).optimizer == "lars":
        raise ConfigError(
            f"{found} with train.recipe {train.recipe}, whose LARS needs whole layers, which a worker does not have: "
            f"take --train.recipe adamw, or --scale.strategy ddp."
        )
    if train.compile:
        raise ConfigError(
            f"{found} with train.compile, which DeepSpeed's hooks break up: take --train.compile false, or "
            f"--scale.strategy ddp."
        )


def recipe_for(config: Config) -> Recipe:
    """How the configured method is optimised, without making it."""
    kind = method_class(config.train.method)
    return kind.recipe if config.train.recipe == "adamw" else kind.stock_recipe


def all_agree(agrees: bool, place: Place) -> bool:
    """Whether all workers say yes; every worker calls it."""
    if place.num_workers == 1:
        return agrees
    votes = torch.tensor(float(agrees), device=place.device)
    dist.all_reduce(votes, dist.ReduceOp.MIN)
    return bool(votes)

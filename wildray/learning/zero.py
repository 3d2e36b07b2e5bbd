"""A model that its workers share out: DeepSpeed ZeRO-1, 2 and 3 (arXiv 1910.02054).

In: a method and its optimiser. Out: the calls of ``strategy.Strategy``. ZeRO-1 shares out the optimizer's state, 2
gradients too, 3 weights too. Only this file imports DeepSpeed. Its own checkpoints are pickles, so each worker's part
is taken out as plain tensors; weights stay in float32 (bfloat16 is autocast's), so the optimizer's copy of them equals
them and need not be saved. On CPUs nothing is compiled: torch's optimizers and gloo do all.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wildray.config import Config
from wildray.learning.backbone import Backbone, new_backbone
from wildray.learning.batch import Batch
from wildray.learning.checkpoint import Shard, State
from wildray.learning.job import Place
from wildray.learning.methods import Method

BUCKET = 25 * 2**20 // 4
"""Numbers in a communication: DistributedDataParallel's 25 MB. DeepSpeed's own 5e8 reserve 2 GB on each worker."""
MAX_LIVE = 20_000_000
"""Weights that ZeRO-3 keeps gathered: 80 MB, two blocks of a ViT-Large. DeepSpeed's 1e9 never lets a ViT-Base go."""


class Zero:
    """ZeRO at the stage that ``scale.strategy`` names.

    Args:
        method: What is trained, whole and alike on every worker.
        optimizer: Over its parameters, elementwise, without a state yet.
        config: ``train`` and ``scale`` are read.
        place: Which worker this is.
        bf16: Whether the forward pass is in bfloat16.
        state: To go on from, where it has steps.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        *,
        config: Config,
        place: Place,
        bf16: bool,
        state: State,
    ) -> None:
        deepspeed = _deepspeed(place)
        self._method, self._place, self._config = method, place, config
        self._stage = int(config.scale.strategy.removeprefix("zero"))
        self.shard: Shard | None = Shard(config.scale.strategy, place.rank, place.num_workers)
        if state.step and self._stage < 3:
            # worker 0's file has the weights, which DeepSpeed sends to all; buffers are in every file
            method.load_state_dict(state.method, strict=False)
        for parameter in method.parameters():
            # DeepSpeed refuses channels_last, and flattens all; contiguous() leaves 1 x 1 convolutions their strides
            parameter.data = parameter.data.flatten().view(parameter.shape)
        if self._stage == 3:
            _keep_together(method)
        self._engine: Any = deepspeed.initialize(
            model=_Autocast(method, place.device.type, enabled=bf16),
            optimizer=optimizer,
            config=deepspeed_settings(config, place),
        )[0]
        self._share_masters()
        if state.step:
            self._load(state)

    def backward(self, batch: Batch, *, num_parts: int, last: bool) -> Tensor:
        """Add a part's share to the gradient. DeepSpeed counts the parts itself and divides by them."""
        loss: Tensor = self._engine(batch)
        self._engine.backward(loss)
        if not last:
            self._engine.step()  # only counts
        return loss.detach()

    def step(self, *, clip_norm: float) -> float:
        """Clip, step, forget the gradient; see ``Strategy.step``.

        DeepSpeed clips to the norm it was set up with, and takes no step where the norm is not finite.
        """
        assert clip_norm == self._config.train.clip_norm
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if self._engine.was_step_applied() else float("nan")

    def after_step(self, progress: float) -> None:
        """The method's ``after_step``, under ZeRO-3 on this worker's part of every parameter.

        So it may do to parameters only what treats each number by itself, as a moving average does.
        """
        with self._own_parts() if self._stage == 3 else contextlib.nullcontext():
            self._method.after_step(progress)

    def states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights (worker 0's file has them, under ZeRO-3 every file its part), buffers, and a part of the moments."""
        if self._stage == 3:
            weights = {name: parameter.ds_tensor.data for name, parameter in self._parameters()}
            weights |= dict(self._saved_buffers())
        else:
            weights = self._method.state_dict() if self._place.rank == 0 else dict(self._saved_buffers())
        with self._base_groups():
            return weights, self._engine.optimizer.optimizer.state_dict()

    def whole_backbone(self) -> Backbone | None:
        """The backbone on worker 0; under ZeRO-3 a copy, gathered tensor by tensor."""
        if self._stage < 3:
            return self._method.backbone if self._place.rank == 0 else None
        from deepspeed.runtime.zero import GatheredParameters

        first = self._place.rank == 0
        like = self._method.backbone
        backbone = new_backbone(like.name, like.image_size, pooling=like.pooling) if first else None
        wanted = {} if backbone is None else backbone.to(self._place.device).net.state_dict()
        with torch.no_grad():
            for name, buffer in like.net.named_buffers():
                if name in wanted:
                    wanted[name].copy_(buffer)
            for name, parameter in like.net.named_parameters():
                with GatheredParameters([parameter]):
                    if first:
                        wanted[name].copy_(parameter.data)
        return backbone

    def _share_masters(self) -> None:
        """Let the optimizer change the weights themselves, which are float32: its copy of them only takes memory.

        ZeRO-3 means to do so where both are of one kind, but compares a device with a device's name.
        """
        zero = self._engine.optimizer
        if self._stage == 3:
            copies, weights = zero.fp32_partitioned_groups_flat, zero.fp16_partitioned_groups_flat
        else:
            copies = zero.single_partition_of_fp32_groups
            weights = [parts[self._place.rank] for parts in zero.parallel_partitioned_bit16_groups]
        for copy, weight in zip(copies, weights, strict=True):
            assert copy.dtype == weight.dtype == torch.float32
            copy.data = weight.data
        if self._stage < 3:
            zero._link_all_hp_params()  # which held on to the copies

    def _load(self, state: State) -> None:
        with self._base_groups():
            self._engine.optimizer.optimizer.load_state_dict(state.optimizer)
        if self._stage < 3:
            return
        self._engine.optimizer._partition_all_parameters()  # else small ones stay whole, with the untrained weights
        for name, parameter in self._parameters():
            parameter.ds_tensor.data.copy_(state.method[name])
        for name, buffer in self._saved_buffers():
            buffer.copy_(state.method[name])
        self._engine.optimizer.refresh_fp32_params()

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self._method.named_parameters()

    def _saved_buffers(self) -> Iterator[tuple[str, Tensor]]:
        known = dict(self._method.named_buffers())
        for name in self._method.state_dict():
            if name in known:
                yield name, known[name]

    @contextlib.contextmanager
    def _base_groups(self) -> Iterator[None]:
        """Put ZeRO-3's parts into the groups of the optimizer within, where it keeps them only during a step."""
        if self._stage == 3:
            self._engine.optimizer._set_fp32_optimizer_param_groups()
        yield
        if self._stage == 3:
            self._engine.optimizer._clear_fp32_optimizer_param_groups()

    @contextlib.contextmanager
    def _own_parts(self) -> Iterator[None]:
        """Let every parameter be this worker's part of it; small ones, which DeepSpeed keeps whole, stay whole."""
        parameters = [parameter for _, parameter in self._parameters()]
        whole = [parameter.data.shape == parameter.ds_shape for parameter in parameters]
        kept = [parameter.data for parameter in parameters]
        for parameter, is_whole in zip(parameters, whole, strict=True):
            if not is_whole:
                parameter.data = parameter.ds_tensor.data
        yield
        for parameter, is_whole, data in zip(parameters, whole, kept, strict=True):
            if not is_whole:
                parameter.data = data
            elif not parameter.requires_grad:
                mine = parameter.ds_tensor.data
                flat = data.reshape(-1)[self._place.rank * mine.numel() :][: mine.numel()]
                mine[: flat.numel()].copy_(flat)


class _Autocast(nn.Module):
    """A method whose forward pass is in bfloat16: DeepSpeed switches off an autocast from outside."""

    def __init__(self, method: Method, device_type: str, *, enabled: bool) -> None:
        super().__init__()
        self.method, self._device_type, self._enabled = method, device_type, enabled

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._enabled):
            loss = self.method(batch)
        assert isinstance(loss, Tensor)
        return loss


def deepspeed_settings(config: Config, place: Place) -> dict[str, Any]:
    """The settings that DeepSpeed is initialised with."""
    train = config.train
    stage = int(config.scale.strategy.removeprefix("zero"))
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        # on CPUs there are no streams to overlap on, and the order of sums must not change between attempts
        "overlap_comm": False,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": MAX_LIVE,
            "stage3_max_reuse_distance": MAX_LIVE,
        }
    return {
        "train_micro_batch_size_per_gpu": train.batch_size // (place.num_workers * train.accumulate),
        "gradient_accumulation_steps": train.accumulate,
        "gradient_clipping": train.clip_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }


def _deepspeed(place: Place) -> Any:
    """The module, told of its device and made quiet."""
    os.environ.setdefault("DS_ACCELERATOR", place.device.type)
    os.environ.setdefault("LOCAL_RANK", str(place.rank))  # Ray sets it, and so does every launcher
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    # no shared-memory operation is compiled (36 s, and a compiler): only inference uses it
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def _keep_together(method: nn.Module) -> None:
    """Have ZeRO-3 gather at once a module whose children compute their weight in a hook before DeepSpeed's own.

    torch's weight_norm, which DINO's heads use, does; its two parameters would not be there yet.
    """
    from deepspeed.utils import set_z3_leaf_module

    for module in method.modules():
        if any(child._forward_pre_hooks for child in module.children()):
            set_z3_leaf_module(module, True)

"""Parts that methods share: projection heads, and a teacher that is a moving average.

In: dimensions. Out: modules that a method wires. The heads are lightly's; what is ours is a batch normalisation at the
end of SimCLR's, which moves small transformers off the plateau of a loss of ln(2B - 1). A teacher is a part of a method
here, not its base class: a method may have one of the backbone, of the head, or of both.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from lightly.models.modules import heads
from lightly.models.utils import update_momentum
from torch import Tensor, nn

Part = TypeVar("Part", bound=nn.Module)


def simclr_head(input_dim: int, *, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Two layers with batch normalisation (arXiv 2002.05709), the last one without scale and shift.

    Args:
        input_dim: Dimensions of the backbone's vector.
        hidden_dim: Of the hidden layer.
        output_dim: Of the projection.

    Returns:
        (B, input_dim) to (B, output_dim).
    """
    return nn.Sequential(
        heads.SimCLRProjectionHead(input_dim, hidden_dim, output_dim), nn.BatchNorm1d(output_dim, affine=False)
    )


def moco_head(input_dim: int, *, hidden_dim: int, output_dim: int, num_layers: int) -> heads.MoCoProjectionHead:
    """Layers with batch normalisation after each (arXiv 2104.02057, section 5): three project, two predict.

    The last one is without scale and shift, as in the authors' code; lightly's has both.
    """
    head = heads.MoCoProjectionHead(input_dim, hidden_dim, output_dim, num_layers=num_layers, batch_norm=True)
    head.layers[-1] = nn.BatchNorm1d(output_dim, affine=False)
    return head


def dino_head(input_dim: int, *, hidden_dim: int, output_dim: int, batch_norm: bool) -> heads.DINOProjectionHead:
    """Three layers, a bottleneck of 256 of unit length, and weight-normalised prototypes (arXiv 2104.14294)."""
    return heads.DINOProjectionHead(input_dim, hidden_dim, 256, output_dim, batch_norm=batch_norm)


def hold_still(layer: nn.Module, *, while_true: Callable[[], bool]) -> None:
    """Leave a layer's weights as they are as long as the condition holds.

    Their gradients are 0, so that they count in no norm, and ``optim.make_optimizer`` finds the condition at the layer:
    its optimiser takes no step with them and starts their moments when they are let go.
    """

    # a hook, and not requires_grad, which may not change under DistributedDataParallel
    def held(gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if while_true() else gradient

    for parameter in layer.parameters():
        if parameter.requires_grad:
            register: Callable[[Callable[[Tensor], Tensor]], object] = parameter.register_hook
            register(held)
    layer.stands_still = while_true  # type: ignore[assignment]  # a module's attributes are tensors and modules to mypy


class Teacher(nn.Module):
    """A copy of a network that follows it as an exponential moving average and takes no gradient.

    Args:
        network: What is followed; its weights at this moment are the teacher's.
        momentum: Share m of the teacher's weights kept in a step at the start of training; rises to 1 with a cosine.
        memory: The teacher is about the mean of the last 1 / (1 - m) networks; where those are more than this share of
            the run, m is lowered until they are not: a teacher too slow for a short run stays near its random start.
            None keeps m.

    Attributes:
        progress: Share of training () that was done at the last ``follow``.
        num_steps: How often () it has followed.
    """

    progress: Tensor
    num_steps: Tensor

    def __init__(self, network: nn.Module, *, momentum: float, memory: float | None = None) -> None:
        super().__init__()
        with torch.no_grad():
            self.network = copy.deepcopy(_without_derived(network))
        self.network.requires_grad_(False)
        self.momentum, self.memory = momentum, memory
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """What the followed network would give, without a gradient."""
        out = self.network(images)
        assert isinstance(out, Tensor)
        return out

    def part(self, kind: type[Part]) -> Part:
        """The teacher's copy of the only module of a kind, for methods that want more than ``forward`` gives."""
        (found,) = (module for module in self.network.modules() if isinstance(module, kind))
        return found

    def follow(self, network: nn.Module, progress: float) -> None:
        """Move towards the network's weights.

        Args:
            network: What is followed.
            progress: Share of training that is done, in [0, 1].
        """
        moved = 1 - self.momentum
        if self.memory is not None:
            moved = max(moved, min(1.0, (progress - float(self.progress)) / self.memory))
        update_momentum(network, self.network, m=1 - moved * (math.cos(math.pi * progress) + 1) / 2)
        self.progress.fill_(progress)
        self.num_steps += 1


def _without_derived(network: nn.Module) -> nn.Module:
    # torch's weight_norm leaves the product of its two parameters on the module, computed with a gradient, which
    # deepcopy refuses; it is computed anew before every forward
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())
    return network

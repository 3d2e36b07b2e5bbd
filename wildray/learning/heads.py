"""Parts that methods share: projection heads, and a teacher that is a moving average.

In: dimensions. Out: modules that a method wires. The heads are lightly's; what is ours is a batch normalisation at the
end of SimCLR's, which moves small transformers off the plateau of a loss of ln(2B - 1). A teacher is a part of a method
here, not its base class: a method may have one of the backbone, of the head, or of both.
"""

from __future__ import annotations

import copy
import math

import torch
from lightly.models.modules import heads
from lightly.models.utils import update_momentum
from torch import Tensor, nn


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


def dino_head(input_dim: int, *, hidden_dim: int, output_dim: int, batch_norm: bool) -> heads.DINOProjectionHead:
    """Three layers, a bottleneck of 256 of unit length, and weight-normalised prototypes (arXiv 2104.14294)."""
    return heads.DINOProjectionHead(input_dim, hidden_dim, 256, output_dim, batch_norm=batch_norm)


class Teacher(nn.Module):
    """A copy of a network that follows it as an exponential moving average and takes no gradient.

    Args:
        network: What is followed; its weights at this moment are the teacher's.
        momentum: Share of the teacher's weights kept in a step at the start of training; rises to 1 with a cosine.
    """

    def __init__(self, network: nn.Module, *, momentum: float) -> None:
        super().__init__()
        with torch.no_grad():
            self.network = copy.deepcopy(_without_derived(network))
        self.network.requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """What the followed network would give, without a gradient."""
        out = self.network(images)
        assert isinstance(out, Tensor)
        return out

    def follow(self, network: nn.Module, progress: float) -> None:
        """Move towards the network's weights.

        Args:
            network: What is followed.
            progress: Share of training that is done, in [0, 1].
        """
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        update_momentum(network, self.network, m=momentum)


def _without_derived(network: nn.Module) -> nn.Module:
    # torch's weight_norm leaves the product of its two parameters on the module, computed with a gradient, which
    # deepcopy refuses; it is computed anew before every forward
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())
    return network

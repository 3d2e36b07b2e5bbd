"""The network that turns a crop into a vector: any timm model, at any image size, normalising inside.

In: a name, an image size. Out: ``Backbone``, (B, 3, h, w) RGB in [0, 1] to (B, dim), all that a checkpoint gives to
retrieval; ``first_backbone`` has those of a configuration or a file. It is saved as safetensors under timm's own keys
with a header that says name, image size, pooling and dim, so timm reads it too. A pickled module would carry code.

Shapes: B images.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wildray.errors import ConfigError
from wildray.learning.networks import PoolingName, check_network, create_network
from wildray.learning.stored_weights import load_weights, pretrained_facts

FORMAT = "wildray-backbone-1"
"""Marks files that ``save`` wrote."""


class Backbone(nn.Module):
    """A timm model without its classifier.

    Args:
        name: timm's name of the model.
        image_size: Side of the square input in pixels.
        net: The model, made with ``num_classes=0``.
        mean: Mean of each colour over the data that the weights were made for, in [0, 1].
        std: Standard deviation likewise.
        pooling: How ``net`` was told to make a vector of its tokens.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        image_size: int,
        *,
        net: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pooling: PoolingName = "default",
    ) -> None:
        super().__init__()
        # a third less time per step of a ResNet-18 on a CPU, and never more
        net = net.to(memory_format=torch.channels_last)
        self.name, self.image_size, self.net, self.pooling = name, image_size, net, pooling
        self.dim = _output_dim(net, image_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) float RGB in [0, 1] to (B, dim)."""
        out = self.net(self.normalised(images))
        assert isinstance(out, Tensor)
        return out

    @property
    def is_transformer(self) -> bool:
        """Whether it has patches: one of timm's vision transformers, DeiT among them."""
        return isinstance(self.net, VisionTransformer)

    @property
    def patch_px(self) -> int:
        """Side of a transformer's patch in pixels; ConfigError for other networks."""
        side: int = self.transformer("patches").patch_embed.patch_size[0]
        return side

    def takes(self, size_px: int) -> bool:
        """Whether images of this side go through; transformers with windows take their own size alone."""
        try:
            _output_dim(self.net, size_px)
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    def freeze_patches(self, *, seed: int | None = None) -> None:
        """Keep a transformer's patch projection from learning (MoCo v3, arXiv 2104.02057, section 4.2).

        Args:
            seed: Draws the projection anew, as the authors' code does for random starts: Xavier's uniform distribution
                over a patch and its token. None keeps the weights that it has.

        Raises:
            ConfigError: The network is no transformer.
        """
        projection = self.transformer("patch projection to freeze (train.freeze_patches)").patch_embed.proj
        if seed is not None:
            bound = math.sqrt(6 / (projection.weight[0].numel() + len(projection.weight)))
            with torch.no_grad():
                projection.weight.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
                projection.bias.zero_()
        projection.requires_grad_(False)

    def recompute(self) -> None:
        """Compute activations again in the backward pass: about a third more time, far less memory.

        Batch normalisations then see each batch twice; the weights' gradients are the same.

        Raises:
            ConfigError: The network cannot.
        """
        enable = getattr(self.net, "set_grad_checkpointing", None)
        try:
            if enable is None:
                raise AssertionError("it has no gradient checkpointing")
            enable(True)
        except AssertionError as error:
            raise ConfigError(
                f"{self.name} cannot recompute its activations ({error}): leave train.recompute off, or take another "
                f"--backbone.name, such as vit_tiny_patch16_224 or resnet18."
            ) from None

    def save(self, path: Path) -> None:
        """Write the weights as safetensors with a header."""
        header = {
            "format": FORMAT,
            "name": self.name,
            "image_size": str(self.image_size),
            "pooling": self.pooling,
            "dim": str(self.dim),
        }
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.net.state_dict().items()}
        path.write_bytes(safetensors.torch.save(tensors, metadata=header))

    def digest(self) -> str:
        """16 hex digits of name, image size, pooling and every weight."""
        digest = hashlib.blake2b(f"{self.name} {self.image_size} {self.pooling}".encode(), digest_size=8)
        for key, value in sorted(self.net.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def normalised(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] as the network was made for."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def transformer(self, wanted: str) -> VisionTransformer:
        """The network, a ConfigError that says what is wanted of it where it is no vision transformer."""
        if not isinstance(self.net, VisionTransformer):
            raise ConfigError(
                f"{self.name} has no {wanted}, only vision transformers do: give --backbone.name, such as "
                f"vit_tiny_patch16_224, vit_small_patch14_dinov2 or deit_tiny_patch16_224."
            )
        return self.net


def new_backbone(
    name: str, image_size: int, *, seed: int = 0, pretrained: bool = False, pooling: PoolingName = "default"
) -> Backbone:
    """A backbone by name.

    Args:
        name: timm's name of the model, or one of ``networks.check_network``'s.
        image_size: Side of the square input in pixels; transformers get positions for it and take other sizes too.
        seed: Of the random weights; the caller's random state is left as it was.
        pretrained: Whether timm fetches the weights it knows.
        pooling: See ``BackboneConfig.pooling``.

    Raises:
        ConfigError: timm has no such model, or the model does not take this size or pooling.
        WeightsError: The weights cannot be fetched.
    """
    check_network(name, pooling)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create_network(name, image_size, pooling=pooling)
        if pretrained:
            fetched = create_network(name, image_size, pretrained=True)
            load_weights(net, fetched.state_dict(), name=name, origin="timm's hub")
    facts = pretrained_facts(net)
    mean, std = tuple(facts["mean"]), tuple(facts["std"])
    try:
        return Backbone(name, image_size, net=net, mean=mean, std=std, pooling=pooling)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{name} does not take images of {image_size} px (backbone.image_size): {error}. "
            f"Take a multiple of its patch or window size, such as {_taken_size(net, image_size)}."
        ) from None


def _output_dim(net: nn.Module, image_size: int) -> int:
    # num_features is not the width of the output in every timm model
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            out = net(next(net.parameters()).new_zeros(1, 3, image_size, image_size))
    finally:
        net.train(training)
    assert out.ndim == 2, f"a backbone gave {tuple(out.shape)}, expected (1, dim)"
    return int(out.shape[1])


def _taken_size(net: nn.Module, image_size: int) -> int:
    if not isinstance(net, VisionTransformer):
        return int(pretrained_facts(net)["input_size"][-1])
    patch_px: int = net.patch_embed.patch_size[0]
    return max(1, round(image_size / patch_px)) * patch_px

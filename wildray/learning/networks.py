"""Networks by name: timm's, and timm's vision transformers at patch sizes that it has no names for.

In: a name, an image size, a pooling. Out: a timm model without its classifier. timm names ViT-Tiny at patch 16 alone;
``vit_tiny_patch8_224`` is its network with another patch, which is an argument there and a name here, so that one name
says all about a file of weights. A registry of our own would fall behind timm's.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from wildray.errors import ConfigError, WeightsError, nearest

PoolingName = Literal["default", "token", "average", "average_batchnorm"]
POOLINGS = {"average": "avg", "average_batchnorm": "avg"}
"""``backbone.pooling`` in timm's words where those are others; an average is normalised after pooling, a class token
before."""
TRANSFORMER_MODULES = ("vision_transformer", "deit")
"""timm's modules whose models are ``VisionTransformer``."""
PATCH = re.compile(r"_patch(\d+)_")
NAMED_PATCH = "_patch16_"
"""The patch size under which timm has every vision transformer."""
PATCH_SIZES = (8, 14, 16, 32)
"""Sides of patches in pixels that published vision transformers have."""


def check_network(name: str, pooling: PoolingName = "default") -> None:
    """Refuse a name that nothing is made of, and a pooling that the network has not.

    Raises:
        ConfigError: timm has neither the model nor the same transformer at another patch size, or the network's
            pooling cannot be chosen.
    """
    known, _ = _of_timm(name)
    if not timm.is_model(known):
        raise ConfigError(f"timm has no model {name!r} (backbone.name). {nearest(name, timm.list_models())}")
    if pooling != "default" and known not in _transformers():
        raise ConfigError(
            f"backbone.pooling: got {pooling!r} for {name}, expected default: only vision transformers, such as "
            f"vit_tiny_patch16_224, have a class token or an average over patches to choose from."
        )


def create_network(
    name: str, image_size: int, *, pretrained: bool = False, pooling: PoolingName = "default"
) -> nn.Module:
    """A timm model without its classifier.

    Args:
        name: That ``check_network`` lets through.
        image_size: Side of the square input in pixels.
        pretrained: Whether timm fetches the weights it knows.
        pooling: Of a vision transformer.

    Raises:
        ConfigError: The model does not take this size, or has no class token to pool.
        WeightsError: The weights cannot be fetched.
    """
    known, arguments = _of_timm(name)
    if pretrained and known != name:
        raise WeightsError(f"timm has no weights of {name}: take --backbone.name {known}, or --backbone.weights none.")
    if pooling != "default":
        arguments["global_pool"] = POOLINGS.get(pooling, pooling)
    # transformers fix their positions at an image size; convolutional nets refuse the arguments
    sizes: tuple[dict[str, Any], ...] = (
        {"img_size": image_size, "dynamic_img_size": True},
        {"img_size": image_size},
        {},
    )
    for size in sizes:
        try:
            net = timm.create_model(known, pretrained=pretrained, num_classes=0, **size, **arguments)
        except TypeError:
            continue
        except (AssertionError, ValueError) as error:
            raise ConfigError(
                f"{name} cannot be made for images of {image_size} px (backbone.image_size) with backbone.pooling "
                f"{pooling}: {error}"
            ) from None
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"The weights of {name} cannot be fetched ({error}): take --backbone.weights none or a file."
            ) from None
        assert isinstance(net, nn.Module)
        if pooling == "average_batchnorm":
            assert isinstance(net, VisionTransformer)
            # layer normalisation leaves in what all images share, and a random transformer's have little else
            net.fc_norm = nn.BatchNorm1d(net.num_features, affine=False)
        return net
    raise ConfigError(f"{name} cannot be made without a classifier (backbone.name): take another model.")


def is_transformer(name: str) -> bool:
    """Whether a name is of one of timm's vision transformers, at any patch size."""
    return _of_timm(name)[0] in _transformers()


def plain_attention(network: nn.Module) -> None:
    """Compute attention step by step instead of by torch's fused kernel.

    On a CPU in bfloat16 a ViT-Tiny's step at 64 to 96 px is 1.5 to 1.7 times as fast so, and no slower in float32.
    """
    for module in network.modules():
        if "fused_attn" in vars(module):
            vars(module)["fused_attn"] = False


def _of_timm(name: str) -> tuple[str, dict[str, Any]]:
    """A network's name in timm, and what to tell timm besides."""
    found = PATCH.search(name)
    if timm.is_model(name) or found is None or int(found[1]) not in PATCH_SIZES:
        return name, {}
    known = PATCH.sub(NAMED_PATCH, name, count=1)
    return (known, {"patch_size": int(found[1])}) if known in _transformers() else (name, {})


@functools.cache
def _transformers() -> frozenset[str]:
    return frozenset(name for module in TRANSFORMER_MODULES for name in timm.list_models(module=module))

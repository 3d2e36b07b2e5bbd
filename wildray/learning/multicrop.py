"""Multi-crop (SwAV, arXiv 2006.09882; DINO, section 3): views of the whole animal, and small ones of parts of it.

In: the configuration, the backbone. Out: the views, and how many are global; one pass of a network per size of view.

Shapes: B samples on this worker, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.views import Views

LOCAL_SHARE = 96 / 224
"""Side of a local view as a share of a global one's, and the area of the crop it shows: DINO, section 3."""
LOCAL_AREA = (0.05, 0.4)
LEAST_LOCAL_PX = 32
"""Side of the smallest local view: convolutional nets halve the side five times."""
STEP_PX = 16
"""Local views of networks without patches have whole multiples of this."""


def multicrop_views(config: Config, backbone: Backbone, *, num_local: int) -> tuple[Views, int]:
    """Global views (of the pair's two crops, or of one), then local ones of the same crops in turn.

    Returns:
        The views, and the number of global ones.
    """
    views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size).views
    size_px = local_size_px(config.backbone.image_size, backbone)
    # of a part that is small already nothing more is blanked
    local = replace(views[0], size_px=size_px, min_area=LOCAL_AREA[0], max_area=LOCAL_AREA[1], erase=0.0)
    locals_ = tuple(replace(local, source=views[i % len(views)].source) for i in range(num_local))
    return Views(views + locals_), len(views)


def local_size_px(image_size: int, backbone: Backbone) -> int:
    """Side of a local view: whole patches; the global side where the network takes no other."""
    step_px = backbone.patch_px if backbone.is_transformer else STEP_PX
    least = -(-LEAST_LOCAL_PX // step_px)
    size_px = min(image_size, max(least, round(image_size * LOCAL_SHARE / step_px)) * step_px)
    return size_px if backbone.takes(size_px) else image_size


def by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """A network's outputs (B, ...) for each view (B, 3, h, w), neighbours of one size in one pass."""
    outputs: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[-1]):
        same = list(group)
        outputs += network(torch.cat(same)).chunk(len(same))
    return outputs

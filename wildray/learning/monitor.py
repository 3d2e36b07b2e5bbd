"""Whether the embeddings still tell images apart: their effective rank and their spread.

In: vectors of a fixed set of crops. Out: two numbers per epoch and a warning in words when they collapse. The loss
alone does not show it: DINO's falls, and SimCLR's stays at ln(2B - 1), which looks like a slow start.

Shapes: M crops, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from wildray.learning.backbone import Backbone

logger = logging.getLogger(__name__)

COLLAPSED_RANK = 1.5
"""A lower effective rank means that all crops give nearly one vector: 1 is one direction, D all directions alike."""
COLLAPSED_STD = 0.02
"""A lower spread means the same; 1 is a uniform distribution on the sphere, see ``embedding_std``."""


def effective_rank(vectors_md: Tensor) -> float:
    """Exponential of the entropy of the singular values (RankMe, arXiv 2210.02885, eq. 2) of unit vectors, not centred.

    Args:
        vectors_md: (M, D), any length.

    Returns:
        1 (all alike) to min(M, D).
    """
    singular = torch.linalg.svdvals(F.normalize(vectors_md.double(), dim=1))
    share = singular / singular.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def embedding_std(vectors_md: Tensor) -> float:
    """Spread of the unit vectors: root of the total variance, 0 (all alike) to 1 (mean zero, as if uniform)."""
    unit_md = F.normalize(vectors_md.double(), dim=1)
    return float(unit_md.var(dim=0, unbiased=False).sum().sqrt())


@torch.no_grad()
def embed_images(backbone: Backbone, images: Tensor, *, batch_size: int = 128) -> Tensor:
    """(M, D) float32 on the CPU of (M, 3, P, P) uint8 images; the backbone's mode is left as it was."""
    device = backbone.mean.device
    training = backbone.training
    backbone.eval()
    size = (backbone.image_size, backbone.image_size)
    out = []
    for part in torch.split(images, batch_size):
        resized = F.interpolate(part.to(device).float() / 255, size, mode="bilinear", antialias=True)
        out.append(backbone(resized).float().cpu())
    backbone.train(training)
    return torch.cat(out)


def spread(backbone: Backbone, images: Tensor) -> dict[str, float]:
    """``embedding_rank`` and ``embedding_std`` over a fixed set of crops (M, 3, P, P) uint8."""
    vectors = embed_images(backbone, images)
    return {"embedding_rank": effective_rank(vectors), "embedding_std": embedding_std(vectors)}


def collapse_warning(metrics: Mapping[str, float]) -> str | None:
    """What to tell the user when an epoch's embeddings have collapsed; None when they have not."""
    rank, std = metrics["embedding_rank"], metrics["embedding_std"]
    if rank >= COLLAPSED_RANK and std >= COLLAPSED_STD:
        return None
    return (
        f"THE EMBEDDINGS HAVE COLLAPSED: effective rank {rank:.2f} (below {COLLAPSED_RANK}) or spread {std:.3f} "
        f"(below {COLLAPSED_STD}): all crops look alike to the network, and more epochs seldom help. "
        f"Lower train.learning_rate, raise train.batch_size or method.temperature, take a smaller "
        f"backbone.image_size, or begin from pretrained weights (backbone.weights)."
    )

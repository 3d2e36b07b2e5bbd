"""Whether the embeddings still tell images apart: effective rank, spread, alignment and uniformity.

In: vectors of a fixed set of pairs. Out: four numbers per epoch and a warning in words when they collapse. The loss
alone does not show it: DINO's falls, and SimCLR's stays at ln(2B - 1), which looks like a slow start. Alignment alone
does not either: a collapsed network aligns perfectly.

Shapes: M pairs, N crops, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wildray.errors import StageError
from wildray.learning.backbone import Backbone
from wildray.learning.order import Int64
from wildray.learning.pairs import Samples

logger = logging.getLogger(__name__)

NUM_PAIRS = 128
"""Pairs whose vectors are measured: 256 crops, more than the rank of anything trained for an hour, and a second."""
COLLAPSED_RANK = 1.5
"""A lower effective rank means that all crops give nearly one vector: 1 is one direction, D all directions alike."""
COLLAPSED_STD = 0.02
"""A lower spread means the same; 1 is a uniform distribution on the sphere, see ``embedding_std``."""


def effective_rank(vectors_nd: Tensor) -> float:
    """Exponential of the entropy of the singular values (RankMe, arXiv 2210.02885, eq. 2) of unit vectors, not centred.

    Args:
        vectors_nd: (N, D), any length.

    Returns:
        1 (all alike) to min(N, D).
    """
    singular = torch.linalg.svdvals(F.normalize(vectors_nd.double(), dim=1))
    share = singular / singular.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def embedding_std(vectors_nd: Tensor) -> float:
    """Spread of the unit vectors: root of the total variance, 0 (all alike) to 1 (mean zero, as if uniform)."""
    unit_nd = F.normalize(vectors_nd.double(), dim=1)
    return float(unit_nd.var(dim=0, unbiased=False).sum().sqrt())


@torch.no_grad()
def embed_images(backbone: Backbone, images: Tensor, *, batch_size: int = 128) -> Tensor:
    """(N, D) float32 on the CPU of (N, 3, P, P) uint8 images; the backbone's mode is left as it was."""
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


def alignment(first_md: Tensor, second_md: Tensor) -> float:
    """Mean squared distance of the unit vectors of positive pairs (arXiv 2005.10242, section 4.1, alpha 2).

    Args:
        first_md: (M, D), any length.
        second_md: (M, D), row for row the positives of ``first_md``.

    Returns:
        0 (alike) to 4; 2 where pairs are no more alike than random directions.
    """
    gap_md = F.normalize(first_md.double(), dim=1) - F.normalize(second_md.double(), dim=1)
    return float(gap_md.square().sum(1).mean())


def uniformity(vectors_nd: Tensor) -> float:
    """Logarithm of the mean Gaussian potential of all two unit vectors (arXiv 2005.10242, section 4.1, t 2).

    Args:
        vectors_nd: (N, D), any length, N at least 2.

    Returns:
        0 (all alike) down to about -4 (uniform on the sphere).
    """
    distances = torch.pdist(F.normalize(vectors_nd.double(), dim=1))
    return float(torch.exp(-2 * distances.square()).mean().log())


def monitored_crops(samples: Samples, *, seed: int) -> Int64:
    """(2 M,) numbers of crops: M crops, then the positive of each; the same for the same seed.

    The positive is the sample's other crop, or, where samples are single images, the next image of the individual, or,
    where no individual has two, the crop itself.
    """
    chosen = np.random.default_rng([seed, 0x5EED]).permutation(len(samples))[:NUM_PAIRS]
    first, second = samples.crop[chosen].T
    if samples.labels is not None and np.array_equal(first, second):
        order = np.argsort(samples.labels, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        after = order[(place[chosen] + 1) % len(order)]
        before = order[place[chosen] - 1]
        same = samples.labels[after] == samples.labels[chosen]
        second = samples.crop[np.where(same, after, before), 0]
        kept = same | (samples.labels[before] == samples.labels[chosen])
        if kept.sum() > 1:
            first, second = first[kept], second[kept]
        else:
            second = first
    return np.concatenate([first, second]).astype(np.int64)


def health(backbone: Backbone, images: Tensor) -> dict[str, float]:
    """``embedding_rank``, ``embedding_std``, ``alignment`` and ``uniformity`` over a fixed set of pairs.

    There is no ``alignment`` where all crops are their own positives.

    Raises:
        StageError: The vectors are not finite.

    Args:
        backbone: As it stands.
        images: (2 M, 3, P, P) uint8, M crops and then their positives.
    """
    vectors = embed_images(backbone, images)
    if not bool(torch.isfinite(vectors).all()):
        raise StageError(
            "The backbone gives vectors that are not finite, though the loss still was: the weights have grown out of "
            "bounds. Begin another --run with a lower train.learning_rate or a longer train.warmup."
        )
    first, second = vectors.chunk(2)
    measured = {
        "embedding_rank": effective_rank(vectors),
        "embedding_std": embedding_std(vectors),
        "uniformity": (uniformity(first) + uniformity(second)) / 2,
    }
    if not torch.equal(*images.chunk(2)):
        measured["alignment"] = alignment(first, second)
    return measured


_CONTRASTIVE = "raise method.temperature or train.batch_size"
_TEACHER = "raise method.momentum"
HINTS = {
    "simclr": _CONTRASTIVE,
    "supcon": _CONTRASTIVE,
    "moco": f"{_CONTRASTIVE}, or {_TEACHER}",
    "byol": _TEACHER,
    "dino": f"{_TEACHER}, or lower method.temperature",
    "dinov2": f"{_TEACHER}, or lower method.temperature",
    "fastsiam": "raise train.batch_size",
    "barlow_twins": "raise train.batch_size or method.projection_dim",
    "vicreg": "raise train.batch_size or method.projection_dim",
    "lejepa": "raise train.batch_size",
    "triplet": "lower method.margin, since the hardest triplets pull everything together",
    "arcface": "lower method.margin or method.scale",
}
"""What to change first where a method collapses, by what its loss rests on."""


def collapse_warning(metrics: Mapping[str, float], *, method: str | None = None) -> str | None:
    """What to tell the user when an epoch's embeddings have collapsed; None when they have not.

    Args:
        metrics: Of the epoch.
        method: Its name, for a hint of its own.
    """
    rank, std = metrics["embedding_rank"], metrics["embedding_std"]
    if rank >= COLLAPSED_RANK and std >= COLLAPSED_STD:
        return None
    own = f" With {method}, {HINTS[method]}." if method in HINTS else ""
    return (
        f"THE EMBEDDINGS HAVE COLLAPSED: effective rank {rank:.2f} (below {COLLAPSED_RANK}) or spread {std:.3f} "
        f"(below {COLLAPSED_STD}): all crops look alike to the network, and more epochs seldom help.{own} "
        f"Lower train.learning_rate or lengthen train.warmup, take a smaller backbone.image_size or a lighter "
        f"backbone.name, leave train.freeze_patches on, or begin from pretrained weights (backbone.weights)."
    )

"""DINOv2 (arXiv 2304.07193): DINO on vectors, iBOT (arXiv 2111.07832) on hidden patches, KoLeo to spread the vectors.

In: as DINO, of a vision transformer alone. The student sees global views with patches hidden, the teacher sees them
whole. Out: DINO's loss, plus iBOT's (each hidden patch predicts what the teacher says of it), plus KoLeo's (the nearest
neighbour of every vector shall be far). DINO's and iBOT's losses are lightly's. KoLeo is ours: the authors take the
nearest vector among those of one GPU, which here would often be the same animal's and would depend on
``scale.workers``; ours takes it among all workers' samples of other tracklets. The centre of patches is the mean over
all workers' hidden patches, where lightly averages the means of workers with unequally many.

One head serves vectors and patches, as in iBOT: separate ones pay "at scale" alone (section 4).

Shapes: B samples on this worker, M on all, D dimensions of the backbone, K prototypes, N patches of a global view, V
views, G of them global, T hidden patches.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightly.loss import DINOLoss, IBOTPatchLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.utils.dist import world_size
from torch import Tensor, nn

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.gathering import gathered, gathered_facts
from wildray.learning.heads import dino_head, hold_still
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.methods.dino import (
    HIDDEN_DIM,
    NUM_LOCAL,
    NUM_PROTOTYPES,
    STUDENT_TEMPERATURE,
    dino_teacher,
    prototypes_stand_still,
    teacher_temperature,
)
from wildray.learning.multicrop import by_size, multicrop_views
from wildray.learning.optim import Recipe
from wildray.learning.patch_tokens import block_masks, vectors_and_patches

MOMENTUM = 0.992
"""Of the teacher at the start; this, the weight below and the recipe are the authors' ``ssl_default_config.yaml``."""
KOLEO_WEIGHT = 0.1
"""Of each global view's KoLeo loss; the others weigh 1."""
TINY = 1e-8
"""Keeps logarithms finite (lightly's KoLeoLoss)."""


class DINOv2(Method):
    """Student, teacher, two centres, a token for hidden patches."""

    recipe = Recipe("adamw", learning_rate=4e-3, weight_decay=0.04, scaling="sqrt", reference_batch=1024)
    # lightly's benchmark has none for convolutional nets, which this method does not take
    stock_recipe = recipe
    reads = frozenset({"temperature", "projection_dim", "hidden_dim", "momentum", "local_views"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        backbone.transformer("patch tokens, which train.method dinov2 trains with")
        if backbone.pooling == "average_batchnorm":
            raise ConfigError(
                "backbone.pooling: got average_batchnorm with train.method dinov2, expected token or average: the "
                "normalisation of its patches is that of its vector."
            )
        settings = config.method
        num_local = NUM_LOCAL if settings.local_views is None else settings.local_views
        self.views, self.num_global = multicrop_views(config, backbone, num_local=num_local)
        self.side = config.backbone.image_size // backbone.patch_px
        num_prototypes = settings.projection_dim or NUM_PROTOTYPES
        hidden_dim = settings.hidden_dim or HIDDEN_DIM
        self.head = dino_head(backbone.dim, hidden_dim=hidden_dim, output_dim=num_prototypes, batch_norm=False)
        self.mask_token = nn.Parameter(torch.zeros(backbone.dim))
        self.teacher = dino_teacher(nn.Sequential(backbone, self.head), settings, published=MOMENTUM)
        temperature = settings.temperature or STUDENT_TEMPERATURE
        self.vector_loss = DINOLoss(num_prototypes, student_temp=temperature)
        self.patch_loss = IBOTPatchLoss(num_prototypes, student_temp=temperature)
        self.patch_loss.center = SharedCenter(num_prototypes)
        hold_still(self.head.last_layer, while_true=lambda: prototypes_stand_still(self.teacher, config))

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batch; neighbours and centres are of all workers."""
        views, num_global = batch.views, self.num_global
        masks = block_masks(batch.seeds, num_views=num_global, side=self.side).to(views[0].device).flatten(0, 1)
        mask_bn = masks.flatten(1)
        images = torch.cat(views[:num_global])
        with torch.no_grad():
            wise_bd, wise_bnd = vectors_and_patches(self.teacher.part(Backbone), images)
            teacher_head = self.teacher.part(DINOProjectionHead)
            teacher_bk, teacher_tk = teacher_head(wise_bd), teacher_head(wise_bnd[mask_bn])
        global_bd, global_bnd = vectors_and_patches(
            self.backbone, images, mask_bn=mask_bn, mask_token_d=self.mask_token
        )
        local_bd = by_size(self.backbone, views[num_global:])
        student_bk, student_tk = self.head(torch.cat([global_bd, *local_bd])), self.head(global_bnd[mask_bn])
        temperature = teacher_temperature(self.teacher)
        with full_precision(student_bk):
            dtype = torch.promote_types(self.vector_loss.center.dtype, torch.float32)
            vectors = self.vector_loss(
                list(teacher_bk.to(dtype).chunk(num_global)),
                list(student_bk.to(dtype).chunk(len(views))),
                teacher_temp=temperature,
            )
            patches = self.patch_loss(teacher_tk.to(dtype), student_tk.to(dtype), masks, teacher_temp=temperature)
            tracklet_m = gathered_facts(batch.tracklet_id)
            spread = [koleo(gathered(view_bd), tracklet_m) for view_bd in global_bd.float().chunk(num_global)]
            loss = vectors + patches + KOLEO_WEIGHT * torch.stack(spread).sum()
        assert isinstance(loss, Tensor)
        return loss

    def after_step(self, progress: float) -> None:
        """Move the teacher; its momentum rises to 1 over training."""
        self.teacher.follow(nn.Sequential(self.backbone, self.head), progress)


class SharedCenter(nn.Module):
    """A moving average of the mean over the rows of all workers, of which each may have another number, or none.

    Args:
        num_prototypes: K.
        momentum: Share that is kept in a step (lightly's and the authors' default).
    """

    value: Tensor

    def __init__(self, num_prototypes: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_prototypes))

    @torch.no_grad()
    def update(self, x_tk: Tensor) -> None:
        """Move towards the mean of this and all other workers' rows."""
        sums = torch.cat([x_tk.sum(dim=0), x_tk.new_full((1,), float(len(x_tk)))])
        if world_size() > 1:
            dist.all_reduce(sums)
        total_k, num = sums[:-1], sums[-1]
        share = torch.where(num > 0, 1 - self.momentum, 0.0)
        self.value.lerp_(total_k.div(num.clamp(min=1)).to(self.value), share.to(self.value))


def koleo(z_md: Tensor, tracklet_m: Tensor) -> Tensor:
    """Kozachenko and Leonenko's estimate of entropy, negated (arXiv 1806.03198; DINOv2, section 4).

    Args:
        z_md: (M, D) float.
        tracklet_m: (M,) int64; samples of one tracklet are one animal, and no neighbours.

    Returns:
        Mean () of -log of each unit vector's distance from the nearest of another tracklet; 0 where there is one
        tracklet.
    """
    z_md = F.normalize(z_md, dim=1, eps=TINY)
    same_mm = tracklet_m.unsqueeze(0) == tracklet_m.unsqueeze(1)
    nearest_m = (z_md @ z_md.T).masked_fill(same_mm, -2).argmax(dim=1)
    loss_m = -(F.pairwise_distance(z_md, z_md[nearest_m], eps=TINY) + TINY).log()
    alone_m = same_mm.all(dim=1)
    return loss_m.masked_fill(alone_m, 0).sum() / (~alone_m).sum().clamp(min=1)

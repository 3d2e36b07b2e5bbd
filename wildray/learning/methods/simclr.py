"""SimCLR (arXiv 2002.05709): the views of a sample attract, those of other animals repel.

In: two or more views. Out: the NT-Xent loss over the batches of all workers, with what facts say of the negatives. The
head is lightly's.

Shapes: B samples on this worker, V views, D dimensions of the backbone, P of the projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.contrast import RULES, Rules, known_of, multi_view_nt_xent
from wildray.learning.heads import simclr_head
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views


class SimCLR(Method):
    """One backbone, one head."""

    negatives = True
    # no ViT recipe of it is published: rate and temperature are of docs/vit.md, the decay is DeiT's (2012.12877)
    recipe = Recipe("adamw", learning_rate=1e-3, weight_decay=0.05, scaling="sqrt", reference_batch=64)
    # lightly's benchmark: 0.075 * sqrt(batch)
    stock_recipe = Recipe("lars", learning_rate=1.2, weight_decay=1e-6, scaling="sqrt", reference_batch=256)
    reads = RULES | frozenset({"temperature", "projection_dim", "hidden_dim"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        self.head = simclr_head(
            backbone.dim, hidden_dim=settings.hidden_dim or 2048, output_dim=settings.projection_dim or 128
        )
        self.rules = Rules.of(settings)
        self.temperature = settings.temperature or 0.2

    def forward(self, batch: Batch) -> Tensor:
        """NT-Xent loss () of the batch; negatives come from all workers."""
        # one pass over all views: fewer kernel launches, and batch normalisation over all
        z_vbp = self.head(self.backbone(torch.cat(batch.views))).unflatten(0, (len(batch.views), -1))
        with full_precision(z_vbp):
            z_bvp = z_vbp.float().transpose(0, 1)
            return multi_view_nt_xent(z_bvp, known_of(batch), rules=self.rules, temperature=self.temperature)

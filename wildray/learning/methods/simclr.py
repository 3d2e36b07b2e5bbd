"""SimCLR (arXiv 2002.05709): a pair's two views attract, all other views of the batch repel.

In: two views. Out: the NT-Xent loss over the batches of all workers. The loss and the head are lightly's.

Shapes: B samples on this worker, D dimensions of the backbone, P of the projection.
"""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.heads import simclr_head
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views


class SimCLR(Method):
    """Two views, one backbone, one head."""

    recipe = Recipe("adamw", learning_rate=1e-3, weight_decay=0.05, scaling="sqrt", reference_batch=64)
    stock_recipe = Recipe("lars", learning_rate=1.2, weight_decay=1e-6, scaling="sqrt", reference_batch=256)

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        self.head = simclr_head(
            backbone.dim, hidden_dim=settings.hidden_dim or 2048, output_dim=settings.projection_dim or 128
        )
        self.loss = NTXentLoss(temperature=settings.temperature or 0.2, gather_distributed=True)

    def forward(self, batch: Batch) -> Tensor:
        """NT-Xent loss () of the batch; negatives come from all workers."""
        # one pass over both views: half the kernel launches, and batch normalisation over both
        h_2bd = self.backbone(torch.cat(batch.views))
        z_2bp = self.head(h_2bd)
        with full_precision(z_2bp):
            z0_bp, z1_bp = z_2bp.float().chunk(2)
            loss = self.loss(z0_bp, z1_bp)
        assert isinstance(loss, Tensor)
        return loss

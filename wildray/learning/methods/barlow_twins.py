"""Barlow Twins (arXiv 2103.03230): the cross-correlation of two views' projections is drawn towards the identity.

In: V >= 2 views, every two of them positives. Out: Barlow Twins' loss, the mean over unordered pairs of views. Loss and
head are lightly's. Its ``gather_distributed`` sums the workers' cross-correlations, but each worker standardises its
own B vectors: at W workers that is another loss than the joined batch's. Here the vectors themselves are gathered,
W * B x P numbers instead of P x P, which is less too.

Shapes: B samples on this worker, W workers, V views, P dimensions of the projection.
"""

from __future__ import annotations

from itertools import combinations

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.gathering import gathered
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views

REDUNDANCY = 5e-3
"""Weight of the off-diagonal terms (section 2.2; algorithm 1's lambda, and lightly's benchmark)."""
HEAD_DIM = 2048
"""Of all three layers, as in solo-learn's recipe for ImageNet-100. The paper's 8192 makes 136 million weights, 25 times
ViT-Tiny's; its figure 4 has larger projections better, so take ``method.projection_dim 8192`` where memory allows."""


class BarlowTwins(Method):
    """Views, one backbone, one head.

    ``recipe``: no ViT recipe was published; it is LeJEPA's for ViT-S (its MINIMAL.md: 2e-3 at a batch of 256, decay
    0.05), a method of the same kind: one network, a projector with batch normalisation, no teacher. The root rule for
    AdamW is of arXiv 2205.10287. ``stock_recipe``: lightly's benchmark, with 0.0048 for biases and norms.
    """

    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.05, scaling="sqrt", reference_batch=256)
    stock_recipe = Recipe("lars", learning_rate=0.2, weight_decay=1.5e-6, exempt_share=0.024)
    reads = frozenset({"projection_dim", "hidden_dim"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        self.head = BarlowTwinsProjectionHead(
            backbone.dim, settings.hidden_dim or HEAD_DIM, settings.projection_dim or HEAD_DIM
        )
        self.loss = BarlowTwinsLoss(lambda_param=REDUNDANCY)

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the whole batch, equal on all workers; its gradient is of this worker's samples."""
        # one pass over all views, as in lightly's benchmark: batch normalisation is over all of them
        z_vb_p = self.head(self.backbone(torch.cat(batch.views)))
        with full_precision(z_vb_p):
            z_vbp = [gathered(z_bp) for z_bp in z_vb_p.float().chunk(len(batch.views))]
            losses = [self.loss(a_bp, b_bp) for a_bp, b_bp in combinations(z_vbp, 2)]
            return torch.stack(losses).mean()

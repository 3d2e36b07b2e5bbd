"""VICReg (arXiv 2105.04906): views of a pair agree, every dimension keeps its spread, no two dimensions say the same.

In: V >= 2 views, every two of them positives. Out: VICReg's loss, the mean over unordered pairs of views. Loss and head
are lightly's, which gathers the vectors for variance and covariance with gradient and takes the invariance of this
worker's own; averaged over workers that is the loss of the joined batch. As the authors' code does, and unlike equation
5, the invariance is the mean over dimensions too.

Shapes: B samples on this worker, V views, P dimensions of the projection.
"""

from __future__ import annotations

from itertools import combinations

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the three terms (section 4.2)."""
HEAD_DIM = 2048
"""Of all three layers; the paper's 8192 is for ResNet-50, see barlow_twins."""


class VICReg(Method):
    """Views, one backbone, one head.

    ``recipe``: LeJEPA's for ViT-S, as in Barlow Twins; VICReg's variance and covariance are the first two moments of
    what LeJEPA holds to a Gaussian. ``stock_recipe``: lightly's benchmark.
    """

    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.05, scaling="sqrt", reference_batch=256)
    stock_recipe = Recipe("lars", learning_rate=0.2, weight_decay=1e-6)
    reads = frozenset({"projection_dim", "hidden_dim"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        self.head = VICRegProjectionHead(
            backbone.dim, settings.hidden_dim or HEAD_DIM, settings.projection_dim or HEAD_DIM
        )
        self.loss = VICRegLoss(lambda_param=INVARIANCE, mu_param=VARIANCE, nu_param=COVARIANCE, gather_distributed=True)

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batch; variance and covariance are over all workers' samples."""
        # one pass over all views, as in lightly's benchmark: batch normalisation is over all of them
        z_vb_p = self.head(self.backbone(torch.cat(batch.views)))
        with full_precision(z_vb_p):
            z_vbp = z_vb_p.float().chunk(len(batch.views))
            losses = [self.loss(a_bp, b_bp) for a_bp, b_bp in combinations(z_vbp, 2)]
            return torch.stack(losses).mean()

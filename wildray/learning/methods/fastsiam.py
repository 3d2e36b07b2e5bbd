"""FastSiam (GCPR 2022, doi 10.1007/978-3-031-16788-1_4): SimSiam whose target is the mean over several views.

In: V views. Out: negative cosine similarity between each view's prediction and the mean projection of its targets,
which takes no gradient. Heads and similarity are lightly's. SimSiam (arXiv 2011.10566) is this with one target; a mean
of several is steadier, and small batches learn from it.

Shapes: B samples on this worker, V views, P dimensions of the projection.
"""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import View, Views

NUM_VIEWS = 4
"""A prediction and three targets: the paper's choice, and lightly's FastSiamTransform."""
HEAD_DIM = 2048
"""Of the projector's layers (SimSiam, section 3)."""
BOTTLENECK = 4
"""The predictor's hidden layer has a quarter of its output's dimensions (SimSiam, section 3: 512 of 2048)."""


class FastSiam(Method):
    """Four views, one backbone, a projector, a predictor. Twice the computing of a method of two views.

    self: four views of one crop, the targets of each are the three others. temporal: two views of each crop, the
    targets are the two of the other crop, so that all positives span time. combined: the same views, the targets are
    the three others.

    ``recipe``: DINO's for ViTs (arXiv 2104.14294, section 4: 2e-3 at a batch of 1,024, decay 0.04) with the root rule
    for AdamW (arXiv 2205.10287); for this method none was published. ``stock_recipe``: lightly's benchmark.
    """

    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.04, scaling="sqrt", reference_batch=1024)
    stock_recipe = Recipe("sgd", learning_rate=0.05, weight_decay=1e-4)
    reads = frozenset({"projection_dim", "hidden_dim"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings, kind = config.method, config.train.views
        sources = [i % 2 if kind != "self" else 0 for i in range(NUM_VIEWS)]
        size_px = config.backbone.image_size
        self.views = Views(tuple(View.of_config(config.augment, source=source, size_px=size_px) for source in sources))
        self.targets = [
            [j for j in range(NUM_VIEWS) if (sources[j] != sources[i] if kind == "temporal" else j != i)]
            for i in range(NUM_VIEWS)
        ]
        output_dim = settings.projection_dim or HEAD_DIM
        self.head = SimSiamProjectionHead(backbone.dim, settings.hidden_dim or HEAD_DIM, output_dim)
        self.predictor = SimSiamPredictionHead(output_dim, max(1, output_dim // BOTTLENECK), output_dim)
        self.similarity = NegativeCosineSimilarity()

    def forward(self, batch: Batch) -> Tensor:
        """Mean loss () of this worker's samples, in [-1, 1]."""
        z_vb_p = self.head(self.backbone(torch.cat(batch.views)))
        predicted_vb_p = self.predictor(z_vb_p)
        with full_precision(predicted_vb_p):
            z_vbp = torch.stack(z_vb_p.detach().float().chunk(NUM_VIEWS))
            predicted_vbp = predicted_vb_p.float().chunk(NUM_VIEWS)
            losses = [
                self.similarity(predicted_bp, z_vbp[targets].mean(dim=0))
                for predicted_bp, targets in zip(predicted_vbp, self.targets, strict=True)
            ]
            return torch.stack(losses).mean()

"""BYOL (arXiv 2006.07733): a student's view predicts what a moving-average teacher says of another view.

In: V >= 2 views, every two of them positives. Out: 2 - 2 cos between prediction and target, the mean over ordered pairs
of views. Heads, similarity and momentum are lightly's. Nothing but the predictor, the stop-gradient and the slow
teacher keeps it from collapse: there are no negatives, so two samples of one animal in a batch do no harm.

Shapes: B samples on this worker, V views, P dimensions of the projection.
"""

from __future__ import annotations

from itertools import permutations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.heads import Teacher
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views

HIDDEN_DIM, OUTPUT_DIM = 4096, 256
"""Of projector and predictor (section 3.3)."""
MOMENTUM = 0.996
"""Of the teacher at the start (section 3.3), for 1,000 epochs. The authors' code and lightly's benchmark take 0.99 for
100, a share of the run that ``TEACHER_MEMORY`` keeps for short runs."""
TEACHER_MEMORY = 0.1
"""Longest memory of the teacher as a share of a run: 0.97 for 300 steps, 0.99 for 1,000, 0.996 from 2,500."""


class BYOL(Method):
    """Student, predictor, teacher.

    A teacher of momentum m is about the mean of the last 1 / (1 - m) students; one too slow for the run stays near its
    random start. So the published momentum is lowered for runs of less than 2,500 steps, see ``TEACHER_MEMORY``;
    ``method.momentum`` is taken as it is. The paper's table 5a learns with anything from 0.9 to 0.999.

    ``recipe``: DINO's for ViTs (section 4: 5e-4 at 256 linearly, so 2e-3 at its 1,024; decay 0.04), the published
    recipe of a student with a moving-average teacher, with the root rule for AdamW (arXiv 2205.10287) from there.
    ``stock_recipe``: lightly's benchmark.
    """

    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.04, scaling="sqrt", reference_batch=1024)
    stock_recipe = Recipe("lars", learning_rate=0.45, weight_decay=1e-6)
    reads = frozenset({"projection_dim", "hidden_dim", "momentum"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        hidden_dim, output_dim = settings.hidden_dim or HIDDEN_DIM, settings.projection_dim or OUTPUT_DIM
        self.head = BYOLProjectionHead(backbone.dim, hidden_dim, output_dim)
        self.predictor = BYOLPredictionHead(output_dim, hidden_dim, output_dim)
        self.teacher = Teacher(
            nn.Sequential(backbone, self.head),
            momentum=MOMENTUM if settings.momentum is None else settings.momentum,
            memory=TEACHER_MEMORY if settings.momentum is None else None,
        )
        self.similarity = NegativeCosineSimilarity()

    def forward(self, batch: Batch) -> Tensor:
        """Mean loss () of this worker's samples, in [0, 4]."""
        images, num_views = torch.cat(batch.views), len(batch.views)
        target_vb_p = self.teacher(images)
        predicted_vb_p = self.predictor(self.head(self.backbone(images)))
        with full_precision(predicted_vb_p):
            target_vbp = target_vb_p.float().chunk(num_views)
            predicted_vbp = predicted_vb_p.float().chunk(num_views)
            losses = [
                2 + 2 * self.similarity(predicted_vbp[i], target_vbp[j]) for i, j in permutations(range(num_views), 2)
            ]
            return torch.stack(losses).mean()

    def after_step(self, progress: float) -> None:
        """Move the teacher; its momentum rises to 1 over training."""
        self.teacher.follow(nn.Sequential(self.backbone, self.head), progress)

"""SupCon (arXiv 2004.11362): all views of an individual attract, those of all others repel.

In: two augmented views of every labelled image (section 3.2; whatever ``train.views`` says), identities. Out: the loss
L_out (equation 2) over the batches of all workers, by pytorch-metric-learning. Every worker computes the loss of the
joined batch: the mean over workers is that loss, gathering hands every gradient back to the worker it belongs to, and
some hundred vectors cost nothing beside a backbone.

Shapes: B samples on this worker, W workers, P dimensions of the projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.gathering import gathered, gathered_facts
from wildray.learning.heads import simclr_head
from wildray.learning.methods.base import Method, full_precision, labels_of
from wildray.learning.optim import Recipe
from wildray.learning.views import Views


class SupCon(Method):
    """One backbone, SimCLR's head."""

    supervised = True
    # no recipe for transformers is published; SimCLR's, of which it is the supervised form
    recipe = Recipe("adamw", learning_rate=1e-3, weight_decay=0.05, scaling="sqrt", reference_batch=64)
    # the authors' code, README: SGD, 0.5 at a batch of 1024, weight decay 1e-4
    stock_recipe = Recipe("sgd", learning_rate=0.5, weight_decay=1e-4, reference_batch=1024)
    reads = frozenset({"temperature", "projection_dim", "hidden_dim"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        # here: the library takes a second to import, in every process that knows the methods
        from pytorch_metric_learning.losses import SupConLoss
        from pytorch_metric_learning.reducers import MeanReducer

        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind="self", size_px=config.backbone.image_size)
        self.head = simclr_head(
            backbone.dim, hidden_dim=settings.hidden_dim or 2048, output_dim=settings.projection_dim or 128
        )
        # 0.1: section 4.4. The mean is over all anchors; the library's default counts those with a loss above 0
        self.loss = SupConLoss(temperature=settings.temperature or 0.1, reducer=MeanReducer())

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batches of all workers."""
        z_2bp = self.head(self.backbone(torch.cat(batch.views)))
        with full_precision(z_2bp):
            labels = labels_of(batch).repeat(len(batch.views))
            loss = self.loss(gathered(z_2bp.float()), gathered_facts(labels))
        assert isinstance(loss, Tensor)
        return loss

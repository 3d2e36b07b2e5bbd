"""Triplet loss (FaceNet, arXiv 1503.03832): another image of an individual is nearer than any of another one's.

In: one augmented view of every labelled image (whatever ``train.views`` says), identities. Out: the mean of the
triplets' losses (equation 3, with cosine distances) over the batches of all workers, by pytorch-metric-learning.
Triplets are semi-hard (section 3.2): the negative is farther than the positive, by less than the margin; the hardest
negatives of a batch draw a network that has learned nothing yet into one point. Every worker computes the loss of the
joined batch: triplets span workers, the mean is over all of them, and gathering hands the gradients back.

Shapes: B samples on this worker, D dimensions of the backbone.
"""

from __future__ import annotations

from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.gathering import gathered, gathered_facts
from wildray.learning.methods.base import Method, full_precision, labels_of
from wildray.learning.optim import Recipe
from wildray.learning.views import View, Views

MARGIN = 0.2
"""Of cosine distance: what pytorch-metric-learning's MNIST example takes with this miner and this distance."""


class Triplet(Method):
    """One backbone; its own vector is compared."""

    supervised = True
    # DeiT (arXiv 2012.12877, table 9): 5e-4 * batch / 512 at a batch of 1024; by the square root below it (2205.10287)
    recipe = Recipe("adamw", learning_rate=1e-3, weight_decay=0.05, scaling="sqrt", reference_batch=1024)
    # Hermans et al. (arXiv 1703.07737, section 4): Adam, 3e-4 at a batch of 18 x 4
    stock_recipe = Recipe("adamw", learning_rate=3e-4, weight_decay=0.0, scaling="sqrt", reference_batch=72)
    reads = frozenset({"margin"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        # here: the library takes a second to import, in every process that knows the methods
        from pytorch_metric_learning.distances import CosineSimilarity
        from pytorch_metric_learning.losses import TripletMarginLoss
        from pytorch_metric_learning.miners import TripletMarginMiner
        from pytorch_metric_learning.reducers import MeanReducer

        super().__init__(backbone, config, num_identities=num_identities)
        self.views = Views((View.of_config(config.augment, source=0, size_px=config.backbone.image_size),))
        margin = MARGIN if config.method.margin is None else config.method.margin
        self.miner = TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=CosineSimilarity())
        self.loss = TripletMarginLoss(margin=margin, distance=CosineSimilarity(), reducer=MeanReducer())

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batches of all workers; 0 where they hold no semi-hard triplet."""
        h_bd = self.backbone(batch.views[0])
        with full_precision(h_bd):
            vectors, labels = gathered(h_bd.float()), gathered_facts(labels_of(batch))
            loss = self.loss(vectors, labels, self.miner(vectors, labels))
        assert isinstance(loss, Tensor)
        return loss

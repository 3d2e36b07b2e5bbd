"""ArcFace (arXiv 1801.07698): classify individuals by the angle to their centres, with an additive margin.

In: one augmented view of every labelled image (section 3.1; whatever ``train.views`` says), identities. Out: the
mean loss (equation 3) of this worker's images, by pytorch-metric-learning. The vector is the backbone's own, without a
layer behind it, since that is what is compared afterwards; MegaDescriptor (arXiv 2311.09118) does so too.

Shapes: B samples on this worker, D dimensions of the backbone.
"""

from __future__ import annotations

from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.methods.base import Method, full_precision, labels_of
from wildray.learning.optim import Recipe
from wildray.learning.views import View, Views

MARGIN_DEG = 28.6
"""0.5 radians: section 3.1, and the best of MegaDescriptor's search, as is the scale of 64."""
SCALE = 64.0


class ArcFace(Method):
    """One backbone, a centre for every individual."""

    supervised = True
    # DeiT (arXiv 2012.12877, table 9): 5e-4 * batch / 512 at a batch of 1024; by the square root below it (2205.10287)
    recipe = Recipe("adamw", learning_rate=1e-3, weight_decay=0.05, scaling="sqrt", reference_batch=1024)
    # section 3.1: SGD with momentum 0.9, 0.1 at a batch of 512, weight decay 5e-4
    stock_recipe = Recipe("sgd", learning_rate=0.1, weight_decay=5e-4, reference_batch=512)
    reads = frozenset({"margin", "scale"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        # here: the library takes a second to import, in every process that knows the methods
        from pytorch_metric_learning.losses import ArcFaceLoss
        from pytorch_metric_learning.reducers import MeanReducer

        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views((View.of_config(config.augment, source=0, size_px=config.backbone.image_size),))
        self.loss = ArcFaceLoss(
            num_identities,
            backbone.dim,
            margin=MARGIN_DEG if settings.margin is None else settings.margin,
            scale=settings.scale or SCALE,
            reducer=MeanReducer(),  # the library's default leaves out images whose loss has become 0
        )

    def forward(self, batch: Batch) -> Tensor:
        """Mean loss () of this worker's images."""
        h_bd = self.backbone(batch.views[0])
        with full_precision(h_bd):
            # the library gives the centres the vectors' type, behind an optimiser's back
            loss = self.loss(h_bd.to(self.loss.W.dtype), labels_of(batch))
        assert isinstance(loss, Tensor)
        return loss

"""MoCo (arXiv 1911.05722; v3: 2104.02057): a query finds its key among other animals' keys.

In: two or more views. Out: the NT-Xent loss of every view's query with the key of each other view. Keys come from a
moving average of backbone and head. Wiring and heads are v3's, which suits transformers: a predictor behind the
queries, keys of the same view of the rest of the batch as negatives. Former keys are further negatives as in v1 and v2
(``method.queue_size``), each with the facts of its crop, so that no key of the query's own tracklet repels it: a queue
longer than the data set does no harm. v3 scales its loss by 2 t, which neither AdamW nor LARS notices; ours is not.

v1 shuffles samples between devices, since statistics of its batch normalisation are each device's own and tell which
key is the query's. Here they are those of all workers, for queries and for keys, and there is nothing to hide.

Shapes: B samples on this worker, M on all, V views, Q length of the queue, P dimensions of the projection.
"""

from __future__ import annotations

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.contrast import RULES, KeyQueue, Known, Rules, known_of, nt_xent, relations
from wildray.learning.gathering import first_row, gathered_facts
from wildray.learning.heads import Teacher, moco_head
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import Views

QUEUE_SIZE = 4096
"""lightly's example of MoCo; the 65,536 of v2 are of a data set of 1.3 million images."""


class MoCo(Method):
    """Backbone, head and predictor; a moving average of the first two; a queue, equal on all workers."""

    negatives = True
    # v3, section 5: 1.5e-4 * batch / 256 at a batch of 4096; by the square root below it, as suits Adam (2205.10287)
    recipe = Recipe("adamw", learning_rate=2.4e-3, weight_decay=0.1, scaling="sqrt", reference_batch=4096)
    stock_recipe = Recipe("sgd", learning_rate=0.03, weight_decay=1e-4)
    reads = RULES | frozenset({"temperature", "projection_dim", "hidden_dim", "momentum", "queue_size"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size)
        # v3 has hidden layers of 4096, three times the weights of a small backbone; 2048 are v2's
        hidden_dim, output_dim = settings.hidden_dim or 2048, settings.projection_dim or 256
        self.head = moco_head(backbone.dim, hidden_dim=hidden_dim, output_dim=output_dim, num_layers=3)
        self.predictor = moco_head(output_dim, hidden_dim=hidden_dim, output_dim=output_dim, num_layers=2)
        momentum = 0.99 if settings.momentum is None else settings.momentum  # v3, section 4
        self.teacher = Teacher(nn.Sequential(backbone, self.head), momentum=momentum)
        self.rules, self.temperature = Rules.of(settings), settings.temperature or 0.2  # v2 and v3
        size = QUEUE_SIZE if settings.queue_size is None else settings.queue_size
        self.queue = KeyQueue(size, output_dim)

    def forward(self, batch: Batch) -> Tensor:
        """NT-Xent loss () of the batch against keys of all workers and former ones."""
        images, num_views = torch.cat(batch.views), len(batch.views)
        q_vbp = self.predictor(self.head(self.backbone(images))).unflatten(0, (num_views, -1))
        k_vbp = self.teacher(images).unflatten(0, (num_views, -1))
        with full_precision(q_vbp):
            known = known_of(batch)
            k_mvp = gathered_facts(F.normalize(k_vbp.float(), dim=2).transpose(0, 1))
            loss = self.loss(q_vbp.float(), k_mvp, known)
            if self.training:
                self.queue.push(k_mvp.flatten(0, 1), known)
        return loss

    def loss(self, q_vbp: Tensor, k_mvp: Tensor, known: Known) -> Tensor:
        """Mean over the ordered pairs of views of the loss () of one's queries with the other's keys."""
        num_views, num_samples = q_vbp.shape[:2]
        first = first_row(num_samples) * num_views
        mine = known.rows(slice(first, first + num_samples * num_views))
        positive, negative = (
            mask.view(num_samples, num_views, -1, num_views) for mask in relations(mine, known, self.rules)
        )
        former = self.queue.negatives(mine, self.rules).view(num_samples, num_views, -1)
        keys = self.queue.keys.float().clone()  # the backward pass needs them after push has changed them
        terms = [
            nt_xent(
                q_vbp[v],
                torch.cat([k_mvp[:, w], keys]),
                torch.cat([positive[:, v, :, w], torch.zeros_like(former[:, v])], dim=1),
                torch.cat([negative[:, v, :, w], former[:, v]], dim=1),
                temperature=self.temperature,
            )
            for v, w in permutations(range(num_views), 2)
        ]
        return torch.stack(terms).mean()

    def after_step(self, progress: float) -> None:
        """Move the teacher; its momentum rises to 1 over training."""
        self.teacher.follow(nn.Sequential(self.backbone, self.head), progress)

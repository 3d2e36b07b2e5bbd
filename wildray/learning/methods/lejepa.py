"""LeJEPA (arXiv 2511.08544): every view lies near the mean of the global ones, and all together are a Gaussian.

In: V >= 2 global views, every two of them positives, and ``method.local_views`` small ones (none by default). Out:
(1 - lambda) * prediction + lambda * SIGReg. Prediction, SIGReg and head are lightly's. There is no teacher,
no stop-gradient and no negative; SIGReg compares characteristic functions along random directions. lightly draws those
from the process's random state and sends worker 0's; here that state is a function of (seed, step), so that directions
are equal for any number of workers and after a resume, whatever else drew random numbers before.

Shapes: B samples on this worker, V views, P dimensions of the projection.
"""

from __future__ import annotations

import torch
from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss
from lightly.models.modules.heads import LeJEPAProjectionHead
from torch import Tensor

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.multicrop import by_size, multicrop_views
from wildray.learning.optim import Recipe
from wildray.schema import hash64

LAMBDA = 0.05
"""lightly's default; the paper explores 0.01 to 0.1."""
HIDDEN_DIM, OUTPUT_DIM = 2048, 64
"""lightly's head. The authors' example projects to 16 for ten classes."""


class LeJEPA(Method):
    """Views, one backbone, one head, SIGReg.

    ``recipe``: the authors' for ViT-S (their MINIMAL.md: AdamW 2e-3 at a batch of 256, decay 0.05), with the root rule
    for AdamW (arXiv 2205.10287). ``stock_recipe``: theirs too, scaled linearly, since lightly has no benchmark of it.
    """

    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.05, scaling="sqrt", reference_batch=256)
    stock_recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.05)
    reads = frozenset({"projection_dim", "hidden_dim", "local_views"})
    step: Tensor

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views, self.num_global = multicrop_views(config, backbone, num_local=settings.local_views or 0)
        self.head = LeJEPAProjectionHead(
            backbone.dim, settings.hidden_dim or HIDDEN_DIM, settings.projection_dim or OUTPUT_DIM
        )
        self.sigreg = SIGReg(gather_distributed=True)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batch; SIGReg is over all workers' samples, view by view."""
        # one pass of the head over all views, so that its batch normalisation sees all of them
        z_vb_p = self.head(torch.cat(by_size(self.backbone, batch.views)))
        with full_precision(z_vb_p):
            z_vbp = z_vb_p.float().view(len(batch.views), batch.num_samples, -1)
            prediction = lejepa_invariance_loss(all_proj=z_vbp, global_proj=z_vbp[: self.num_global])
            loss = (1 - LAMBDA) * prediction + LAMBDA * self.gaussian(z_vbp)
        assert isinstance(loss, Tensor)
        return loss

    def gaussian(self, z_vbp: Tensor) -> Tensor:
        """SIGReg () over all workers' samples, view by view, along this step's directions."""
        devices = [z_vbp.device] if z_vbp.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(hash64(("sigreg", self.config.train.seed, int(self.step))) & (2**63 - 1))
            loss = self.sigreg(z_vbp)
        assert isinstance(loss, Tensor)
        return loss

    def after_step(self, progress: float) -> None:
        """Other directions in the next step; within a step all parts of a batch share them."""
        self.step += 1

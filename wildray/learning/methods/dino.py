"""DINO (arXiv 2104.14294): a student's views predict what a moving-average teacher says of the global ones.

In: two global views (four with combined views) and ``method.local_views`` small ones. Out: cross-entropy between
sharpened, centred teacher outputs and student outputs, over every two different views. Loss, head and momentum are
lightly's; wired here: the teacher sees only global views, the prototypes stand still for the first epoch, the teacher's
temperature rises. The published rise of the weight decay is left out: a run has one.

Shapes: B samples on this worker, D dimensions of the backbone, K prototypes, V views, G of them global.
"""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss
from torch import Tensor, nn

from wildray.config import Config, MethodConfig
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.heads import Teacher, dino_head, hold_still
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.multicrop import by_size, multicrop_views
from wildray.learning.optim import Recipe

TEACHER_TEMPERATURES = (0.04, 0.07)
"""Of the teacher at the start and after its warm-up (section 3, implementation details)."""
WARMUP_STEPS = 37_500
"""Length of that warm-up: the authors' 30 epochs of 1.28 million images in batches of 1,024. Counted in steps, since 30
epochs of a small data set are few updates; short runs so stay near 0.04, which is the default of the authors' code."""
FROZEN_SHARE = 0.1
"""The prototypes stand still for one epoch (the authors' code), and at most for this share of a run of few epochs."""
NUM_LOCAL = 6
"""Local views in lightly's benchmark of DINO."""
MOMENTUM = 0.996
"""Of the teacher at the start (section 3)."""
TEACHER_MEMORY = 0.1
"""Longest memory of the teacher as a share of a run: 0.95 instead of 0.996 for 200 steps, 0.996 from 2,500."""
STUDENT_TEMPERATURE = 0.1
NUM_PROTOTYPES, HIDDEN_DIM = 4096, 2048
"""The hidden layers are the paper's. Its 65,536 prototypes, for 1.28 million images, would be three times a ViT-Tiny's
weights and a quarter of its arithmetic (2 views of 96 px, 6 of 48); 4,096 are a fifth of its weights and, with the
hidden layers, 7 % of its arithmetic."""


class DINO(Method):
    """Student, teacher, centre."""

    # section 4: 5e-4 * batch / 256, at a batch of 1,024; by the square root below it, as suits Adam (arXiv 2205.10287)
    recipe = Recipe("adamw", learning_rate=2e-3, weight_decay=0.04, scaling="sqrt", reference_batch=1024)
    stock_recipe = Recipe("sgd", learning_rate=0.03, weight_decay=1e-4)
    reads = frozenset({"temperature", "projection_dim", "hidden_dim", "momentum", "local_views"})

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        num_local = NUM_LOCAL if settings.local_views is None else settings.local_views
        self.views, self.num_global = multicrop_views(config, backbone, num_local=num_local)
        # the heads of transformers have no batch statistics (section 3.2)
        has_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
        num_prototypes = settings.projection_dim or NUM_PROTOTYPES
        self.head = dino_head(
            backbone.dim,
            hidden_dim=settings.hidden_dim or HIDDEN_DIM,
            output_dim=num_prototypes,
            batch_norm=has_norm and not backbone.is_transformer,
        )
        self.teacher = dino_teacher(nn.Sequential(backbone, self.head), settings, published=MOMENTUM)
        self.loss = DINOLoss(num_prototypes, student_temp=settings.temperature or STUDENT_TEMPERATURE)
        hold_still(self.head.last_layer, while_true=lambda: prototypes_stand_still(self.teacher, config))

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batch; the centre is the mean over all workers."""
        teacher_gbk = self.teacher(torch.cat(batch.views[: self.num_global])).chunk(self.num_global)
        student_vbk = self.head(torch.cat(by_size(self.backbone, batch.views))).chunk(len(batch.views))
        with full_precision(student_vbk[0]):
            dtype = torch.promote_types(self.loss.center.dtype, torch.float32)
            loss = self.loss(
                [out.to(dtype) for out in teacher_gbk],
                [out.to(dtype) for out in student_vbk],
                teacher_temp=teacher_temperature(self.teacher),
            )
        assert isinstance(loss, Tensor)
        return loss

    def after_step(self, progress: float) -> None:
        """Move the teacher; its momentum rises to 1 over training."""
        self.teacher.follow(nn.Sequential(self.backbone, self.head), progress)


def dino_teacher(network: nn.Module, settings: MethodConfig, *, published: float) -> Teacher:
    """A teacher with the configured momentum, or with the published one as far as the run is long enough for it."""
    if settings.momentum is not None:
        return Teacher(network, momentum=settings.momentum)
    return Teacher(network, momentum=published, memory=TEACHER_MEMORY)


def teacher_temperature(teacher: Teacher) -> float:
    """The teacher's temperature after the steps that it has followed."""
    low, high = TEACHER_TEMPERATURES
    return low + (high - low) * min(1.0, int(teacher.num_steps) / WARMUP_STEPS)


def prototypes_stand_still(teacher: Teacher, config: Config) -> bool:
    """Whether the last layer is not trained yet."""
    return float(teacher.progress) < min(1 / config.train.epochs, FROZEN_SHARE)

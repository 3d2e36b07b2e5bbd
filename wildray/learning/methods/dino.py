"""DINO (arXiv 2104.14294): a student's views predict what a moving-average teacher says of the global ones.

In: two global views and ``method.local_views`` small ones. Out: cross-entropy between sharpened, centred teacher
outputs and student outputs. Loss, head and momentum are lightly's; wired here: the teacher sees only global views, and
the prototypes stand still for the first epoch. The teacher's temperature stays at 0.04, the paper's first value.

Shapes: B samples on this worker, D dimensions of the backbone, K prototypes.
"""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss
from torch import Tensor, nn

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.heads import Teacher, dino_head
from wildray.learning.methods.base import Method, full_precision
from wildray.learning.optim import Recipe
from wildray.learning.views import View, Views

TEACHER_TEMPERATURE = 0.04
LOCAL_SHARE = 96 / 224
"""Side of a local view as a share of a global one's, and the multi-crop areas below: DINO, section 3."""
LOCAL_AREA = (0.05, 0.4)
NUM_LOCAL = 6
"""Local views in lightly's benchmark of DINO."""


class DINO(Method):
    """Student, teacher, centre."""

    recipe = Recipe("adamw", learning_rate=5e-4, weight_decay=0.04, scaling="sqrt", reference_batch=64)
    stock_recipe = Recipe("sgd", learning_rate=0.03, weight_decay=1e-4)
    progress: Tensor

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__(backbone, config, num_identities=num_identities)
        settings = config.method
        self.views = dino_views(config)
        # transformers have no batch statistics, and their heads want none
        convolutional = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
        num_prototypes = settings.projection_dim or 4096
        self.head = dino_head(
            backbone.dim,
            hidden_dim=settings.hidden_dim or 2048,
            output_dim=num_prototypes,
            batch_norm=convolutional,
        )
        momentum = 0.996 if settings.momentum is None else settings.momentum
        self.teacher = Teacher(nn.Sequential(backbone, self.head), momentum=momentum)
        self.loss = DINOLoss(num_prototypes, student_temp=settings.temperature or 0.1, teacher_temp=TEACHER_TEMPERATURE)
        self.register_buffer("progress", torch.zeros(()))
        for prototype in self.head.last_layer.parameters():
            if prototype.requires_grad:
                prototype.register_hook(self._frozen_first_epoch)

    def forward(self, batch: Batch) -> Tensor:
        """Loss () of the batch; the centre is the mean over all workers."""
        with torch.no_grad():
            teacher_bk = [self.teacher(view) for view in batch.views[:2]]
        student_bk = [self.head(self.backbone(view)) for view in batch.views]
        with full_precision(student_bk[0]):
            loss = self.loss([out.float() for out in teacher_bk], [out.float() for out in student_bk])
        assert isinstance(loss, Tensor)
        return loss

    def after_step(self, progress: float) -> None:
        """Move the teacher; its momentum rises to 1 over training."""
        self.teacher.follow(nn.Sequential(self.backbone, self.head), progress)
        self.progress.fill_(progress)

    def _frozen_first_epoch(self, gradient: Tensor) -> Tensor:
        # a hook, and not requires_grad, which may not change under DistributedDataParallel
        return gradient * float(float(self.progress) >= 1 / self.config.train.epochs)


def dino_views(config: Config) -> Views:
    """Two global views (of the pair's two crops, or of one), and local ones of the two in turn."""
    base = Views.of(config.augment, kind=config.train.views, size_px=config.backbone.image_size).views
    num_local = NUM_LOCAL if config.method.local_views is None else config.method.local_views
    # whole patches of 16 pixels, which every common transformer takes
    size_px = max(32, round(config.backbone.image_size * LOCAL_SHARE / 16) * 16)
    local = tuple(
        View(
            source=base[i % 2].source,
            size_px=size_px,
            min_area=LOCAL_AREA[0],
            max_area=LOCAL_AREA[1],
            color_jitter=config.augment.color_jitter,
            grayscale=config.augment.grayscale,
            blur=config.augment.blur,
            flip=config.augment.flip,
        )
        for i in range(num_local)
    )
    return Views(base + local)

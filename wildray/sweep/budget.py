"""Equal work for every trial: images that the network sees become batches, epochs and their size.

Methods see different numbers of views of a sample, and pair sets differ in size, so neither epochs nor samples are
equal work. Counted is what the student sees; a view of a smaller side counts by its share of pixels; a teacher's
inputs are not counted.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from wildray.config import AugmentConfig, BackboneConfig, Config, MethodConfig, TrainConfig
from wildray.learning.job import make_method
from wildray.learning.methods import method_class
from wildray.learning.views import Views
from wildray.sweep.spec import Budget


@dataclass(frozen=True)
class Work:
    """What a budget comes to for one configuration.

    Attributes:
        batch_size: Samples in a step, over all workers.
        steps_per_epoch: Steps between two measurements.
        epochs: Measurements.
        images_per_sample: Images that the student sees of a sample.
    """

    batch_size: int
    steps_per_epoch: int
    epochs: int
    images_per_sample: float

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return self.steps_per_epoch * self.epochs

    @property
    def images_per_epoch(self) -> float:
        """Images seen between two measurements."""
        return self.steps_per_epoch * self.batch_size * self.images_per_sample


def images_per_sample(views: Views, *, size_px: int) -> float:
    """Images that the student sees of a sample; a smaller view counts by its share of pixels.

    Args:
        views: Of the method.
        size_px: Side of a whole view.
    """
    return sum((view.size_px / size_px) ** 2 for view in views.views)


def batch_of(config: Config, *, images: int) -> tuple[int, float]:
    """Batch size of about so many images, and the images in a sample; P x K batches stay whole."""
    per_sample = _per_sample(config)
    unit = config.train.images_per_identity if method_class(config.train.method).supervised else 1
    unit = math.lcm(unit, config.scale.workers * config.train.accumulate)
    return max(2, unit * max(1, round(images / per_sample / unit))), per_sample


def work_of(config: Config, budget: Budget) -> Work:
    """What a budget comes to; at least its images, rounded up to whole steps between measurements."""
    if budget.images_per_step is None:
        batch_size, per_sample = config.train.batch_size, _per_sample(config)
    else:
        batch_size, per_sample = batch_of(config, images=budget.images_per_step)
    steps = math.ceil(budget.images / (batch_size * per_sample))
    epochs = min(budget.measurements, steps)
    return Work(batch_size, math.ceil(steps / epochs), epochs, per_sample)


def with_work(config: Config, work: Work) -> Config:
    """The configuration that does so much work."""
    changes = {
        "batch_size": work.batch_size,
        "epochs": work.epochs,
        "epoch_size": work.batch_size * work.steps_per_epoch,
        "probe_every": 1,
    }
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def _per_sample(config: Config) -> float:
    train = TrainConfig(method=config.train.method, views=config.train.views)
    return _counted(config.backbone.model_copy(update={"weights": "none"}), config.augment, config.method, train)


@functools.lru_cache(maxsize=256)
def _counted(backbone: BackboneConfig, augment: AugmentConfig, method: MethodConfig, train: TrainConfig) -> float:
    # the views are the method's own, and small ones fit the network's patches: it is made to ask for them
    config = Config(backbone=backbone, augment=augment, method=method, train=train)
    made = make_method(config, num_identities=2)
    return images_per_sample(made.views, size_px=backbone.image_size)

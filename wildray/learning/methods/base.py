"""What every method is: a module from a batch to a loss.

In: a backbone and the configuration. Out: a scalar loss per batch. Methods subclass ``Method`` directly and fit into
one small file: two class attributes, ``__init__``, ``forward``, and ``after_step`` where something moves between
steps. A trainer class with hooks for every phase, as Lightning has, would spread a method over five functions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch
from wildray.learning.optim import Recipe
from wildray.learning.views import Views


class Method(nn.Module):
    """Base of all methods.

    Subclasses set ``views`` in ``__init__`` and define ``forward``; the loop calls the instance (never a named step
    function, or the hooks of DistributedDataParallel would be bypassed), then ``after_step``.

    Attributes:
        recipe: How it is optimised by default, on any backbone.
        stock_recipe: The optimiser that lightly's benchmark of the method uses.
        reads: Fields of ``config.method`` that it reads.
        backbone: All that is kept after training.
        views: What ``forward`` wants to see of a pair.
        supervised: Whether ``Batch.labels`` must be there; the training data are then labelled images.
        negatives: Whether other samples of the batch repel, so that it matters which they are.

    Raises:
        ConfigError: The method is supervised and ``num_identities`` is under 2.
    """

    recipe: ClassVar[Recipe]
    stock_recipe: ClassVar[Recipe]
    reads: ClassVar[frozenset[str]]
    supervised: ClassVar[bool] = False
    negatives: ClassVar[bool] = False
    views: Views

    def __init__(self, backbone: Backbone, config: Config, *, num_identities: int = 0) -> None:
        super().__init__()
        if self.supervised and num_identities < 2:
            raise ConfigError(
                f"train.method {config.train.method} tells individuals apart by their labels: got {num_identities} of "
                f"them, expected at least 2. Give labelled images of several individuals with --train.labels."
            )
        self.backbone = backbone
        self.config = config
        self.num_identities = num_identities

    def forward(self, batch: Batch) -> Tensor:
        """The loss () of this worker's part of a batch; averaged over workers it is the loss of the whole batch."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step, without a batch.

        What it does to parameters must treat each number by itself, as a moving average does: where workers share
        weights out (``scale.strategy zero3``), a worker has its part of every tensor here. Buffers are whole, and must
        be equal on all workers.

        Args:
            progress: Share of training that is done, in (0, 1].
        """


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which losses are computed in float32 whatever ``train.precision`` is."""
    return torch.autocast(tensor.device.type, enabled=False)


def labels_of(batch: Batch) -> Tensor:
    """The identities (B,) that a supervised method needs."""
    assert batch.labels is not None, "the batch has no labels"
    return batch.labels

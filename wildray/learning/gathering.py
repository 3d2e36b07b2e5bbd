"""What contrastive losses need of the other workers: their vectors, with gradient, and what is known of their samples.

In: this worker's tensors. Out: all workers' tensors, in the order of ranks, so that sample i of worker r stands at
r * B + i. torch.distributed.all_gather alone cuts the gradient, and a loss whose negatives carry none has not the
gradient of the joined batch.

Shapes: B samples on this worker, W workers.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightly.utils.dist import gather, rank, world_size
from torch import Tensor


def gathered(x_b: Tensor) -> Tensor:
    """All workers' rows of a float tensor (B, ...) as (W * B, ...), with gradient; B must be equal on all."""
    return torch.cat(gather(x_b.contiguous())) if world_size() > 1 else x_b  # NCCL refuses other strides


def gathered_facts(x_b: Tensor) -> Tensor:
    """All workers' rows of any tensor (B, ...) as (W * B, ...), without gradient."""
    if world_size() == 1:
        return x_b
    x_b = x_b.contiguous()
    parts = [torch.empty_like(x_b) for _ in range(world_size())]
    dist.all_gather(parts, x_b)
    return torch.cat(parts)


def first_row(num_rows: int) -> int:
    """Where this worker's rows begin in what ``gathered`` returns, given B."""
    return int(rank()) * num_rows

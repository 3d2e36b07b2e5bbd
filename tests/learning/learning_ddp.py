"""What the workers of the distributed tests do; a module of its own, since spawned processes import it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch, Crops, Facts
from wildray.learning.batchnorm import share_batchnorm
from wildray.learning.methods import METHODS

NUM_SAMPLES, SIZE_PX, STEPS = 12, 32, 3
CASES = [(method, views, norm) for method in METHODS for views, norm in (("temporal", True), ("self", False))]


def tiny_backbone(*, norm: bool) -> Backbone:
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 6, 5, stride=3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.GELU()]
    net = nn.Sequential(*layers, nn.Conv2d(6, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone("tiny", SIZE_PX, net=net, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def make_case(method: str, views: str, norm: bool):
    overrides = {
        "train.method": method,
        "train.views": views,
        "train.epochs": 1,
        "backbone.image_size": SIZE_PX,
        "method.hidden_dim": 16,
        "method.projection_dim": 12,
        "method.local_views": 2,
    }
    torch.manual_seed(7)
    return METHODS[method](tiny_backbone(norm=norm), Config.load(overrides=overrides))


def part_of_batch(method, step: int, *, rank: int, num_workers: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    shape = (method.views.num_sources, NUM_SAMPLES, 3, 40, 40)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    each = NUM_SAMPLES // num_workers
    mine = slice(rank * each, (rank + 1) * each)
    zeros = torch.zeros(shape[:2], dtype=torch.int64)[:, mine]
    facts = Facts(zeros, zeros, torch.zeros(*zeros.shape, 4), zeros, zeros.double())
    crops = Crops(images[:, mine], torch.arange(NUM_SAMPLES)[mine], torch.arange(NUM_SAMPLES)[mine], facts)
    return method.views.batch(crops, seed=0, epoch=0, device=torch.device("cpu"))


def train_case(case, *, rank: int, num_workers: int) -> dict[str, torch.Tensor]:
    """Losses of some steps, the first step's gradients, the last step's weights."""
    method = share_batchnorm(make_case(*case), num_workers=num_workers)
    parallel = DistributedDataParallel(method) if num_workers > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    out = {}
    for step in range(STEPS):
        loss = parallel(part_of_batch(method, step, rank=rank, num_workers=num_workers))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step == 0:
            out |= {f"grad.{n}": p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        optimizer.step()
        method.after_step((step + 1) / STEPS)
        mean = loss.detach().clone()
        if num_workers > 1:
            dist.all_reduce(mean)
        out[f"loss.{step}"] = mean / num_workers
    return out | {f"weight.{name}": value.clone() for name, value in method.state_dict().items()}


def worker(rank: int, num_workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_workers)
    results = {case: train_case(case, rank=rank, num_workers=num_workers) for case in CASES}
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()

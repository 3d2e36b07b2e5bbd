"""What the workers of the distributed tests do; a module of its own, since spawned processes import it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wildray.config import Config
from wildray.learning.backbone import Backbone
from wildray.learning.batch import Batch, Crops, Facts
from wildray.learning.batchnorm import share_batchnorm
from wildray.learning.methods import METHODS

NUM_SAMPLES, SIZE_PX, STEPS, NUM_IDENTITIES = 12, 32, 3, 4
SAME_CAMERA_S = 1000.0
CASES = [
    (name, views, norm)
    for name, method in METHODS.items()
    for views, norm in (("temporal", True), ("self", False), ("combined", True))
    if views != "combined" or not method.supervised
]


def tiny_backbone(*, norm: bool) -> Backbone:
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 6, 5, stride=3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.GELU()]
    net = nn.Sequential(*layers, nn.Conv2d(6, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone("tiny", SIZE_PX, net=net, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def tiny_transformer() -> Backbone:
    """For methods that need patches; it has no batch statistics."""
    torch.manual_seed(5)
    sizes = {"img_size": SIZE_PX, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    net = VisionTransformer(num_classes=0, dynamic_img_size=True, **sizes)
    return Backbone("tiny_transformer", SIZE_PX, net=net, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def make_case(method: str, views: str, norm: bool, **settings: object):
    """A method on the tiny backbone; settings are of the configuration's section ``method``."""
    settings = {"hidden_dim": 16, "projection_dim": 12, "local_views": 2, "queue_size": 40} | settings
    overrides = {
        "train.method": method,
        "train.views": views,
        "train.epochs": 1,
        "backbone.image_size": SIZE_PX,
        "method.same_camera_neutral": f"{SAME_CAMERA_S}s",
    }
    overrides |= {f"method.{name}": value for name, value in settings.items()}
    torch.manual_seed(7)
    backbone = tiny_transformer() if method == "dinov2" else tiny_backbone(norm=norm)
    return METHODS[method](backbone, Config.load(overrides=overrides), num_identities=NUM_IDENTITIES)


def facts_of_samples(num_sources: int) -> tuple[torch.Tensor, Facts]:
    """Tracklets (B,) and facts (S, B) in which every rule has a case between two workers of half of the samples each.

    Samples 0, 2 and 8 are of one tracklet, and 1 and 9. Samples i and i + 6 are in one frame, with boxes apart for even
    i (2 and 8 among them: a tracklet that cannot be), nearly equal for odd i. Cameras alternate, a sample every 350 s,
    the last one by a clock that is not known.
    """
    sample = torch.arange(NUM_SAMPLES)
    tracklet_id = torch.where(sample == 2, 0, sample % 8)
    source = torch.arange(num_sources).unsqueeze(1)
    left = torch.where((sample >= 6) & (sample % 2 == 0), 200.0, 10.0) + 3.0 * (sample >= 6) + source
    top = torch.full_like(left, 20.0)
    seconds = 1.7e9 + 350.0 * sample.double() + source
    seconds[:, -1] = torch.nan
    facts = Facts(
        detection_id=sample + NUM_SAMPLES * source,
        frame_key=sample % 6 + 100 * source,
        xyxy_px=torch.stack([left, top, left + 50, top + 40], dim=-1).float(),
        camera_id=(sample % 2).expand(num_sources, -1),
        captured_at_s=seconds,
    )
    return tracklet_id, facts


def part_of_batch(method, step: int, *, rank: int, num_workers: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    shape = (method.views.num_sources, NUM_SAMPLES, 3, 40, 40)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    each = NUM_SAMPLES // num_workers
    mine = slice(rank * each, (rank + 1) * each)
    tracklet_id, facts = facts_of_samples(shape[0])
    crops = Crops(
        images=images[:, mine],
        index=torch.arange(NUM_SAMPLES)[mine],
        tracklet_id=tracklet_id[mine],
        facts=Facts(**{name: value[:, mine] for name, value in vars(facts).items()}),
        labels=torch.arange(NUM_SAMPLES)[mine] % NUM_IDENTITIES,
    )
    return method.views.batch(crops, seed=0, epoch=0, device=torch.device("cpu"))


def train_case(case, *, rank: int, num_workers: int) -> dict[str, torch.Tensor]:
    """Losses of some steps, the first step's gradients, the last step's weights.

    The networks are in float64 (losses remain in float32): a bias before a normalisation has a gradient of nothing but
    rounding, which in float32 is larger than some gradients that count.
    """
    method = share_batchnorm(make_case(*case).double(), num_workers=num_workers)
    parallel = DistributedDataParallel(method) if num_workers > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    out = {}
    for step in range(STEPS):
        batch = part_of_batch(method, step, rank=rank, num_workers=num_workers)
        loss = parallel(replace(batch, views=[view.double() for view in batch.views]))
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

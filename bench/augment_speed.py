"""Augmentation on whole batches: ours, kornia's, torchvision's v2, in turn in one run; prints a Markdown table.

In: 128 random crops in bytes. Out: per library the median CPU time (of all threads, so that a busy machine does not
matter) of one view of each, its ratio to ours with the spread over the rounds, and two facts that are tested here:
whether equal images of one batch come out different (each sample has its own parameters), and whether a sample's view
stays the same when half of its batch is taken away.
Strengths are equal: resized crop, colour jitter, grey, blur. Needs kornia beside what wildray itself needs.

    python bench/augment_speed.py --threads 1 --rounds 9
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import kornia.augmentation as kornia
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from wildray.config import AugmentConfig
from wildray.learning.crops import MARGIN
from wildray.learning.views import View, make_view, random_numbers

NUM_IMAGES = 128
RATIO = (3 / 4, 4 / 3)
Augment = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, P, P) uint8 images and (B,) their sample numbers to (B, 3, h, h) float32 views."""


def ours(size_px: int) -> Augment:
    """What training does."""
    view = View.of_config(AugmentConfig(), source=0, size_px=size_px)

    def augment(images: Tensor, index: Tensor) -> Tensor:
        draws = random_numbers(index, 1, seed=0, epoch=0)
        return make_view(images.float() / 255, draws[:, 0], view)

    return augment


def theirs(size_px: int) -> dict[str, Augment]:
    """The same by kornia, and by torchvision on the batch and image by image."""
    config = AugmentConfig()
    jitter = 0.8 * config.color_jitter, 0.8 * config.color_jitter, 0.8 * config.color_jitter, 0.2 * config.color_jitter
    sigma = 0.1 * size_px / 224, 2.0 * size_px / 224
    kernel = 2 * max(1, round(3 * sigma[1])) + 1
    of_kornia = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size_px, size_px), scale=(config.min_crop, 1.0), ratio=RATIO),
        kornia.ColorJitter(*jitter, p=0.8),
        kornia.RandomGrayscale(p=config.grayscale),
        kornia.RandomGaussianBlur((kernel, kernel), sigma, p=config.blur),
        same_on_batch=False,
    )
    of_torchvision = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(size_px, scale=(config.min_crop, 1.0), ratio=RATIO, antialias=False),
            v2.RandomApply([v2.ColorJitter(*jitter)], p=0.8),
            v2.RandomGrayscale(p=config.grayscale),
            v2.RandomApply([v2.GaussianBlur(kernel, sigma)], p=config.blur),
        ]
    )
    return {
        "kornia, batch": lambda images, _: of_kornia(images.float() / 255),
        "torchvision v2, batch": lambda images, _: of_torchvision(images),
        "torchvision v2, image by image": lambda images, _: torch.stack([of_torchvision(image) for image in images]),
    }


def own_parameters(augment: Augment, images: Tensor) -> bool:
    """Whether equal images of a batch come out different."""
    out = augment(images[:1].expand(16, -1, -1, -1).contiguous(), torch.arange(16))
    return len(torch.unique(out.flatten(1), dim=0)) > 8


def own_view(augment: Augment, images: Tensor) -> bool:
    """Whether a sample's view does not depend on the batch it is in."""
    index, half, outs = torch.arange(len(images)), len(images) // 2, []
    for part in (slice(None), slice(half, None)):
        torch.manual_seed(0)
        outs.append(augment(images[part], index[part])[-half:])
    return torch.allclose(outs[0], outs[1], atol=1e-4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {NUM_IMAGES} images, {arguments.rounds} rounds\n")
    print("| side | augmentation | CPU ms | times ours (least to most) | own parameters | own view in any batch |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size_px in (64, 96):
        side = int(np.ceil(MARGIN * size_px))
        images = torch.randint(0, 256, (NUM_IMAGES, 3, side, side), dtype=torch.uint8)
        kinds = {"ours": ours(size_px), **theirs(size_px)}
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(arguments.rounds + 1):  # the first warms up
            for name, augment in kinds.items():
                begun = time.process_time()
                augment(images, torch.arange(NUM_IMAGES))
                if number:
                    seconds[name].append(time.process_time() - begun)
        for name, augment in kinds.items():
            ratios = np.array(seconds[name]) / np.array(seconds["ours"])
            spread = f"{np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
            facts = " | ".join("yes" if test(augment, images) else "no" for test in (own_parameters, own_view))
            print(f"| {size_px} | {name} | {1000 * np.median(seconds[name]):.0f} | {spread} | {facts} |")


if __name__ == "__main__":
    main()

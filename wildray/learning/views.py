"""Augmentation as data: which views a method wants, made in batches on the training device.

In: crops (S, B, 3, P, P) in bytes. Out: a ``Batch`` with V views. Every sample has its own random numbers, a function
of (seed, epoch, row of the pairs table) alone, so that a view does not depend on the number of workers, on the place
in the batch or on where a run was interrupted. The alternative, torchvision transforms in loader processes, costs a
Python call per image and a CPU that small machines do not have.

Shapes: B samples, S sources, V views, P side of a crop, h side of a view, in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from wildray.config import AugmentConfig
from wildray.learning.batch import Batch, Crops
from wildray.schema import hash64

NUM_RANDOM = 18
"""Random numbers of one view of one sample; the columns are named where they are used."""
MAX_ASPECT = 4 / 3
"""Crops keep an aspect ratio within [1/MAX_ASPECT, MAX_ASPECT], as in SimCLR (arXiv 2002.05709, appendix A)."""
JITTER_PROBABILITY = 0.8
"""SimCLR, appendix A; so are the strengths: 0.8 s for brightness, contrast and saturation, 0.2 s for hue."""
BLUR_SIGMA = (0.1, 2.0)
"""Range of the blur's standard deviation at 224 pixels (SimCLR, appendix A); scaled with the view's size."""
LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class View:
    """How one view is made.

    Attributes:
        source: 0 for the first crop of the sample, 1 for the second.
        size_px: Side of the view.
        min_area: Least share of the crop's area that it keeps.
        max_area: Largest share.
        color_jitter: Strength in [0, 1].
        grayscale: Probability of a grey view.
        blur: Probability of a Gaussian blur.
        flip: Probability of a mirror image.
        erase: Probability that a rectangle is blanked.
    """

    source: int
    size_px: int
    min_area: float
    max_area: float = 1.0
    color_jitter: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    flip: float = 0.0
    erase: float = 0.0

    @classmethod
    def of_config(cls, augment: AugmentConfig, *, source: int, size_px: int) -> View:
        """A whole-animal view with the configured strengths."""
        return cls(
            source=source,
            size_px=size_px,
            min_area=augment.min_crop,
            color_jitter=augment.color_jitter,
            grayscale=augment.grayscale,
            blur=augment.blur,
            flip=augment.flip,
            erase=augment.erase,
        )


@dataclass(frozen=True)
class Views:
    """The views of a method.

    Attributes:
        views: One entry per view, in the order in which ``Batch.views`` has them.
    """

    views: tuple[View, ...]

    @classmethod
    def of(cls, augment: AugmentConfig, *, kind: str, size_px: int) -> Views:
        """Views of the whole animal, every two of which are positives.

        Args:
            augment: Strengths.
            kind: ``self`` (two views of one crop), ``temporal`` (one of each crop of the pair) or ``combined`` (two of
                each, in the order of crops 0, 1, 0, 1).
            size_px: Side of a view.
        """
        first = View.of_config(augment, source=0, size_px=size_px)
        sources = {"self": (0, 0), "temporal": (0, 1), "combined": (0, 1, 0, 1)}[kind]
        return cls(tuple(replace(first, source=source) for source in sources))

    @property
    def num_sources(self) -> int:
        """S, the crops that a sample must have."""
        return 1 + max(view.source for view in self.views)

    def batch(self, crops: Crops, *, seed: int, epoch: int, device: torch.device) -> Batch:
        """Make the views.

        Args:
            crops: What the loader read; S must be at least ``num_sources``.
            seed: Of the run.
            epoch: From 0.
            device: Where the views are made and stay.
        """
        draws = random_numbers(crops.index, len(self.views), seed=seed, epoch=epoch).to(device)
        images = crops.images.to(device, non_blocking=True)
        views = [augment(images[view.source], draws[:, i], view) for i, view in enumerate(self.views)]
        sources = torch.tensor([view.source for view in self.views])
        return Batch(
            views=views,
            labels=None if crops.labels is None else crops.labels.to(device),
            tracklet_id=crops.tracklet_id.to(device),
            facts=crops.facts.of_sources(sources),
        )


def random_numbers(index: Tensor, num_views: int, *, seed: int, epoch: int) -> Tensor:
    """(B, V, NUM_RANDOM) float32 in [0, 1), each sample's a function of (seed, epoch, its index) alone."""
    generator = torch.Generator()
    rows = []
    for row in index.tolist():
        generator.manual_seed(hash64(("views", seed, epoch, row)) & (2**63 - 1))
        rows.append(torch.rand(num_views, NUM_RANDOM, generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, num_views, NUM_RANDOM)


def augment(images: Tensor, draws: Tensor, view: View) -> Tensor:
    """One view of every image.

    Args:
        images: (B, 3, P, P) uint8 RGB.
        draws: (B, NUM_RANDOM) float32 in [0, 1).
        view: What to do.

    Returns:
        (B, 3, h, h) float32 in [0, 1].
    """
    out = resized_crop(images.float() / 255, draws[:, 0:5], view)
    if view.color_jitter > 0:
        out = jitter(out, draws[:, 5:10], view.color_jitter)
    if view.grayscale > 0:
        gray = luma(out).expand_as(out)
        out = torch.where((draws[:, 10] < view.grayscale).view(-1, 1, 1, 1), gray, out)
    if view.blur > 0:
        chosen = torch.nonzero(draws[:, 11] < view.blur).flatten()
        if len(chosen):
            low, high = (sigma * view.size_px / 224 for sigma in BLUR_SIGMA)
            out = out.index_copy(0, chosen, blurred(out[chosen], low + (high - low) * draws[chosen, 12]))
    if view.erase > 0:
        out = erased(out, draws[:, 13:18], view.erase)
    return out


def resized_crop(images: Tensor, draws: Tensor, view: View) -> Tensor:
    """A random part of each image, resized to (B, 3, h, h); draws are (area, aspect, x, y, flip)."""
    area = view.min_area + (view.max_area - view.min_area) * draws[:, 0]
    aspect = torch.exp((2 * draws[:, 1] - 1) * math.log(MAX_ASPECT))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    # the grid runs over [-1, 1]; a part of width w may have its centre at (2 u - 1)(1 - w)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(draws[:, 4] < view.flip, -width, width)
    theta[:, 0, 2] = (2 * draws[:, 2] - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * draws[:, 3] - 1) * (1 - height)
    grid = F.affine_grid(theta, [len(images), 3, view.size_px, view.size_px], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def luma(images: Tensor) -> Tensor:
    """(B, 1, h, h) brightness."""
    red, green, blue = LUMA
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]


def jitter(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast, saturation and hue; draws are (whether, brightness, contrast, saturation, hue)."""
    apply = (draws[:, 0] < JITTER_PROBABILITY).view(-1, 1, 1, 1)
    factors = 1 + 0.8 * strength * (2 * draws[:, 1:4] - 1)
    brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in range(3))
    out = (images * brightness).clamp(0, 1)
    mean = luma(out).mean(dim=(2, 3), keepdim=True)
    out = (mean + (out - mean) * contrast).clamp(0, 1)
    gray = luma(out)
    out = gray + (out - gray) * saturation
    turned = hue_rotation((2 * draws[:, 4] - 1) * 0.2 * strength * 2 * math.pi) @ out.flatten(2)
    return torch.where(apply, turned.view_as(out).clamp(0, 1), images)


def hue_rotation(angle: Tensor) -> Tensor:
    """(B, 3, 3) matrices that turn colours by ``angle`` (B,) radians about the grey axis: R, G, B stay a cycle."""
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    third = torch.full((3, 3), 1 / 3, device=angle.device)
    root = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -root, root], [root, 0, -root], [-root, root, 0]], device=angle.device)
    return cos * torch.eye(3, device=angle.device) + (1 - cos) * third + sin * cross


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation (B,) in pixels for each image."""
    radius = max(1, math.ceil(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3).view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    num, height, width = 3 * len(images), images.shape[2], images.shape[3]
    out = F.pad(images.reshape(1, num, height, width), (radius, radius, radius, radius), mode="replicate")
    out = F.conv2d(out, kernel.view(num, 1, 1, -1), groups=num)
    out = F.conv2d(out, kernel.view(num, 1, -1, 1), groups=num)
    return out.view_as(images)


def erased(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Blank a rectangle of 2 to 20 % of the area with the image's mean colour; draws: (whether, area, aspect, x, y)."""
    size = images.shape[-1]
    area = 0.02 + 0.18 * draws[:, 1]
    aspect = torch.exp((2 * draws[:, 2] - 1) * math.log(2.0))
    width, height = (area * aspect).sqrt() * size, (area / aspect).sqrt() * size
    left, top = draws[:, 3] * (size - width), draws[:, 4] * (size - height)
    at = torch.arange(size, device=images.device) + 0.5
    in_x = (at >= left.view(-1, 1)) & (at < (left + width).view(-1, 1))
    in_y = (at >= top.view(-1, 1)) & (at < (top + height).view(-1, 1))
    mask = (in_y.unsqueeze(2) & in_x.unsqueeze(1)) & (draws[:, 0] < probability).view(-1, 1, 1)
    return torch.where(mask.unsqueeze(1), images.mean(dim=(2, 3), keepdim=True), images)

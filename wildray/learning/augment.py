"""Image operations on whole batches, each image with its own random numbers.

In: (B, 3, P, P) images and (B, n) numbers in [0, 1). Out: changed images. Nothing is drawn here, so that an image comes
out equal whatever else is in its batch. The alternatives, measured by bench/augment_speed.py: kornia's augmentations
take per-sample parameters too and are slower; torchvision's v2 draws one set of parameters for a whole batch.

Shapes: B images, P their side, h side of a view, in pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ASPECT = 4 / 3
"""Crops keep an aspect ratio within [1/MAX_ASPECT, MAX_ASPECT], as in SimCLR (arXiv 2002.05709, appendix A)."""
JITTER_PROBABILITY = 0.8
"""SimCLR, appendix A; so are the strengths: 0.8 s for brightness, contrast and saturation, 0.2 s for hue."""
BLUR_SIGMA = (0.1, 2.0)
"""Range of the blur's standard deviation at 224 pixels (SimCLR, appendix A); scaled with the view's size."""
LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in brightness (ITU-R BT.601)."""


def resized_crop(
    images: Tensor,
    draws: Tensor,
    *,
    size_px: int,
    area_range: tuple[float, float],
    flip: float = 0.0,
    tighten: float = 0.0,
) -> Tensor:
    """A random part of each image.

    Args:
        images: (B, 3, P, P) float32.
        draws: (B, 5) in [0, 1): area, aspect, x, y, flip.
        size_px: h.
        area_range: Least and largest share of the area.
        flip: Probability of a mirror image.
        tighten: Share of the sides that is left out on each of the four; areas are shares of the rest.

    Returns:
        (B, 3, h, h) float32.
    """
    area = area_range[0] + (area_range[1] - area_range[0]) * draws[:, 0]
    aspect = torch.exp((2 * draws[:, 1] - 1) * math.log(MAX_ASPECT))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    # the grid runs over [-1, 1]; a part of width w may have its centre at (2 u - 1)(1 - w)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(draws[:, 4] < flip, -width, width)
    theta[:, 0, 2] = (2 * draws[:, 2] - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * draws[:, 3] - 1) * (1 - height)
    grid = F.affine_grid(theta * (1 - 2 * tighten), [len(images), 3, size_px, size_px], align_corners=False)
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


def blurred_each(images: Tensor, sigma: Tensor, *, most: float) -> Tensor:
    """Gaussian blur with a standard deviation (B,) of at most ``most`` pixels for each image."""
    radius = max(1, math.ceil(3 * most))  # not of the batch's largest: an image comes out equal in any company
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

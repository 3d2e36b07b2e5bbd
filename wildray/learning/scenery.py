"""Remedies against the background shortcut: the scenery around the animal blurred, greyed or swapped.

In: crops, the clip's background at their places, the animals' boxes. Out: crops whose scenery says less of the place.
The two crops of a pair share their scenery, so a network can pull them together without a look at the animal. A crop
differs from its background where the animal is, which gives a soft mask for nothing. The alternatives: a segmentation
network would want weights and a pass per crop; cutting animals out once, at detection, would freeze the mask's
thresholds into the store.

Shapes: B crops, P their side in pixels; sides and radii are shares of P.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1 / 80
"""Standard deviation of the blur before crop and background are compared: about JPEG's noise and half a pixel of a
background that was kept at a lower resolution."""
LEAST_DIFFERENCE = 0.05
"""Difference, of 1, that counts half: 13 grey levels. Compression alone gives up to 4 after the blur."""
NOISE_FACTOR = 3.0
"""The threshold is at least so many times the median difference outside the box: grass in the wind, a noisy sensor."""
MOST_DIFFERENCE = 0.15
"""Bound of that: what waves more than this is not told from an animal anyway."""
SOFTNESS = 0.3
"""Half the width of the ramp around the threshold, as a share of it."""
CLOSE = 1 / 16
"""Radius over which holes in the animal are closed: a flank may look like the ground behind it."""
FEATHER = 1 / 40
"""Standard deviation of the mask's edge."""
GROW = 0.08
"""Share of the box's sides that it is grown by: detectors cut off tails and feet."""
LEAST_AREA = 0.1
"""Share of the box below which a mask is not believed: animals fill 0.3 to 0.8 of their box."""
BLUR = 1 / 8
"""Standard deviation of blurred scenery: no plant or stone is left of it, only its brightness and tint."""
GRAY = 0.5
STRIDE = 3
"""Every so many pixels are looked at for medians outside the box."""


def animal_mask(images: Tensor, box: Tensor, background: Tensor | None, has_background: Tensor | None) -> Tensor:
    """What of each crop is animal.

    Args:
        images: (B, 3, P, P) float32 in [0, 1].
        box: (B, 4) corners of the box in shares of the crop's sides.
        background: (B, 3, P, P) float32 in [0, 1]; None: the box is the mask.
        has_background: (B,) bool, where it is known; the box is the mask elsewhere, and where hardly anything differs.

    Returns:
        (B, 1, P, P) float32 in [0, 1].
    """
    size = images.shape[-1]
    whole_box = blurred(box_mask(box, size, grow=GROW / 2), FEATHER * size).clamp(0, 1)
    if background is None or has_background is None:
        return whole_box
    difference = _difference(images, background, box)
    inside = box_mask(box, size, grow=GROW)
    mask = _closed(difference * inside)
    area = (mask * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)
    mask = (blurred(mask, FEATHER * size) * 1.5).clamp(0, 1) * blurred(inside, FEATHER * size)
    believed = (has_background & (area >= LEAST_AREA)).view(-1, 1, 1, 1)
    return torch.where(believed, mask, whole_box)


def changed_scenery(images: Tensor, mask: Tensor, mode: str, scenery: Tensor | None) -> Tensor:
    """Crops with another surrounding.

    Args:
        images: (B, 3, P, P) float32 in [0, 1].
        mask: (B, 1, P, P) in [0, 1], 1 where the animal is.
        mode: ``blur``, ``gray`` or ``swap``.
        scenery: (B, 3, P, P) float32 in [0, 1], for ``swap``.

    Returns:
        (B, 3, P, P) float32 in [0, 1].
    """
    if mode == "swap":
        assert scenery is not None
        around = scenery
    elif mode == "gray":
        around = torch.full_like(images, GRAY)
    else:  # the animal's own colours are kept out of the blur, or they would shine around it
        sigma, outside = BLUR * images.shape[-1], 1 - mask
        around = blurred(images * outside, sigma) / blurred(outside, sigma).clamp(min=1e-3)
    return mask * images + (1 - mask) * around.clamp(0, 1)


def box_mask(box: Tensor, size: int, *, grow: float) -> Tensor:
    """(B, 1, P, P) of 1 inside boxes (B, 4) whose sides are grown by a share ``grow`` on each end, else 0."""
    reach = grow * (box[:, 2:] - box[:, :2])
    low, high = box[:, :2] - reach, box[:, 2:] + reach
    at = (torch.arange(size, device=box.device) + 0.5) / size
    in_x = (at >= low[:, :1]) & (at < high[:, :1])
    in_y = (at >= low[:, 1:]) & (at < high[:, 1:])
    return (in_y.unsqueeze(2) & in_x.unsqueeze(1)).unsqueeze(1).float()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, P, P) with one standard deviation in pixels; borders are repeated.

    Two products with one (P, P) matrix: on a CPU ten times faster than convolutions of a single channel.
    """
    size, radius = images.shape[-1], max(1, round(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    at = torch.arange(size, device=images.device)
    taken = (at.view(-1, 1) + offsets).clamp(0, size - 1)  # (P, 2 radius + 1)
    matrix = ((taken.unsqueeze(2) == at) * (weights / weights.sum()).view(1, -1, 1)).sum(1)
    return matrix @ images @ matrix.T


def _difference(images: Tensor, background: Tensor, box: Tensor) -> Tensor:
    """(B, 1, P, P) in [0, 1]: how surely a place differs from the background, whatever the light."""
    size = images.shape[-1]
    raw = blurred(images - background, SMOOTH * size)
    outside = box_mask(box, size, grow=GROW)[:, :, ::STRIDE, ::STRIDE] == 0
    sample = raw[:, :, ::STRIDE, ::STRIDE]
    # the light changes by one amount; without a surrounding (a box that fills its frame) it is taken as unchanged
    shift = _median(sample, outside.expand_as(sample))
    difference = (raw - shift[..., None, None]).abs().amax(1, keepdim=True)
    noise = _median(difference[:, :, ::STRIDE, ::STRIDE], outside)
    threshold = (NOISE_FACTOR * noise).clamp(LEAST_DIFFERENCE, MOST_DIFFERENCE)[..., None, None]
    return (0.5 + (difference / threshold - 1) / (2 * SOFTNESS)).clamp(0, 1)


def _median(values: Tensor, where: Tensor) -> Tensor:
    """(B, C) median of (B, C, h, w) over the places chosen; 0 where none is."""
    chosen = torch.where(where, values, torch.nan).flatten(2)
    return chosen.nanmedian(dim=2).values.nan_to_num(0.0)


def _closed(mask: Tensor) -> Tensor:
    """(B, 1, P, P) with holes of a radius up to ``CLOSE`` shut; at half the resolution, an eighth of the time."""
    size = mask.shape[-1]
    small = F.interpolate(mask, size=(size // 2, size // 2), mode="area")
    radius = max(1, round(CLOSE * size / 2))
    shut = -_dilated(-_dilated(small, radius), radius)
    return F.interpolate(shut, size=(size, size), mode="bilinear", align_corners=False).maximum(mask)


def _dilated(mask: Tensor, radius: int) -> Tensor:
    side = 2 * radius + 1
    wide = F.max_pool2d(mask, (1, side), stride=1, padding=(0, radius))
    return F.max_pool2d(wide, (side, 1), stride=1, padding=(radius, 0))

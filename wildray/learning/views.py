"""Augmentation as data: which views a method wants, made in batches on the training device.

In: crops (S, B, 3, P, P) in bytes. Out: a ``Batch`` with V views. Every sample has its own random numbers, a function
of (seed, epoch, row of the pairs table) alone, so that a view does not depend on the number of workers, on the place
in the batch or on where a run was interrupted. The alternative, torchvision transforms in loader processes, costs a
Python call per image and a CPU that small machines do not have.

Shapes: B samples, S sources, V views, P side of a crop, h side of a view, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wildray.config import AugmentConfig
from wildray.learning.augment import BLUR_SIGMA, blurred_each, erased, jitter, luma, resized_crop
from wildray.learning.batch import Batch, Crops
from wildray.learning.scenery import animal_mask, changed_scenery
from wildray.schema import hash64

NUM_RANDOM = 19
"""Random numbers of one view of one sample; the columns are named where they are used."""


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
        tighten: Share of the crop's sides that is cut off on each of the four before anything else.
        background: What becomes of the scenery: keep, blur, gray or swap.
        background_share: Probability of that.
        background_mask: What tells animal from scenery: motion or box.
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
    tighten: float = 0.0
    background: str = "keep"
    background_share: float = 1.0
    background_mask: str = "motion"

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
            tighten=augment.tighten,
            background=augment.background if augment.changes_background else "keep",
            background_share=augment.background_share,
            background_mask=augment.background_mask,
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

    @property
    def num_sceneries(self) -> int:
        """K, the other cameras' backgrounds that a source must have: one for each of its views that wants one."""
        swapped = [view.source for view in self.views if view.background == "swap"]
        return max((swapped.count(source) for source in swapped), default=1)

    def batch(self, crops: Crops, *, seed: int, epoch: int, device: torch.device) -> Batch:
        """Make the views.

        Args:
            crops: What the loader read; S must be at least ``num_sources``, K ``num_sceneries``.
            seed: Of the run.
            epoch: From 0.
            device: Where the views are made and stay.
        """
        draws = random_numbers(crops.index, len(self.views), seed=seed, epoch=epoch).to(device)
        images: dict[int, Tensor] = {}
        masks: dict[tuple[int, str], Tensor] = {}  # views of one source share the work
        num_swapped = [0] * self.num_sources
        views = []
        for number, view in enumerate(self.views):
            if view.source not in images:
                images[view.source] = _unit(crops.images[view.source], device)
            image = images[view.source]
            if view.background != "keep":
                key = (view.source, view.background_mask)
                if key not in masks:
                    masks[key] = _animal_mask(image, crops, view)
                scenery = None
                if view.background == "swap":
                    assert crops.scenery is not None, "CropCache was not told of augment.background swap"
                    scenery = _unit(crops.scenery[num_swapped[view.source], view.source], device)
                    num_swapped[view.source] += 1
                changed = changed_scenery(image, masks[key], view.background, scenery)
                chosen = draws[:, number, 18] < view.background_share
                image = torch.where(chosen.view(-1, 1, 1, 1), changed, image)
            views.append(make_view(image, draws[:, number], view))
        return Batch(
            views=views,
            labels=None if crops.labels is None else crops.labels.to(device),
            tracklet_id=crops.tracklet_id.to(device),
            facts=crops.facts.of_sources(torch.tensor([view.source for view in self.views])),
            seeds=torch.tensor(
                [_seed_of("method", seed, epoch, row) for row in crops.index.tolist()], dtype=torch.int64
            ),
        )


def _seed_of(*parts: object) -> int:
    return hash64(parts) & (2**63 - 1)


def random_numbers(index: Tensor, num_views: int, *, seed: int, epoch: int) -> Tensor:
    """(B, V, NUM_RANDOM) float32 in [0, 1), each sample's a function of (seed, epoch, its index) alone."""
    generator = torch.Generator()
    rows = []
    for row in index.tolist():
        generator.manual_seed(_seed_of("views", seed, epoch, row))
        rows.append(torch.rand(num_views, NUM_RANDOM, generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, num_views, NUM_RANDOM)


def make_view(images: Tensor, draws: Tensor, view: View) -> Tensor:
    """One view of every image; of the scenery, which ``Views.batch`` has seen to, it knows nothing.

    Args:
        images: (B, 3, P, P) float32 RGB in [0, 1].
        draws: (B, NUM_RANDOM) float32 in [0, 1).
        view: What to do.

    Returns:
        (B, 3, h, h) float32 in [0, 1].
    """
    out = resized_crop(
        images,
        draws[:, 0:5],
        size_px=view.size_px,
        area_range=(view.min_area, view.max_area),
        flip=view.flip,
        tighten=view.tighten,
    )
    if view.color_jitter > 0:
        out = jitter(out, draws[:, 5:10], view.color_jitter)
    if view.grayscale > 0:
        gray = luma(out).expand_as(out)
        out = torch.where((draws[:, 10] < view.grayscale).view(-1, 1, 1, 1), gray, out)
    if view.blur > 0:
        chosen = torch.nonzero(draws[:, 11] < view.blur).flatten()
        if len(chosen):
            low, high = (sigma * view.size_px / 224 for sigma in BLUR_SIGMA)
            sigma = low + (high - low) * draws[chosen, 12]
            out = out.index_copy(0, chosen, blurred_each(out[chosen], sigma, most=high))
    if view.erase > 0:
        out = erased(out, draws[:, 13:18], view.erase)
    return out


def _unit(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device, non_blocking=True).float() / 255


def _animal_mask(images: Tensor, crops: Crops, view: View) -> Tensor:
    """(B, 1, P, P) what of the crops of a view's source is animal."""
    source, device = view.source, images.device
    assert crops.box is not None, "crops without boxes have no scenery to change"
    background = known = None
    if view.background_mask == "motion" and crops.background is not None and crops.has_background is not None:
        background = _unit(crops.background[source], device)
        known = crops.has_background[source].to(device)
    return animal_mask(images, crops.box[source].to(device), background, known)

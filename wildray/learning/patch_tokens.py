"""A transformer's patches: what it says of each, and what it says when some are hidden.

In: a backbone that is a vision transformer, images, a mask over patches with the token that stands for hidden ones.
Out: vectors and patch tokens; random masks of rectangles. The mask token belongs to the method that trains with it, so
that an exported backbone has none; lightly's ``MaskedVisionTransformerTIMM`` keeps it in the network.

Shapes: B images or samples, D = dim, N patches in the order of rows, V views.
"""

from __future__ import annotations

import random

import torch
from lightly.models.utils import random_block_mask_image
from torch import Tensor, nn

from wildray.learning.backbone import Backbone

MASKED_SHARE = 0.5
"""Probability that a view is masked at all; this and the range of what is hidden then are DINOv2's (arXiv 2304.07193)
``mask_sample_probability`` and ``mask_ratio_min_max``, as iBOT's (arXiv 2111.07832)."""
MASK_RATIO = (0.1, 0.5)
MIN_BLOCK = 4
"""Least patches of a rectangle, where so many are to be hidden (the authors' code)."""


def vectors_and_patches(
    backbone: Backbone, images: Tensor, *, mask_bn: Tensor | None = None, mask_token_d: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the backbone's ``forward`` gives, and its last token of each patch.

    Args:
        backbone: A vision transformer.
        images: (B, 3, h, w) float RGB in [0, 1].
        mask_bn: (B, N) bool; where it is set the network sees the token instead of the patch.
        mask_token_d: (D,) float, given with ``mask_bn``.

    Returns:
        (B, D) vectors and (B, N, D) patches, normalised alike.

    Raises:
        ConfigError: The network is no vision transformer.
    """
    net = backbone.transformer("patch tokens")
    # timm has no argument for mask tokens, and the parts of its forward pass are private
    hooks = []
    if mask_bn is not None and mask_token_d is not None:
        hooks.append(net.patch_embed.register_forward_hook(_Masking(mask_bn, mask_token_d)))
    try:
        tokens_bnd = net.forward_features(backbone.normalised(images))
    finally:
        for hook in hooks:
            hook.remove()
    return net.forward_head(tokens_bnd), net.fc_norm(tokens_bnd[:, net.num_prefix_tokens :])


class _Masking:
    """A hook after the patch embedding that puts the token where the mask is set."""

    def __init__(self, mask_bn: Tensor, token_d: Tensor) -> None:
        self.mask_bn, self.token_d = mask_bn, token_d

    def __call__(self, _module: nn.Module, _inputs: object, patches: Tensor) -> Tensor:
        # (B, rows, columns, D), or (B, N, D) of networks that take one image size alone
        mask = self.mask_bn.view(patches.shape[:-1]).unsqueeze(-1)
        return torch.where(mask, self.token_d.to(patches.dtype), patches)


def block_masks(seeds: Tensor, *, num_views: int, side: int) -> Tensor:
    """Random rectangles of patches, a function of each sample's seed alone.

    The authors hide parts in exactly half of a batch's views, in evenly spread shares; here every view is drawn by
    itself with the same probabilities, so that a mask does not depend on who else is in a worker's batch.

    Args:
        seeds: (B,) int64, such as ``Batch.seeds``.
        num_views: V.
        side: Patches along a side of a view.

    Returns:
        (V, B, side, side) bool on the host.
    """
    state = random.getstate()  # lightly draws from the global generator
    masks = torch.zeros(num_views, len(seeds), side, side, dtype=torch.bool)
    try:
        for sample, seed in enumerate(seeds.tolist()):
            random.seed(seed)
            for view in range(num_views):
                masks[view, sample] = _block_mask(side)
    finally:
        random.setstate(state)
    return masks


def _block_mask(side: int) -> Tensor:
    if random.random() >= MASKED_SHARE:
        return torch.zeros(side, side, dtype=torch.bool)
    num_hidden = max(1, int(side * side * random.uniform(*MASK_RATIO)))
    least = min(MIN_BLOCK, num_hidden)
    mask: Tensor = random_block_mask_image((side, side), num_masks=num_hidden, min_num_masks_per_block=least)
    return mask

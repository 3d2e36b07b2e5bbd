"""From crops to unit vectors: the one way in which embedding, evaluation and the probe of a training run do it.

In: JPEG crops by address. Out: (N, D) float32 unit vectors. Crops are squashed to the backbone's square input, as in
training: cutting the square out of the middle would cut off heads and tails.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from wildray.errors import DataError
from wildray.packs import PackReader, decode_jpeg

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def load_images(reader: PackReader, packs: Sequence[str], rows: Sequence[int], *, image_size: int) -> UInt8:
    """Decode crops at the size of the backbone's input.

    Args:
        reader: Reads the packs.
        packs: Name of each crop's pack.
        rows: Its row within the pack.
        image_size: Side of the square input in pixels.

    Returns:
        (N, 3, image_size, image_size) uint8 RGB.

    Raises:
        StoreError: A crop is missing, was purged or is damaged.
    """
    images = np.empty((len(packs), 3, image_size, image_size), dtype=np.uint8)
    for index, (pack, row) in enumerate(zip(packs, rows, strict=True)):
        images[index] = load_image(reader.jpeg(pack, row), image_size=image_size)
    return images


def load_image(jpeg: bytes, *, image_size: int) -> UInt8:
    """(3, image_size, image_size) uint8 RGB of one JPEG crop; StoreError where it is none."""
    image = decode_jpeg(jpeg, at_least_px=image_size)
    shrinks = min(image.shape[:2]) >= image_size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    squashed = cv2.resize(image, (image_size, image_size), interpolation=interpolation)
    return np.asarray(squashed.transpose(2, 0, 1), dtype=np.uint8)


def unit_vectors(backbone: nn.Module, images: UInt8, *, batch_size: int) -> Float32:
    """Forward images through a frozen backbone.

    Args:
        backbone: (B, 3, h, w) float32 RGB in [0, 1] to (B, D). The modes of its modules are left as they were.
        images: (N, 3, h, w) uint8 RGB.
        batch_size: Images in a forward pass.

    Returns:
        (N, D) float32 of unit norm. A vector of zeros has no direction and takes the diagonal.

    Raises:
        DataError: The backbone gives values that are not finite.
    """
    device = next(iter(backbone.parameters())).device
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    parts = []
    try:
        with torch.no_grad():  # not inference_mode: a module may cache tensors that training uses afterwards
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(images[start : start + batch_size]).to(device).float() / 255
                parts.append(backbone(batch).float().cpu().numpy())
    finally:
        for module, mode in modes:
            module.training = mode
    return _normalised(np.concatenate(parts))


def _normalised(vectors: Float32) -> Float32:
    if not np.isfinite(vectors).all():
        num_bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise DataError(
            f"The backbone gives values that are not finite for {num_bad} of {len(vectors)} images: its training "
            "diverged. Train again with a lower train.learning_rate, or in fp32."
        )
    wide = vectors.astype(np.float64)
    wide[~wide.any(axis=1)] = 1.0
    wide /= np.abs(wide).max(axis=1, keepdims=True)  # so that squares of very large or small values stay finite
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)

"""What every detector is.

In: frames of one clip, u8 (H, W, 3) RGB. Out: ``Boxes`` in pixels of the frame. The alternative, a base class with
hooks for reading, resizing and suppressing, would tie together detectors that have nothing in common but this call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wildray.mining.boxes import Boxes

Image = npt.NDArray[np.uint8]
"""(H, W, 3) u8, RGB."""


class Detector(Protocol):
    """Finds boxes in frames; the same frames give the same boxes, bit for bit."""

    @property
    def name(self) -> str:
        """A short name for logs and tables."""

    @property
    def digest_facts(self) -> Mapping[str, object]:
        """What the boxes depend on beside the settings: hashes of weights, sizes. Plain JSON values."""

    @property
    def needs_clip(self) -> bool:
        """Whether ``images`` must be the frames of one clip, in order; else every frame stands for itself."""

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """The boxes of each frame, highest score first, clipped to the frame."""

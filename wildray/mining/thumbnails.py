"""The thumbnails of one look at a file, and what they say about change once all are there.

In: frames, in any order. Out: a ``ClipModel`` over them in the order of the file. A frame may be looked at for its own
sake only, or as a reference as well: one that says what the scene is like.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wildray.mining.detectors.clip import MIN_FRAMES, ClipModel, thumbnail
from wildray.mining.video import Frame


class Thumbnails:
    """Small grey pictures by number of frame."""

    def __init__(self) -> None:
        self._small: dict[int, npt.NDArray[np.uint8]] = {}
        self._references: set[int] = set()
        self._size_px = (1, 1)
        self._built: tuple[ClipModel, dict[int, int]] | None = None

    def add(self, frame: Frame, *, reference: bool = True) -> None:
        """Look at a frame."""
        small = thumbnail(frame.image)
        if not self._small:
            self._size_px = (frame.image.shape[1], frame.image.shape[0])
        else:
            height, width = next(iter(self._small.values())).shape
            if small.shape != (height, width):  # a stream may change its size on the way
                small = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        self._small[frame.frame_index] = small
        if reference:
            self._references.add(frame.frame_index)

    def model(self) -> ClipModel:
        """What changes, against the references; against all frames where those are too few."""
        return self._model()[0]

    def place(self, frame_index: int) -> int:
        """The place of a frame in the model."""
        return self._model()[1][frame_index]

    def _model(self) -> tuple[ClipModel, dict[int, int]]:
        if self._built is None:
            order = sorted(self._small)
            references = [place for place, index in enumerate(order) if index in self._references]
            model = ClipModel(
                [self._small[index] for index in order],
                width_px=self._size_px[0],
                height_px=self._size_px[1],
                references=references if len(references) >= MIN_FRAMES else None,
            )
            self._built = (model, {index: place for place, index in enumerate(order)})
        return self._built

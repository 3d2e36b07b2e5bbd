"""Boxes: the one value that flows from a detector to everything after it, and the overlap of boxes.

In: arrays of corners. Out: ``Boxes`` and IoU matrices. Corners are (x1, y1, x2, y2), half-open, x1 < x2 and y1 < y2, in
pixels of the original frame; the functions take any unit as long as it is one. A box without area overlaps nothing.
The alternative, a class per box, would make a Python object of each of millions of boxes; torchvision's ``nms`` would
bring torch into a stage that reads only columns, and leaves the order of equal scores open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]] | slice


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one frame.

    Attributes:
        xyxy_px: (N, 4) float32, half-open corners in pixels of the frame.
        score: (N,) float32 in [0, 1].
        category: (N,) numpy strings: animal, person, vehicle or a detector's own word.
    """

    xyxy_px: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    category: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy_px, dtype=np.float32).reshape(-1, 4)
        score = np.asarray(self.score, dtype=np.float32).reshape(-1)
        category = np.asarray(self.category, dtype=np.str_).reshape(-1)
        assert len(xyxy) == len(score) == len(category), f"{len(xyxy)}, {len(score)}, {len(category)} rows"
        object.__setattr__(self, "xyxy_px", xyxy)
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "category", category)

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, mask: Mask) -> Self:
        """The chosen boxes, by a boolean mask, by indices or by a slice."""
        return type(self)(self.xyxy_px[mask], self.score[mask], self.category[mask])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Boxes)
            and np.array_equal(self.xyxy_px, other.xyxy_px)
            and np.array_equal(self.score, other.score)
            and np.array_equal(self.category, other.category)
        )

    @classmethod
    def empty(cls) -> Self:
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.str_))

    @classmethod
    def of_category(cls, xyxy_px: npt.ArrayLike, score: npt.ArrayLike, category: str) -> Self:
        """Boxes that all have one category."""
        scores = np.asarray(score, dtype=np.float32).reshape(-1)
        return cls(np.asarray(xyxy_px, np.float32), scores, np.full(len(scores), category))

    def clipped(self, width_px: int, height_px: int) -> Self:
        """The part of each box inside the frame; boxes with no part inside, or not of finite corners, are left out.

        Args:
            width_px: Width of the frame.
            height_px: Height of the frame.
        """
        finite = np.isfinite(self.xyxy_px).all(axis=1)
        xyxy = self.xyxy_px.copy()
        xyxy[:, 0::2] = np.clip(xyxy[:, 0::2], 0, width_px)
        xyxy[:, 1::2] = np.clip(xyxy[:, 1::2], 0, height_px)
        inside = finite & (xyxy[:, 0] < xyxy[:, 2]) & (xyxy[:, 1] < xyxy[:, 3])
        return type(self)(xyxy[inside], self.score[inside], self.category[inside])

    def sorted(self) -> Self:
        """Highest score first; equal scores by corner, then by category, so that the order is one and the same."""
        x1, y1, x2, y2 = self.xyxy_px.T
        return self[np.lexsort((self.category, y2, x2, y1, x1, -self.score))]


def box_area(xyxy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(N, 4) corners to (N,) areas; boxes turned inside out have none."""
    corners = _corners(xyxy)
    return np.maximum(corners[:, 2] - corners[:, 0], 0) * np.maximum(corners[:, 3] - corners[:, 1], 0)


def iou_matrix(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of every box of ``a`` with every box of ``b``.

    Args:
        a: (N, 4) corners.
        b: (M, 4) corners in the same unit.

    Returns:
        (N, M) float64 in [0, 1]; 0 where a box has no area.
    """
    first, second = _corners(a), _corners(b)
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.maximum(bottom_right - top_left, 0).prod(axis=2)
    return _share(overlap, box_area(first)[:, None] + box_area(second)[None, :] - overlap)


def box_iou_rows(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of row i of ``a`` with row i of ``b``: (N, 4), (N, 4) to (N,) float64 in [0, 1]."""
    first, second = _corners(a), _corners(b)
    assert len(first) == len(second), f"{len(first)} and {len(second)} rows"
    top_left = np.maximum(first[:, :2], second[:, :2])
    bottom_right = np.minimum(first[:, 2:], second[:, 2:])
    overlap = np.maximum(bottom_right - top_left, 0).prod(axis=1)
    return _share(overlap, box_area(first) + box_area(second) - overlap)


def nms(boxes: Boxes, iou: float) -> Boxes:
    """Non-maximum suppression within each category: of two boxes that overlap by more, the lower score goes.

    Args:
        boxes: In any order.
        iou: Largest overlap of two boxes that both stay, in (0, 1].

    Returns:
        The boxes that stay, highest score first. Equal scores fall by corner, so the input's order does not matter.
    """
    ranked = boxes.sorted()
    keep = np.zeros(len(ranked), dtype=bool)
    for category in np.unique(ranked.category):
        rows = np.flatnonzero(ranked.category == category)
        while len(rows):
            keep[rows[0]] = True
            overlap = iou_matrix(ranked.xyxy_px[rows[:1]], ranked.xyxy_px[rows[1:]])[0]
            rows = rows[1:][overlap <= iou]
    return ranked[keep]


def _corners(xyxy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)


def _share(overlap: npt.NDArray[np.float64], union: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)

"""The outputs of ONNX detectors: which layout a file has, and its boxes.

In: the shapes and names of a file's outputs, then their values. Out: boxes in pixels of the network's input, scores,
class numbers. A dense layout is known by its number of rows, which follows from the input's size (places of strides
8, 16, 32 and, in P6 networks, 64; three times where there are anchors). The alternative, a setting for the layout,
would give garbage without a word when it is wrong.

| layout | outputs | rows |
| --- | --- | --- |
| anchors | [1, N, 5 + C], N = 3 x places: YOLOv5, YOLOv7, MegaDetector v5 | cx cy w h objectness classes |
| yolox | [1, N, 5 + C], N = places: YOLOX, decoded | the same |
| anchor_free | [1, 4 + C, N] or [1, N, 4 + C], N = places: YOLOv8, v9, v11 | cx cy w h classes |
| end_to_end | [1, N, 6]: YOLOv10, or exported with suppression | x1 y1 x2 y2 score class |
| detr | [1, Q, 4 + C]: RT-DETR of ultralytics | cx cy w h, relative; classes |
| detr_pair | [1, Q, 4] and [1, Q, C]: RT-DETR of transformers | cx cy w h, relative; logits |
| detr_triple | [1, Q], [1, Q, 4], [1, Q]: RT-DETR of its authors | labels; x1 y1 x2 y2; scores |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wildray.errors import ConfigError

Array = npt.NDArray[np.float32]
Kind = Literal["anchors", "yolox", "anchor_free", "end_to_end", "detr", "detr_pair", "detr_triple"]

UNDERSTOOD = (
    "[1, N, 5+C] (YOLOv5, v7, MegaDetector v5, decoded YOLOX), [1, 4+C, N] (YOLOv8, v9, v11), [1, N, 6] (YOLOv10, "
    "end to end), [1, Q, 4+C] or [1, Q, 4] with [1, Q, C] or labels, boxes, scores (RT-DETR)"
)


@dataclass(frozen=True)
class Layout:
    """How a file's outputs are read.

    Attributes:
        kind: See the table of this module.
        num_classes: None where the outputs do not tell.
        outputs: Names of the outputs in the order that ``read`` wants.
        transposed: Whether the rows stand in the last dimension.
    """

    kind: Kind
    num_classes: int | None
    outputs: tuple[str, ...]
    transposed: bool = False

    @property
    def squashes(self) -> bool:
        """Whether the network was trained on frames squashed to its input, rather than padded."""
        return self.kind.startswith("detr")

    @property
    def suppresses(self) -> bool:
        """Whether the network's boxes are already one per animal."""
        return self.squashes or self.kind == "end_to_end"


@dataclass(frozen=True)
class Rows:
    """Boxes of one frame: (N, 4) float32 corners in input pixels, (N,) float32 scores, (N,) class numbers."""

    xyxy_px: Array
    score: Array
    label: npt.NDArray[np.intp]


def recognise(
    shapes: Mapping[str, Sequence[int]], *, height_px: int, width_px: int, num_names: int | None, says: str = ""
) -> Layout:
    """The layout of a file.

    Args:
        shapes: Shape of each output, by name, for one frame.
        height_px: Height of the network's input.
        width_px: Its width.
        num_names: Number of class names that the file or the user gives; None where neither does.
        says: What the file's metadata says of it.

    Raises:
        ConfigError: The outputs are none of the known ones; the message says which were seen.
    """
    found: Layout | None = None
    if len(shapes) == 1:
        says_detr = "detr" in says.lower()
        ((name, shape),) = shapes.items()
        found = _single(name, tuple(shape), places(height_px, width_px), num_names, says_detr)
    elif len(shapes) == 2:
        found = _pair(shapes)
    elif len(shapes) == 3:
        found = _triple(shapes)
    if found is None:
        seen = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        classes = "unknown classes" if num_names is None else f"{num_names} classes"
        raise ConfigError(
            f"The outputs of this ONNX file are not understood: got {seen} for an input of {width_px}x{height_px} and "
            f"{classes}, expected {UNDERSTOOD}, for one frame. Is the number of classes wrong? Set detect.class_names."
        )
    return found


def places(height_px: int, width_px: int) -> tuple[int, int]:
    """Number of places of a dense network, with strides up to 32 and up to 64."""
    counts = [(height_px // stride) * (width_px // stride) for stride in (8, 16, 32, 64)]
    return sum(counts[:3]), sum(counts)


def read(
    layout: Layout, values: Sequence[npt.NDArray[np.generic]], *, min_score: float, size_px: tuple[int, int]
) -> Rows:
    """The boxes of one frame.

    Args:
        layout: From ``recognise``.
        values: The outputs in the order of ``layout.outputs``, for one frame.
        min_score: Rows below are left out.
        size_px: Width and height of the network's input, which was given as ``orig_target_sizes`` too.

    Raises:
        ConfigError: The rows are raw ones of YOLOX, not decoded.
    """
    if layout.kind == "detr_triple":
        labels, boxes, scores = (value[0] for value in values)
        return _chosen(boxes.astype(np.float32), scores.astype(np.float32), labels.astype(np.intp), min_score)
    first = values[0][0].astype(np.float32)
    rows = first.T if layout.transposed else first
    if layout.kind == "end_to_end":
        return _chosen(rows[:, :4], rows[:, 4], np.nan_to_num(rows[:, 5]).round().astype(np.intp), min_score)
    if layout.kind == "detr_pair":
        classes = 1 / (1 + np.exp(-np.clip(values[1][0].astype(np.float32), -80, 80)))
    elif layout.kind in ("anchors", "yolox"):
        classes = rows[:, 5:] * rows[:, 4:5]
    else:
        classes = rows[:, 4:]
    if layout.kind == "yolox" and (rows[:, 2:4] < 0).any():
        raise ConfigError(
            "This YOLOX file gives raw rows (widths below 0), expected decoded ones: export with --decode_in_inference."
        )
    label = classes.argmax(axis=1)
    score = classes[np.arange(len(label)), label]
    centre = rows[:, :4] * (np.array([*size_px, *size_px], np.float32) if layout.squashes else np.float32(1))
    half = centre[:, 2:] / 2
    return _chosen(np.concatenate([centre[:, :2] - half, centre[:, :2] + half], axis=1), score, label, min_score)


def _chosen(xyxy: Array, score: Array, label: npt.NDArray[np.intp], min_score: float) -> Rows:
    keep = score >= min_score  # false where the score is not a number
    return Rows(xyxy[keep], np.minimum(score[keep], np.float32(1)), label[keep])


def _single(
    name: str, shape: tuple[int, ...], grid: tuple[int, int], num_names: int | None, detr: bool
) -> Layout | None:
    if len(shape) != 3 or shape[0] != 1:
        return None
    dense = {count: "once" for count in grid} | {3 * count: "anchors" for count in grid}
    transposed = shape[2] in dense and shape[1] not in dense
    num_rows, width = (shape[2], shape[1]) if transposed else (shape[1], shape[2])
    if num_rows in dense and dense[num_rows] == "anchors":
        return _classes(Layout("anchors", width - 5, (name,), transposed), num_names)
    if num_rows in dense:
        free = Layout("anchor_free", width - 4, (name,), transposed)
        with_objectness = Layout("yolox", width - 5, (name,), transposed)
        likelier, other = (free, with_objectness) if transposed else (with_objectness, free)
        return _classes(likelier, num_names) or _classes(other, num_names)
    if width == 6 and not detr:
        return Layout("end_to_end", None, (name,))
    return _classes(Layout("detr", width - 4, (name,)), num_names)


def _classes(layout: Layout, num_names: int | None) -> Layout | None:
    """The layout where it has classes, and as many as there are names."""
    count = layout.num_classes
    return layout if count is not None and count > 0 and num_names in (None, count) else None


def _pair(shapes: Mapping[str, Sequence[int]]) -> Layout | None:
    boxes = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    if len(boxes) == 2:
        boxes = [name for name in boxes if "box" in name.lower()]
    if len(boxes) != 1:
        return None
    (scores,) = (name for name in shapes if name != boxes[0])
    if len(shapes[scores]) != 3 or list(shapes[scores][:2]) != list(shapes[boxes[0]][:2]) or shapes[scores][0] != 1:
        return None
    return Layout("detr_pair", shapes[scores][2], (boxes[0], scores))


def _triple(shapes: Mapping[str, Sequence[int]]) -> Layout | None:
    names = {word: [name for name in shapes if word in name.lower()] for word in ("label", "box", "score")}
    if any(len(found) != 1 for found in names.values()):
        return None
    labels, boxes, scores = (names[word][0] for word in ("label", "box", "score"))
    fits = len(shapes[boxes]) == 3 and shapes[boxes][2] == 4 and list(shapes[labels]) == list(shapes[scores])
    if not fits or list(shapes[labels]) != list(shapes[boxes][:2]) or shapes[labels][0] != 1:
        return None
    return Layout("detr_triple", None, (labels, boxes, scores))

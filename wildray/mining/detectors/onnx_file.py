"""A detector from an ONNX file: MegaDetector exports, any YOLO-family network or RT-DETR.

In: frames. Out: boxes of the file's classes. The layout of its outputs is recognised (``layouts``), class names come
from its metadata or from ``detect.class_names``. The alternative, loading checkpoints, would run pickled code and bring
each family's own programs.
"""

from __future__ import annotations

import ast
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from wildray.errors import ConfigError, WeightsError
from wildray.mining.boxes import Boxes, nms
from wildray.mining.detectors.base import Image
from wildray.mining.detectors.categories import category_of, default_classes
from wildray.mining.detectors.layouts import Layout, read, recognise
from wildray.weights import file_sha256

logger = logging.getLogger(__name__)

DEFAULT_PX = 640
MAX_PX = 8192
GREY = 114  # what the YOLO family pads with
MAX_METADATA = 1_000_000
SIZES_INPUT = "orig_target_sizes"
_RUNTIME_ERRORS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NoModel,
    runtime_errors.NoSuchFile,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)
_DTYPES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxDetector:
    """A detector from an ONNX file.

    Args:
        path: The file.
        min_score: Boxes below are left out.
        nms_iou: Of two boxes of a category that overlap by more than this IoU the lower score goes, where the network
            does not see to it itself.
        threads: CPU threads; part of what the last bits of a score depend on.
        class_names: In the order of the outputs; empty: from the file's metadata, else by their number.

    Raises:
        WeightsError: There is no such file, or it is no ONNX model or damaged.
        ConfigError: Its inputs, outputs or classes are not understood.
    """

    needs_clip = False

    def __init__(
        self, path: Path, *, min_score: float, nms_iou: float, threads: int = 1, class_names: Sequence[str] = ()
    ) -> None:
        begin = time.monotonic()
        self.name = path.stem
        self._path, self._min_score, self._nms_iou = path, min_score, nms_iou
        self._session = _open(path, threads)
        self._sha256 = file_sha256(path)
        metadata = self._session.get_modelmeta()
        names = tuple(class_names) or _names_in(metadata.custom_metadata_map)
        self._input, self._dtype, self._takes_sizes = self._check_inputs()
        self._width_px, self._height_px = self._input_size(metadata.custom_metadata_map)
        says = f"{metadata.custom_metadata_map.get('description', '')} {metadata.graph_name}"
        self._layout = self._recognise(len(names) or None, says)
        self._names = self._class_names(names)
        self._categories = np.array([category_of(name) for name in self._names])
        logger.info(
            "%s: %s, %dx%d px, %s, %d threads, loaded in %.1f s",
            path,
            self._layout.kind,
            self._width_px,
            self._height_px,
            ", ".join(self._names),
            threads,
            time.monotonic() - begin,
        )

    @property
    def digest_facts(self) -> Mapping[str, object]:
        """The file's bytes, and how it is read."""
        return {
            "detector": "onnx",
            "sha256": self._sha256,
            "input_px": [self._width_px, self._height_px],
            "layout": self._layout.kind,
            "classes": list(self._names),
        }

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """The boxes of each frame; one frame goes through the network at a time, so that none depends on another."""
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Boxes:
        height, width = image.shape[:2]
        batch, scale, offset = self._prepared(image)
        values = self._run(batch, self._layout.outputs)
        size_px = self._width_px, self._height_px
        rows = read(self._layout, values, min_score=self._min_score, size_px=size_px)
        if len(rows.label) and not 0 <= rows.label.min() <= rows.label.max() < len(self._categories):
            raise ConfigError(
                f"{self._path}: got a box of class {rows.label.max()}, expected 0 to {len(self._categories) - 1}. "
                "List all its classes in detect.class_names."
            )
        xyxy = ((rows.xyxy_px - np.tile(offset, 2)) / np.tile(scale, 2)).astype(np.float32)
        boxes = Boxes(xyxy, rows.score, self._categories[rows.label]).clipped(width, height)
        return boxes.sorted() if self._layout.suppresses else nms(boxes, self._nms_iou)

    def _prepared(
        self, image: Image
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(1, 3, h, w) input, and the (2,) factors and shifts, x and y, from corners of the frame to its own."""
        height, width = image.shape[:2]
        to = np.array([self._width_px, self._height_px])
        scale = to / [width, height]
        if not self._layout.squashes:
            scale = np.full(2, scale.min())
        inner_w, inner_h = np.maximum(np.round([width * scale[0], height * scale[1]]), 1).astype(int).tolist()
        method = cv2.INTER_AREA if scale.max() < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, (inner_w, inner_h), interpolation=method)
        yolox = self._layout.kind == "yolox"
        left, top = (0, 0) if yolox else ((to - [inner_w, inner_h]) // 2).tolist()
        padded = np.full((self._height_px, self._width_px, 3), 0 if yolox else GREY, dtype=np.uint8)
        padded[top : top + inner_h, left : left + inner_w] = resized
        batch = padded.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(1 if yolox else 255)
        scale = np.array([inner_w / width, inner_h / height])
        return np.ascontiguousarray(batch.astype(self._dtype)), scale, np.array([left, top], dtype=np.float64)

    def _run(self, batch: npt.NDArray[np.generic], outputs: Sequence[str] | None) -> list[npt.NDArray[np.generic]]:
        feed = {self._input: batch}
        if self._takes_sizes:
            feed[SIZES_INPUT] = np.array([[self._width_px, self._height_px]], dtype=np.int64)
        try:
            values: list[npt.NDArray[np.generic]] = self._session.run(outputs, feed)
        except _RUNTIME_ERRORS as error:
            raise WeightsError(
                f"{self._path} fails on a frame of {self._width_px}x{self._height_px} px: {_first_line(error)}"
            ) from None
        return values

    def _check_inputs(self) -> tuple[str, type[np.generic], bool]:
        """Name and type of the image input, and whether the file asks for the frame's size."""
        inputs = {item.name: item for item in self._session.get_inputs()}
        takes_sizes = SIZES_INPUT in inputs
        images = [item for name, item in inputs.items() if name != SIZES_INPUT]
        fits = len(images) == 1 and len(images[0].shape) == 4 and images[0].type in _DTYPES
        if not fits or (images[0].shape[1] not in (3, None) and not isinstance(images[0].shape[1], str)):
            seen = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs.values())
            raise ConfigError(
                f"The inputs of {self._path} are not understood: got {seen}, expected one image input of floats, "
                f"[1, 3, height, width] (and, for RT-DETR, {SIZES_INPUT})."
            )
        batch = images[0].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise ConfigError(f"{self._path} takes {batch} frames at a time, expected 1. Export it with a batch of 1.")
        return images[0].name, _DTYPES[images[0].type], takes_sizes

    def _input_size(self, metadata: Mapping[str, str]) -> tuple[int, int]:
        """Width and height of the input; where the file leaves them open, what its metadata says, else 640."""
        height, width = self._image_input_shape()[2:]
        said = _literal(metadata.get("imgsz", ""))
        if isinstance(said, int):
            said = [said, said]
        open_size = [DEFAULT_PX, DEFAULT_PX]
        if isinstance(said, list | tuple) and len(said) == 2 and all(isinstance(side, int) for side in said):
            open_size = [min(max(side, 32), MAX_PX) for side in said]
        return (
            width if isinstance(width, int) and width > 0 else open_size[1],
            height if isinstance(height, int) and height > 0 else open_size[0],
        )

    def _image_input_shape(self) -> list[int | str | None]:
        (shape,) = (item.shape for item in self._session.get_inputs() if item.name == self._input)
        return list(shape)

    def _recognise(self, num_names: int | None, says: str) -> Layout:
        shapes = {item.name: item.shape for item in self._session.get_outputs()}
        if any(not isinstance(size, int) for shape in shapes.values() for size in shape or [None]):
            grey = np.full((1, 3, self._height_px, self._width_px), GREY / 255, dtype=self._dtype)
            values = self._run(grey, None)
            shapes = {name: value.shape for name, value in zip(shapes, values, strict=True)}
        return recognise(shapes, height_px=self._height_px, width_px=self._width_px, num_names=num_names, says=says)

    def _class_names(self, names: Sequence[str]) -> tuple[str, ...]:
        count = self._layout.num_classes
        found = names or (default_classes(count) if count is not None else None)
        if not found:
            raise ConfigError(
                f"{self._path} does not say its classes ({'number unknown' if count is None else count}). "
                "List them in detect.class_names, in the order of its outputs."
            )
        if count is not None and len(found) != count:
            raise ConfigError(
                f"{self._path} has {count} classes, detect.class_names or its metadata name {len(found)}: "
                f"{', '.join(found)}. List as many as it has."
            )
        return tuple(found)


def _open(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise WeightsError(f"detect.detector: {path}: no such file. Give the path of an ONNX file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _RUNTIME_ERRORS as error:
        raise WeightsError(
            f"{path} cannot be loaded as an ONNX model; it may be cut off or of another kind: {_first_line(error)}"
        ) from None


def _names_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names as ultralytics' programs write them: the text of a dict of numbers to names, or of a list."""
    said = _literal(metadata.get("names", ""))
    if isinstance(said, dict) and sorted(said, key=str) == sorted(range(len(said)), key=str):
        said = [said[number] for number in range(len(said))]
    if isinstance(said, list | tuple) and all(isinstance(name, str) for name in said):
        return tuple(said)
    return ()


def _literal(text: str) -> object:
    """The value of a Python literal, such as metadata hold; None where it is none. Nothing is executed."""
    if len(text) > MAX_METADATA:
        return None
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

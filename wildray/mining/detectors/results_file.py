"""MegaDetector's batch output, format 1.6: from JSON to arrays per file, every value checked, and back.

In: the bytes of a results file that anybody may have written. Out: ``ListedFile`` rows, or a ``DataError`` that says
where the file goes wrong. Boxes are [x_min, y_min, width, height], relative to the frame. The alternative, trusting the
file and letting a wrong type surface in a stage, would say nothing of the place; a schema library is slow on millions
of boxes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from wildray.errors import DataError
from wildray.mining.detectors.categories import MEGADETECTOR_CLASSES, category_of

FORMAT_VERSION = "1.6"
SCHEME = "results:"
"""Begins the address of a medium that is not at hand."""
MAX_BYTES = 4 << 30
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_SHOWN = 80
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, eq=False)
class ListedFile:
    """What a results file says of one still or video.

    Attributes:
        file: Its name, as it stands there.
        failure: Why it could not be looked at; None where it was.
        frame_rate: Frames per second of a video; None for stills.
        frames: (F,) int32, the frames of a video that were looked at, ascending; a still's is 0.
        frame_number: (N,) int32, frame of each box; 0 in stills.
        xyxy: (N, 4) float32, half-open corners relative to the frame, in [0, 1].
        score: (N,) float32 in [0, 1].
        category: (N,) numpy strings.
        num_frames: Frames of a video, where that is known.
        colour: (N, 54) uint8, the colours of each box where somebody described them; None where nobody did.
        has_colour: (N,) bool, which boxes have colours; None where none has.
    """

    file: str
    failure: str | None
    frame_rate: float | None
    frames: npt.NDArray[np.int32]
    frame_number: npt.NDArray[np.int32]
    xyxy: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    category: npt.NDArray[np.str_]
    num_frames: int | None = None
    colour: npt.NDArray[np.uint8] | None = None
    has_colour: npt.NDArray[np.bool_] | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.frame_rate is not None


class Reader:
    """Checks the content of one results file.

    Args:
        path: Where it lies, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_without_area = 0
        self._categories: dict[str, str] = {}

    def read(self, content: bytes) -> tuple[Mapping[str, Any], list[ListedFile]]:
        """The ``info`` of the file and what it says of each still and video.

        Raises:
            DataError: It is not JSON or not of the format; the message says where.
        """
        top = self._mapping(self._parsed(content), "the file")
        info = self._mapping(self._field(top, "info", "the file"), "info")
        version = self._text(self._field(info, "format_version", "info"), "info.format_version")
        if version.removeprefix("v").split(".")[0] != "1":
            self._wrong("info.format_version", version, f'"{FORMAT_VERSION}" or another version 1')
        names = self._mapping(self._field(top, "detection_categories", "the file"), "detection_categories")
        self._categories = {
            key: category_of(self._text(name, f"detection_categories[{key!r}]")) for key, name in names.items()
        }
        images = self._list(self._field(top, "images", "the file"), "images")
        files = [self._file(self._mapping(image, f"images[{i}]"), f"images[{i}]") for i, image in enumerate(images)]
        first: dict[str, int] = {}
        for i, listed in enumerate(files):
            if first.setdefault(listed.file, i) != i:
                self._wrong(f"images[{i}].file", listed.file, f"another name than images[{first[listed.file]}] has")
        return info, files

    def _parsed(self, content: bytes) -> Any:
        def refuse(constant: str) -> NoReturn:
            raise ValueError(f"it holds {constant}, which is no number")

        try:
            return json.loads(content.decode("utf-8-sig"), parse_constant=refuse)
        except RecursionError:
            raise self._error("it is nested too deeply for a results file") from None
        except ValueError as error:  # broken JSON, broken UTF-8, a number of thousands of digits
            raise self._error(f"it is not JSON: {error}") from None

    def _file(self, image: Mapping[str, Any], where: str) -> ListedFile:
        name = self._text(self._field(image, "file", where), f"{where}.file")
        if not name.strip() or "\0" in name:
            self._wrong(f"{where}.file", name, "the name of a file")
        failure = image.get("failure")
        if failure is not None:
            failure = self._text(failure, f"{where}.failure")
        listed = image.get("detections")
        if listed is None and failure is None:
            self._wrong(f"{where}.detections", listed, "a list ([] where nothing was found) or a failure")
        place = f"{where}.detections"
        boxes = [self._mapping(box, f"{place}[{i}]") for i, box in enumerate(self._list(listed or [], place))]
        is_video = "frame_rate" in image or "frames_processed" in image or any("frame_number" in box for box in boxes)
        rate = self._number(self._field(image, "frame_rate", where), f"{where}.frame_rate") if is_video else None
        if rate is not None and rate <= 0:
            self._wrong(f"{where}.frame_rate", rate, "frames per second above 0")
        numbers = [self._frame(box, f"{place}[{i}]") if is_video else 0 for i, box in enumerate(boxes)]
        frames = self._frames(image, numbers, where) if is_video else [] if failure is not None else [0]
        rows = [self._box(box, f"{place}[{i}]") for i, box in enumerate(boxes)]
        xyxy = np.array([row[:4] for row in rows], dtype=np.float32).reshape(-1, 4)
        kept = (xyxy[:, 0] < xyxy[:, 2]) & (xyxy[:, 1] < xyxy[:, 3])
        self.num_without_area += int((~kept).sum())
        return ListedFile(
            file=name,
            failure=failure,
            frame_rate=rate,
            frames=np.array(frames, dtype=np.int32),
            frame_number=np.array(numbers, dtype=np.int32)[kept],
            xyxy=xyxy[kept],
            score=np.array([row[4] for row in rows], dtype=np.float32)[kept],
            category=np.array([row[5] for row in rows], dtype=np.str_)[kept],
        )

    def _frames(self, image: Mapping[str, Any], numbers: Sequence[int], where: str) -> list[int]:
        listed = image.get("frames_processed")
        if listed is None:  # not asked for before version 1.5: what is known then is where boxes are
            return sorted(set(numbers))
        place = f"{where}.frames_processed"
        frames = {self._index(frame, f"{place}[{i}]") for i, frame in enumerate(self._list(listed, place))}
        for i, number in enumerate(numbers):
            if number not in frames:
                self._wrong(f"{where}.detections[{i}].frame_number", number, "one of frames_processed")
        return sorted(frames)

    def _frame(self, box: Mapping[str, Any], where: str) -> int:
        return self._index(self._field(box, "frame_number", where), f"{where}.frame_number")

    def _box(self, box: Mapping[str, Any], where: str) -> tuple[float, float, float, float, float, str]:
        key = self._text(self._field(box, "category", where), f"{where}.category")
        if key not in self._categories:
            self._wrong(f"{where}.category", key, "one of detection_categories: " + ", ".join(self._categories))
        score = self._number(self._field(box, "conf", where), f"{where}.conf")
        if not 0 <= score <= 1:
            self._wrong(f"{where}.conf", score, "a number from 0 to 1")
        corners = self._list(self._field(box, "bbox", where), f"{where}.bbox")
        if len(corners) != 4:
            self._wrong(f"{where}.bbox", corners, "four numbers: x_min, y_min, width, height")
        x, y, width, height = (self._number(value, f"{where}.bbox[{i}]") for i, value in enumerate(corners))
        if max(abs(x), abs(y), abs(width), abs(height)) > 2 or width < 0 or height < 0:
            self._wrong(f"{where}.bbox", corners, "x_min, y_min, width, height relative to the frame (0 to 1)")
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x, y, x + width, y + height))
        return x1, y1, x2, y2, score, self._categories[key]

    def _field(self, mapping: Mapping[str, Any], name: str, where: str) -> Any:
        if name not in mapping:
            raise self._error(f"{where} has no {name!r}; it has: {', '.join(list(mapping)[:12]) or 'nothing'}")
        return mapping[name]

    def _mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        return value if isinstance(value, dict) else self._wrong(where, value, "an object")

    def _list(self, value: Any, where: str) -> list[Any]:
        return value if isinstance(value, list) else self._wrong(where, value, "a list")

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            self._wrong(where, value, "a string")
        if not value.isascii() and _SURROGATE.search(value):
            self._wrong(where, value, "text that can be written as UTF-8")
        return value

    def _number(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(where, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else self._wrong(where, value, "a finite number")

    def _index(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            self._wrong(where, value, "a whole number from 0 to 2^31 - 1")
        return int(value)

    def _wrong(self, where: str, value: Any, expected: str) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        raise self._error(f"{where}: got {shown}, expected {expected}")

    def _error(self, what: str) -> DataError:
        return DataError(f"{self.path} is not a MegaDetector results file of format {FORMAT_VERSION}: {what}.")


def to_json(files: Sequence[ListedFile], info: Mapping[str, object]) -> str:
    """The text of a results file in format 1.6.

    Args:
        files: What is said of each still and video.
        info: Further entries of ``info``, such as ``detector``.
    """
    words = set(MEGADETECTOR_CLASSES).union(*(set(listed.category.tolist()) for listed in files))
    others = sorted(words - set(MEGADETECTOR_CLASSES))
    keys = {word: str(number) for number, word in enumerate((*MEGADETECTOR_CLASSES, *others), start=1)}
    content = {
        "info": {**info, "format_version": FORMAT_VERSION},
        "detection_categories": {key: word for word, key in keys.items()},
        "images": [_image(listed, keys) for listed in files],
    }
    return json.dumps(content, allow_nan=False, indent=1)


def _image(listed: ListedFile, keys: Mapping[str, str]) -> dict[str, object]:
    image: dict[str, object] = {"file": listed.file}
    if listed.is_video:
        image |= {"frame_rate": listed.frame_rate, "frames_processed": listed.frames.tolist()}
    if listed.failure is not None:
        return image | {"failure": listed.failure, "detections": None}
    size = listed.xyxy[:, 2:].astype(np.float64) - listed.xyxy[:, :2]
    boxes = np.concatenate([listed.xyxy[:, :2], size], axis=1).round(6).tolist()
    detections = []
    for number, box, score, word in zip(listed.frame_number, boxes, listed.score, listed.category, strict=True):
        frame = {"frame_number": int(number)} if listed.is_video else {}
        detections.append({"category": keys[str(word)], "conf": round(float(score), 6), "bbox": box, **frame})
    return image | {"detections": detections}

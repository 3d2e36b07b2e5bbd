"""One chunk of detection, done in one process: frames in, rows and crops out.

In: a chunk's plan (media and their windows), a source of frames, a detector. Out: the tables media, frames and
detections, and packs of crops, published whole. Pixels live only between decoding and cropping: of each frame a grey
thumbnail is kept until its window ends, for the evidence of motion, of some a small colour picture, for the
background, and of boxes the encoded crops. The alternative, a row with pixels per frame between separate processes,
moves gigabytes to save nothing: decoding already runs in a process of its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.config import DetectConfig
from wildray.errors import MediaError, StageError
from wildray.mining.background import CROP_PX, Background
from wildray.mining.boxes import Boxes
from wildray.mining.chunks import Row, from_json, windows
from wildray.mining.colour import colour_signature
from wildray.mining.detectors import Detector
from wildray.mining.detectors.clip import ClipModel, thumbnail
from wildray.mining.detectors.motion import MotionDetector
from wildray.mining.detectors.results import Results
from wildray.mining.purge import purged_media
from wildray.mining.sandbox import FrameSource
from wildray.mining.video import Frame, Report
from wildray.packs import PackWriter, crop_image, decode_jpeg, encode_jpeg
from wildray.schema import DETECTIONS, FRAMES, MEDIA, detection_ids

logger = logging.getLogger(__name__)

PERSON = "person"
FIRST_PASS = 0
"""``sampling_pass`` of frames at the base interval."""


@dataclass
class _Rows:
    """What a chunk has come to so far."""

    uncropped: set[str]  # media whose crops were purged: they get none, and no colours
    media: list[Row] = field(default_factory=list)
    frames: list[Row] = field(default_factory=list)
    detections: list[Row] = field(default_factory=list)


class _Clip:
    """The thumbnails of a window, and what they say about change once all are there."""

    def __init__(self) -> None:
        self._thumbnails: list[npt.NDArray[np.uint8]] = []
        self._size_px = (1, 1)
        self._model: ClipModel | None = None

    def add(self, frame: Frame) -> None:
        small = thumbnail(frame.image)
        if not self._thumbnails:
            self._size_px = (frame.image.shape[1], frame.image.shape[0])
        elif small.shape != self._thumbnails[0].shape:  # a stream may change its size on the way
            height, width = self._thumbnails[0].shape
            small = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        self._thumbnails.append(small)

    def model(self) -> ClipModel:
        if self._model is None:
            self._model = ClipModel(self._thumbnails, width_px=self._size_px[0], height_px=self._size_px[1])
        return self._model


@dataclass(frozen=True)
class ChunkWorker:
    """Does chunks of one detection.

    Attributes:
        config: Settings of detect.
        collection: Where the chunks belong.
        source: Frames of media.
        detector: Boxes of frames; None where ``results`` has them.
        results: Boxes that were computed elsewhere, by file.
    """

    config: DetectConfig
    collection: Collection
    source: FrameSource
    detector: Detector | None
    results: Results | None

    def run(self, chunk: str, part: str | None) -> dict[str, Any]:
        """Do one planned chunk and record it; returns the record.

        Args:
            chunk: Of the collection's plans.
            part: The part of a plan it stands in; None where it has a plan of its own, as in older stores.

        Raises:
            StageError: Two boxes got one id (a probability of 2^-64 per pair).
            StoreError: The store cannot be written.
        """
        rows = _Rows(uncropped=purged_media(self.collection.store))
        packs = PackWriter(self.collection.store, ("crops", self.collection.digest), chunk)
        for medium in self._planned(chunk, part):
            if self.results is not None and medium["kind"] == "results":
                self._adopt(medium, rows)
            else:
                self._medium(medium, windows(medium, self.config.window.seconds), rows, packs)
            rows.media.append(medium)
        names = packs.close()
        ids = [row["detection_id"] for row in rows.detections]
        if len(set(ids)) < len(ids):
            raise StageError(f"Two boxes of chunk {chunk} have one id. Change any setting of detect by a little.")
        self.collection.write("media", chunk, pa.Table.from_pylist(rows.media, schema=MEDIA))
        self.collection.write("frames", chunk, pa.Table.from_pylist(rows.frames, schema=FRAMES))
        self.collection.write("detections", chunk, pa.Table.from_pylist(rows.detections, schema=DETECTIONS))
        record = {
            "num_media": len(rows.media),
            "failed": [row["media_id"] for row in rows.media if row["status"] != "done"],
            "cameras": sorted({row["camera_id"] for row in rows.media}),
            "num_frames": len(rows.frames),
            "num_detections": len(rows.detections),
            "packs": names,
        }
        self.collection.done(chunk, record)
        return record

    def _planned(self, chunk: str, part: str | None) -> list[Row]:
        """The Media rows of a chunk."""
        if part is None:
            return [from_json(row) for row in self.collection.plan_of(chunk)["media"]]
        plan = _part(self.collection, part)
        rows: list[Row] = plan.filter(pc.equal(plan["chunk"], chunk)).drop_columns(["chunk"]).to_pylist()
        return rows

    def _medium(
        self, medium: Row, windows: Iterable[tuple[float, float | None]], rows: _Rows, packs: PackWriter
    ) -> None:
        """Look at one file; what goes wrong with it becomes its status."""
        try:
            for start_s, stop_s in windows:
                self._window(medium, start_s, stop_s, rows, packs)
        except MediaError as error:
            medium["status"], medium["error"] = error.status, str(error)
            logger.warning("%s", error)

    def _frames(self, medium: Row, start_s: float, stop_s: float | None) -> Iterator[Frame]:
        listed = self.results.frames_of(medium["uri"]) if self.results is not None else None
        return self.source.decode(
            medium["uri"],
            medium["kind"],
            interval_s=self.config.base_interval.seconds,
            sampling=self.config.sampling,
            start_s=start_s,
            stop_s=stop_s,
            frame_indices=listed,
        )

    def _window(self, medium: Row, start_s: float, stop_s: float | None, rows: _Rows, packs: PackWriter) -> None:
        clip = None
        if isinstance(self.detector, MotionDetector):  # a first pass, for thumbnails only
            clip = _Clip()
            for frame in self._frames(medium, start_s, stop_s):
                clip.add(frame)
        seen = _Clip()
        background = Background()
        crops: list[tuple[Row, bytes]] = []  # wait for the background
        found: list[tuple[int, int, Boxes]] = []  # number of the frame in the window, first row of its boxes, boxes
        try:
            for number, frame in enumerate(self._frames(medium, start_s, stop_s)):
                boxes = self._boxes(medium, frame, clip.model() if clip else None, number)
                found.append((number, len(rows.detections), boxes))
                seen.add(frame)
                background.add(frame.image, boxes.xyxy_px)
                crops += self._keep(medium, frame, boxes, rows)
        finally:  # what was seen of a file before it broke is kept
            self._pack(crops, background, packs)
        if self.source.report is not None:
            _note(medium, self.source.report)
        model = (clip or seen).model()
        for number, first, boxes in found:
            motion = model.motion(number, boxes.xyxy_px)
            for row, value in zip(rows.detections[first : first + len(boxes)], motion, strict=True):
                row["motion"] = None if np.isnan(value) else float(value)

    def _boxes(self, medium: Row, frame: Frame, clip: ClipModel | None, number: int) -> Boxes:
        height_px, width_px = frame.image.shape[:2]
        if self.results is not None:
            boxes = self.results.boxes_of(medium["uri"], frame.frame_index, frame_size_px=(width_px, height_px))
        elif isinstance(self.detector, MotionDetector):
            assert clip is not None
            boxes = self.detector.boxes(clip, number)
        else:
            assert self.detector is not None
            boxes = self.detector.detect([frame.image])[0]
        return boxes[boxes.score >= self.config.min_score]

    def _keep(self, medium: Row, frame: Frame, boxes: Boxes, rows: _Rows) -> list[tuple[Row, bytes]]:
        """Note a frame and its boxes; returns the rows that have a crop, with its JPEG."""
        crops = []
        rows.frames.append(_frame_row(medium, frame.frame_index, frame.time_s, len(boxes), infrared=frame.infrared))
        height_px, width_px = frame.image.shape[:2]
        for row in self._detection_rows(medium, frame.frame_index, frame.time_s, boxes, (width_px, height_px)):
            corners = (row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"])
            purged = medium["media_id"] in rows.uncropped
            if not purged:
                row["colour"] = colour_signature(frame.image, corners)
            if not purged and (row["category"] != PERSON or self.config.crop_people):
                longest_px, padding = self.config.crop_longest_px, self.config.crop_padding
                crop = crop_image(frame.image, corners, padding=padding, longest_px=longest_px)
                crops.append((row, encode_jpeg(crop)))
            rows.detections.append(row)
        return crops

    def _pack(self, crops: list[tuple[Row, bytes]], background: Background, packs: PackWriter) -> None:
        for row, jpeg in crops:
            behind = background.crop(
                decode_jpeg(jpeg, at_least_px=CROP_PX),
                (row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"]),
                size_px=(row["width_px"], row["height_px"]),
                padding=self.config.crop_padding,
            )
            row["crop_pack"], row["crop_row"] = packs.add(row["detection_id"], jpeg, behind)

    def _adopt(self, medium: Row, rows: _Rows) -> None:
        """Take over the boxes of a medium that is not at hand: no crops, sizes as far as the results know them."""
        assert self.results is not None
        size = (medium["width_px"], medium["height_px"]) if medium["width_px"] else None
        purged = medium["media_id"] in rows.uncropped
        for frame_index, time_s, boxes, colours in self.results.frames_at(medium["uri"], frame_size_px=size):
            kept = np.flatnonzero(boxes.score >= self.config.min_score)
            rows.frames.append(_frame_row(medium, frame_index, time_s, len(kept), infrared=False))
            found = self._detection_rows(medium, frame_index, time_s, boxes[kept], size)
            for row, place in zip(found, kept.tolist(), strict=True):
                row["colour"] = None if purged else colours[place]
            rows.detections.extend(found)

    def _detection_rows(
        self, medium: Mapping[str, Any], frame_index: int, time_s: float, boxes: Boxes, size: tuple[int, int] | None
    ) -> list[Row]:
        indices = np.full(len(boxes), frame_index)
        ids = detection_ids(medium["media_id"], self.collection.digest, indices, np.arange(len(boxes)))
        return [
            {
                "detection_id": int(ids[ordinal]),
                "media_id": medium["media_id"],
                "camera_id": medium["camera_id"],
                "frame_index": frame_index,
                "time_s": time_s,
                "captured_at": medium["captured_at"],
                "width_px": size[0] if size else None,
                "height_px": size[1] if size else None,
                **dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), boxes.xyxy_px[ordinal].tolist(), strict=True)),
                "score": float(boxes.score[ordinal]),
                "category": str(boxes.category[ordinal]),
                "motion": None,
                "colour": None,
                "crop_pack": None,
                "crop_row": None,
            }
            for ordinal in range(len(boxes))
        ]


@functools.lru_cache(maxsize=1)
def _part(collection: Collection, part: str) -> pa.Table:
    """A part of a plan, kept from one chunk to the next. It never changes once it is recorded."""
    return collection.plan_part(part)


def _frame_row(medium: Mapping[str, Any], index: int, time_s: float, num_boxes: int, *, infrared: bool) -> Row:
    return {
        "media_id": medium["media_id"],
        "frame_index": index,
        "time_s": time_s,
        "sampling_pass": FIRST_PASS,
        "num_boxes": num_boxes,
        "infrared": infrared,
    }


def _note(medium: Row, report: Report) -> None:
    """Keep what decoding counted: containers misstate it."""
    if medium["kind"] == "video":
        medium["num_frames"], medium["duration_s"] = report.num_frames, report.duration_s
    if report.note:
        medium["error"] = report.note
        logger.warning("%s: %s", medium["uri"], report.note)

"""One chunk of detection, done in one process: frames in, rows and crops out.

In: a chunk's plan (media, and what is looked at of them), a source of frames, a detector. Out: the tables media,
frames and detections, and packs of crops, published whole. Pixels live only between decoding and cropping: of each
frame a grey thumbnail is kept until its look ends, for the evidence of motion, of some a small colour picture, for the
background, and of boxes the encoded crops. The alternative, a row with pixels per frame between separate processes,
moves gigabytes to save nothing: decoding already runs in a process of its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.config import DetectConfig
from wildray.errors import MediaError
from wildray.mining.background import CROP_PX, Background
from wildray.mining.boxes import Boxes
from wildray.mining.chunks import Row, from_json
from wildray.mining.colour import colour_signature
from wildray.mining.detectors import Detector
from wildray.mining.detectors.motion import MotionDetector
from wildray.mining.detectors.results import Results
from wildray.mining.found import Found, detection_rows, frame_row
from wildray.mining.looks import FIRST_PASS, Look, looks
from wildray.mining.purge import purged_media
from wildray.mining.sandbox import FrameSource
from wildray.mining.thumbnails import Thumbnails
from wildray.mining.video import Frame, Report
from wildray.packs import PackWriter, crop_image, decode_jpeg, encode_jpeg

logger = logging.getLogger(__name__)

PERSON = "person"


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
            StoreError: The store cannot be read or written.
        """
        rows = Found(uncropped=purged_media(self.collection.store))
        packs = PackWriter(self.collection.store, ("crops", self.collection.digest), chunk)
        again: str | None = None
        for medium in self._planned(chunk, part):
            again = medium.get("again")
            if self.results is not None and medium["kind"] == "results":
                self._adopt(medium, rows)
            else:
                self._medium(medium, rows, packs)
            if again is None:  # else the row stands in the base pass's chunk
                rows.media.append(medium)
        names = packs.close()
        rows.write(self.collection, chunk)
        record = {**rows.record(), "packs": names}
        if again is not None:
            record |= {"again": again, "num_dense_frames": len(rows.frames), "not_again": sorted(rows.failed)}
        self.collection.done(chunk, record)
        return record

    def _planned(self, chunk: str, part: str | None) -> list[Row]:
        """The Media rows of a chunk."""
        if part is None:
            return [from_json(row) for row in self.collection.plan_of(chunk)["media"]]
        plan = _part(self.collection, part)
        rows: list[Row] = plan.filter(pc.equal(plan["chunk"], chunk)).drop_columns(["chunk"]).to_pylist()
        return rows

    def _medium(self, medium: Row, rows: Found, packs: PackWriter) -> None:
        """Look at one file; what goes wrong with it becomes its status."""
        try:
            for look in looks(medium, self.config, self.collection):
                self._look(medium, look, rows, packs)
        except MediaError as error:
            medium["status"], medium["error"] = error.status, str(error)
            logger.warning("%s", error)
        if medium["status"] != "done":
            rows.failed.add(medium["media_id"])

    def _frames(self, medium: Row, look: Look, rows: Found) -> Iterator[Frame]:
        listed = self.results.frames_of(medium["uri"]) if self.results is not None else None
        for start_s, stop_s in look.spans:
            for frame in self.source.decode(
                medium["uri"],
                medium["kind"],
                interval_s=look.interval_s,
                sampling=look.sampling,
                start_s=start_s,
                stop_s=stop_s,
                frame_indices=listed,
            ):
                rows.num_decoded += 1
                yield frame

    def _references(self, medium: Row, look: Look, rows: Found) -> Iterator[Frame]:
        if look.references:
            for frame in self.source.decode(medium["uri"], medium["kind"], frame_indices=list(look.references)):
                rows.num_decoded += 1
                yield frame

    def _look(self, medium: Row, look: Look, rows: Found, packs: PackWriter) -> None:
        small, background = Thumbnails(), Background()
        for frame in self._references(medium, look, rows):
            small.add(frame)
            background.add(frame.image, look.references[frame.frame_index])
        alone = not look.references
        by_motion = isinstance(self.detector, MotionDetector)
        if by_motion:  # a first time, for thumbnails only
            for frame in self._frames(medium, look, rows):
                small.add(frame, reference=alone or frame.frame_index in look.references)
        crops: list[tuple[Row, bytes]] = []  # wait for the background
        found: list[tuple[int, int, Boxes]] = []  # number of the frame, first row of its boxes, boxes
        try:
            for frame in self._frames(medium, look, rows):
                if not by_motion:
                    small.add(frame, reference=alone or frame.frame_index in look.references)
                if frame.frame_index in look.seen:
                    continue
                boxes = self._boxes(medium, frame, small)
                found.append((frame.frame_index, len(rows.detections), boxes))
                if alone:
                    background.add(frame.image, boxes.xyxy_px)
                crops += self._keep(medium, frame, boxes, rows, look.sampling_pass)
        finally:  # what was seen of a file before it broke is kept
            self._pack(crops, background, packs)
        if self.source.report is not None and look.sampling_pass == FIRST_PASS:
            _note(medium, self.source.report)
        if found:
            model = small.model()
        for index, first, boxes in found:
            motion = model.motion(small.place(index), boxes.xyxy_px)
            for row, value in zip(rows.detections[first : first + len(boxes)], motion, strict=True):
                row["motion"] = None if np.isnan(value) else float(value)

    def _boxes(self, medium: Row, frame: Frame, small: Thumbnails) -> Boxes:
        height_px, width_px = frame.image.shape[:2]
        if self.results is not None:
            boxes = self.results.boxes_of(medium["uri"], frame.frame_index, frame_size_px=(width_px, height_px))
        elif isinstance(self.detector, MotionDetector):
            boxes = self.detector.boxes(small.model(), small.place(frame.frame_index))
        else:
            assert self.detector is not None
            boxes = self.detector.detect([frame.image])[0]
        return boxes[boxes.score >= self.config.min_score]

    def _keep(
        self, medium: Row, frame: Frame, boxes: Boxes, rows: Found, sampling_pass: int
    ) -> list[tuple[Row, bytes]]:
        """Note a frame and its boxes; returns the rows that have a crop, with its JPEG."""
        crops = []
        at, infrared = (frame.frame_index, frame.time_s), frame.infrared
        rows.frames.append(frame_row(medium, *at, num_boxes=len(boxes), infrared=infrared, sampling_pass=sampling_pass))
        size_px = (frame.image.shape[1], frame.image.shape[0])
        for row in detection_rows(self.collection.digest, medium, at, boxes, size_px=size_px):
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

    def _adopt(self, medium: Row, rows: Found) -> None:
        """Take over the boxes of a medium that is not at hand: no crops, sizes as far as the results know them."""
        assert self.results is not None
        size = (medium["width_px"], medium["height_px"]) if medium["width_px"] else None
        purged = medium["media_id"] in rows.uncropped
        for frame_index, time_s, boxes, colours in self.results.frames_at(medium["uri"], frame_size_px=size):
            kept, at = np.flatnonzero(boxes.score >= self.config.min_score), (frame_index, time_s)
            rows.frames.append(frame_row(medium, *at, num_boxes=len(kept), infrared=False, sampling_pass=FIRST_PASS))
            found = detection_rows(self.collection.digest, medium, at, boxes[kept], size_px=size)
            for row, place in zip(found, kept.tolist(), strict=True):
                row["colour"] = None if purged else colours[place]
            rows.detections.extend(found)


@functools.lru_cache(maxsize=1)
def _part(collection: Collection, part: str) -> pa.Table:
    """A part of a plan, kept from one chunk to the next. It never changes once it is recorded."""
    return collection.plan_part(part)


def _note(medium: Row, report: Report) -> None:
    """Keep what decoding counted: containers misstate it."""
    if medium["kind"] == "video":
        medium["num_frames"], medium["duration_s"] = report.num_frames, report.duration_s
    if report.note:
        medium["error"] = report.note
        logger.warning("%s: %s", medium["uri"], report.note)

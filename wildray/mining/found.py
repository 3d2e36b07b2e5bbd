"""What a chunk has come to so far: rows of media, frames and detections.

In: frames and boxes, one after the other. Out: the tables of a chunk. Rows are dictionaries here, since a box is noted
before its crop has an address and before the evidence of motion is known; a chunk holds some thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from wildray.collection import Collection
from wildray.errors import StageError
from wildray.mining.boxes import Boxes
from wildray.mining.chunks import Row
from wildray.schema import DETECTIONS, FRAMES, MEDIA, detection_ids


@dataclass
class Found:
    """Rows of a chunk.

    Attributes:
        uncropped: Media whose crops were purged: they get none, and no colours.
        media: Media rows.
        frames: Frame rows.
        detections: Detection rows.
        num_decoded: Frames that were decoded, those that were only references too.
        failed: Media that could not be looked at, or no longer.
    """

    uncropped: set[str]
    media: list[Row] = field(default_factory=list)
    frames: list[Row] = field(default_factory=list)
    detections: list[Row] = field(default_factory=list)
    num_decoded: int = 0
    failed: set[str] = field(default_factory=set)

    def write(self, collection: Collection, chunk: str) -> None:
        """Publish the tables; StageError where two boxes got one id (a probability of 2^-64 per pair)."""
        ids = [row["detection_id"] for row in self.detections]
        if len(set(ids)) < len(ids):
            raise StageError(f"Two boxes of chunk {chunk} have one id. Change any setting of detect by a little.")
        for stage, rows, schema in (
            ("media", self.media, MEDIA),
            ("frames", self.frames, FRAMES),
            ("detections", self.detections, DETECTIONS),
        ):
            collection.write(stage, chunk, pa.Table.from_pylist(rows, schema=schema))

    def record(self) -> dict[str, Any]:
        """What the record of the chunk says of the rows."""
        return {
            "num_media": len(self.media),
            "failed": [row["media_id"] for row in self.media if row["media_id"] in self.failed],
            "cameras": sorted({row["camera_id"] for row in [*self.media, *self.detections]}),
            "num_frames": len(self.frames),
            "num_decoded": self.num_decoded,
            "num_detections": len(self.detections),
        }


def frame_row(
    medium: Mapping[str, Any], index: int, time_s: float, *, num_boxes: int, infrared: bool, sampling_pass: int
) -> Row:
    """A Frame row."""
    return {
        "media_id": medium["media_id"],
        "frame_index": index,
        "time_s": time_s,
        "sampling_pass": sampling_pass,
        "num_boxes": num_boxes,
        "infrared": infrared,
    }


def detection_rows(
    digest: str, medium: Mapping[str, Any], at: tuple[int, float], boxes: Boxes, *, size_px: tuple[int, int] | None
) -> list[Row]:
    """Detection rows without motion, colour and crop.

    Args:
        digest: Of the collection.
        medium: A Media row.
        at: Number and time of the frame.
        boxes: Found in it.
        size_px: Width and height of the frame; None where unknown: then the boxes are relative.
    """
    frame_index, time_s = at
    ids = detection_ids(medium["media_id"], digest, np.full(len(boxes), frame_index), np.arange(len(boxes)))
    return [
        {
            "detection_id": int(ids[ordinal]),
            "media_id": medium["media_id"],
            "camera_id": medium["camera_id"],
            "frame_index": frame_index,
            "time_s": time_s,
            "captured_at": medium["captured_at"],
            "width_px": size_px[0] if size_px else None,
            "height_px": size_px[1] if size_px else None,
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

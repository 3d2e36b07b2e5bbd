"""The rows that flow between stages, as pyarrow schemas.

Units stand in the names. Pixels are those of the original frame, boxes are half-open (x1 < x2), colours RGB,
similarity is the cosine. Every table on disk is plain Parquet of these columns, readable by pandas, DuckDB and polars;
nullable columns say so. The alternative, a class per row, would make a Python object of each of millions of boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MEDIA_STATUSES = ("done", "unreadable", "empty", "refused", "timeout", "crashed", "too_large", "missing")
"""``done``: every frame that was asked for was looked at. ``empty``: a file of no bytes or no frames. ``refused``: a
kind of file that is never opened (playlists). The rest say what went wrong; ``error`` has the sentence."""

CLOCK_FLAGS = ("ok", "none", "epoch", "backwards", "future")
"""``none``: no clock. ``epoch``: a clock that stands at its reset date. ``backwards``: earlier than a file that the
same camera wrote before it. ``future``: later than the time of the scan."""


TRUSTED_CLOCKS = ("ok", "future")
"""A clock that is set wrong but runs still tells how far files are apart; one that was reset, or jumped, does not."""
MEDIA = pa.schema(
    [
        pa.field("media_id", pa.string(), nullable=False),  # 32 hex digits
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # video | still | results (known from a results file only)
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("captured_at", pa.timestamp("us", tz="UTC")),
        pa.field("captured_at_text", pa.string()),  # as it stood in the manifest, EXIF or container
        pa.field("captured_at_zone", pa.string()),
        pa.field("clock_flag", pa.string(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("num_frames", pa.int64()),  # as the container says; null where it does not
        pa.field("duration_s", pa.float64()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("num_bytes", pa.int64()),
        pa.field("num_duplicates", pa.int32(), nullable=False),  # further files with the same bytes
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)

FRAMES = pa.schema(
    [
        pa.field("media_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),  # position in presentation order, from 0
        pa.field("time_s", pa.float64(), nullable=False),  # presentation time from the start of the file
        pa.field("sampling_pass", pa.int16(), nullable=False),  # 0 = the base interval
        pa.field("num_boxes", pa.int32(), nullable=False),
        pa.field("infrared", pa.bool_(), nullable=False),
    ]
)

DETECTIONS = pa.schema(
    [
        pa.field("detection_id", pa.int64(), nullable=False),
        pa.field("media_id", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("time_s", pa.float64(), nullable=False),
        pa.field("captured_at", pa.timestamp("us", tz="UTC")),  # of the file's start, not of the frame
        pa.field("width_px", pa.int32()),  # of the frame; null where unknown: then the box is relative, 0 to 1
        pa.field("height_px", pa.int32()),
        pa.field("x1_px", pa.float32(), nullable=False),
        pa.field("y1_px", pa.float32(), nullable=False),
        pa.field("x2_px", pa.float32(), nullable=False),
        pa.field("y2_px", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("category", pa.string(), nullable=False),  # animal | person | vehicle | a detector's own word
        pa.field("motion", pa.float32()),  # 0 to 1, change inside the box against the clip's background; null unknown
        # 54 values, see mining/colour.py; null without pixels. Of fixed-size lists Parquet readers refuse the nulls.
        pa.field("colour", pa.list_(pa.uint8())),
        pa.field("crop_pack", pa.string()),  # null: no crop was kept
        pa.field("crop_row", pa.int32()),
    ]
)

PAIRS = pa.schema(
    [
        pa.field("anchor_id", pa.int64(), nullable=False),
        pa.field("positive_id", pa.int64(), nullable=False),
        pa.field("anchor_pack", pa.string()),
        pa.field("anchor_row", pa.int32()),
        pa.field("positive_pack", pa.string()),
        pa.field("positive_row", pa.int32()),
        pa.field("sequence_id", pa.int64(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("tracklet_id", pa.int64(), nullable=False),
        pa.field("iou", pa.float32(), nullable=False),
        pa.field("gap_s", pa.float32(), nullable=False),
        pa.field("gap_frames", pa.int32()),  # null between different files
        pa.field("min_score", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),  # IoU minus the best rival match's IoU
    ]
)

STATIC = pa.schema(
    [
        pa.field("detection_id", pa.int64(), nullable=False),
        pa.field("sequence_id", pa.int64(), nullable=False),
        pa.field("static", pa.bool_(), nullable=False),
        pa.field("presence", pa.float32(), nullable=False),  # share of the frames looked at in which its box stood
        pa.field("motion", pa.float32()),  # the evidence of change that was weighed; null where there was none
    ]
)

PACK = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # detection_id, or the row number of a labelled image
        pa.field("jpeg", pa.large_binary(), nullable=False),
        pa.field("background", pa.large_binary()),  # JPEG of the clip's background at the crop's place; null unknown
    ]
)

EMBEDDINGS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # image_id, or detection_id as text
        pa.field("vector", pa.list_(pa.float32()), nullable=False),  # unit norm
        pa.field("identity", pa.string()),
        pa.field("camera_id", pa.string()),
        pa.field("encounter_id", pa.string()),
    ]
)

MATCHES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("gallery_id", pa.string(), nullable=False),
        pa.field("identity", pa.string()),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)


def hash64(parts: Iterable[object]) -> int:
    """A signed 64-bit number that depends on nothing but the parts: equal on every machine and in every run."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def detection_ids(
    media_id: str, settings_digest: str, frame_index: npt.ArrayLike, ordinal: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Ids of the boxes of one file.

    Args:
        media_id: 32 hex digits.
        settings_digest: Digest of what the detections depend on.
        frame_index: (N,) frame of each box.
        ordinal: (N,) place of the box within its frame, from 0.

    Returns:
        (N,) int64. Two boxes collide with a probability of 2^-64; a chunk that is published checks its own.
    """
    frames, ordinals = np.asarray(frame_index), np.asarray(ordinal)
    ids = [hash64((media_id, settings_digest, int(f), int(o))) for f, o in zip(frames, ordinals, strict=True)]
    return np.array(ids, dtype=np.int64)

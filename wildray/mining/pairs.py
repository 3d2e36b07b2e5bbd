"""Pairs and static boxes of some sequences, from their rows.

In: the sequences of a shard (whole stretches of cameras), the frames that were looked at and the boxes found. Out: the
STATIC rows of every box and the PAIRS rows of every two boxes that are taken for one animal. Columns in, columns out;
no pixels, and nothing that depends on the order of the rows that come in. The alternative, ``groupby`` over sequences,
would shuffle what detection already wrote in the order of cameras and time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.config import MineConfig
from wildray.mining.embedded import Vectors
from wildray.mining.linking import Linked, link
from wildray.mining.sequences import Frames, rows_of, sequence_numbers
from wildray.mining.static import Scene, find_static
from wildray.schema import PAIRS, STATIC

Int64 = npt.NDArray[np.int64]

FRAME_COLUMNS = ["media_id", "frame_index", "time_s", "sampling_pass"]
"""What is read of the Frame rows."""
DETECTION_COLUMNS = [
    "detection_id",
    "media_id",
    "frame_index",
    "x1_px",
    "y1_px",
    "x2_px",
    "y2_px",
    "score",
    "category",
    "motion",
    "colour",
    "crop_pack",
    "crop_row",
]
"""What is read of the Detection rows."""


def mine_tables(
    sequences: pa.Table, frames: pa.Table, detections: pa.Table, config: MineConfig, vectors: Vectors | None = None
) -> tuple[pa.Table, pa.Table]:
    """Decide which boxes are static and which two are one animal.

    Args:
        sequences: Schema ``SEQUENCES``: the files, in whole stretches.
        frames: Frame rows of those files (``FRAME_COLUMNS``); rows of other files are left out.
        detections: Detection rows of those files (``DETECTION_COLUMNS``), likewise.
        config: The mining settings.
        vectors: Of the boxes, where they are compared by those and not by colours.

    Returns:
        Rows of schema ``STATIC``, one per box, and of schema ``PAIRS``, in an order that depends on nothing but the
        content.

    Raises:
        DataError: A box stands on a frame that is not among the frames looked at.
    """
    looked = Frames.of(frames, sequences)
    media = rows_of(detections["media_id"], sequences["media_id"])
    detections = detections.filter(pa.array(media >= 0))
    media = media[media >= 0]
    frame = looked.find(media, column(detections, "frame_index").astype(np.int64))
    order = np.lexsort((column(detections, "detection_id"), frame))
    detections, frame = detections.take(pa.array(order)), frame[order]
    corners = [column(detections, name).astype(np.float32) for name in ("x1_px", "y1_px", "x2_px", "y2_px")]
    xyxy = np.stack(corners)
    verdict = find_static(_scene(sequences, looked, xyxy, column(detections, "motion"), frame), config)
    sequence_ids = _sequence_ids(sequences)
    static = pa.table(
        [
            detections["detection_id"],
            pa.array(sequence_ids[looked.sequence[frame]]),
            pa.array(verdict.static),
            pa.array(verdict.presence),
            pa.array(verdict.motion, mask=np.isnan(verdict.motion)),
        ],
        schema=STATIC,
    )
    eligible = column(detections, "score") >= np.float32(config.min_score)
    eligible &= pc.is_in(detections["category"], pa.array(config.categories)).to_numpy()
    if config.remove_static:
        eligible &= ~verdict.static
    rows = np.flatnonzero(eligible)
    looks = None if vectors is None else vectors.looks(column(detections, "detection_id").astype(np.int64)[rows])
    found = link(detections.take(pa.array(rows)), xyxy[:, rows], frame[rows], looked, config, looks)
    first, second = rows[found.links.first], rows[found.links.second]
    return static, _pair_rows(detections, found, first, second, frame, looked, sequences)


def _scene(
    sequences: pa.Table, looked: Frames, xyxy: npt.NDArray[np.float32], motion: npt.NDArray[np.generic], frame: Int64
) -> Scene:
    """The boxes as ``find_static`` takes them; sequences of no frames are not counted."""
    filled = np.flatnonzero(np.diff(looked.starts))
    renumbered = np.full(len(looked.starts) - 1, -1)
    renumbered[filled] = np.arange(len(filled))
    _, head = np.unique(sequence_numbers(sequences), return_index=True)
    stretch = column(sequences, "stretch").astype(np.int64)[head][filled]
    clock = column(sequences, "has_clock").astype(bool)[head][filled]
    time_s = np.where(clock, looked.time_us[looked.starts[filled]] / 1e6, np.nan)
    _, stretch = np.unique(stretch, return_inverse=True)
    return Scene(
        xyxy=xyxy,
        motion=motion.astype(np.float32),
        frame=frame,
        frame_sequence=renumbered[looked.sequence],
        stretch=stretch,
        time_s=time_s,
        base=looked.base,
    )


def _pair_rows(
    detections: pa.Table,
    found: Linked,
    first: Int64,
    second: Int64,
    frame: Int64,
    looked: Frames,
    sequences: pa.Table,
) -> pa.Table:
    """Rows of schema ``PAIRS`` for links between the boxes in the rows ``first`` and ``second`` of ``detections``."""
    links, score = found.links, column(detections, "score")
    a, b = frame[first], frame[second]
    gap_frames = looked.frame_index[b] - looked.frame_index[a]
    anchor, positive = detections.take(pa.array(first)), detections.take(pa.array(second))
    return pa.table(
        [
            anchor["detection_id"],
            positive["detection_id"],
            anchor["crop_pack"],
            anchor["crop_row"],
            positive["crop_pack"],
            positive["crop_row"],
            pa.array(_sequence_ids(sequences)[looked.sequence[a]]),
            sequences["camera_id"].take(pa.array(looked.media[a])),
            pa.array(found.tracklet_id),
            pa.array(links.iou.astype(np.float32)),
            pa.array(((looked.time_us[b] - looked.time_us[a]) / 1e6).astype(np.float32)),
            pa.array(gap_frames.astype(np.int32), mask=looked.media[a] != looked.media[b]),
            pa.array(np.minimum(score[first], score[second]).astype(np.float32)),
            pa.array(links.margin.astype(np.float32)),
        ],
        schema=PAIRS,
    )


def _sequence_ids(sequences: pa.Table) -> Int64:
    """(S,) int64 id of each sequence by its number."""
    _, head = np.unique(sequence_numbers(sequences), return_index=True)
    return column(sequences, "sequence_id").astype(np.int64)[head]


def column(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """A column as numpy; nulls of float columns are NaN."""
    values: npt.NDArray[np.generic] = table[name].to_numpy()
    return values

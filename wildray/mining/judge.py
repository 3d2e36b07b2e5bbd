"""Pairs laid beside the truth: which of them join one individual.

In: pair rows, the detections they were mined from, the frames looked at, and truth. Out: ``JudgedPairs`` for
``purity``, and what could not be matched. Columns are joined by id, in any order. The alternative, judging inside
mining, would let truth into the stage that must work without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import DataError
from wildray.mining import purity as figures
from wildray.mining.matching import MIN_IOU, Matching, identity_codes, match
from wildray.mining.purity import BREAKDOWNS, Breakdown, JudgedPairs, Purity, purity, purity_by
from wildray.mining.truth import CORNERS, Truth
from wildray.schema import DETECTIONS, FRAMES, MEDIA, PAIRS
from wildray.store import Store

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

DETECTION_COLUMNS = [
    "detection_id", "media_id", "frame_index", "time_s", "captured_at", "width_px", *CORNERS, "score", "category",
]  # fmt: skip
PAIR_COLUMNS = ["anchor_id", "positive_id", "sequence_id", "camera_id", "iou", "gap_s", "margin"]


@dataclass(frozen=True)
class PairQuality:
    """What a pair set is worth, by the truth.

    Attributes:
        pairs: Digest of the pairs.
        detections: Digest of the detections.
        whole: Of all pairs.
        parts: Of parts of them: breakdown to part to purity.
        num_unmatched_detections: Detections that mining could use and that match no animal of the truth.
        num_part_boxes: Those of them that show a part of one.
        num_truth: True boxes in the frames that were looked at.
        num_unmatched_truth: Those of them that no such detection shows.
        num_media: Media that were judged.
        num_media_unknown: Media left out, since nothing is known of them.
        min_iou: Least overlap of a detection with the animal that it shows.
    """

    pairs: str
    detections: str
    whole: Purity
    parts: Mapping[str, Mapping[str, Purity]]
    num_unmatched_detections: int
    num_part_boxes: int
    num_truth: int
    num_unmatched_truth: int
    num_media: int
    num_media_unknown: int
    min_iou: float

    def to_json(self) -> dict[str, Any]:
        """Flat figures first, then tables by breakdown."""
        whole = self.whole.to_json()
        return {
            "purity": whole.pop("purity"),
            "purity_low": whole.pop("low"),
            "purity_high": whole.pop("high"),
            **whole,
            **{name: value for name, value in vars(self).items() if name not in ("whole", "parts")},
            "tables": {
                name: [{"part": part, **one.to_json()} for part, one in rows.items()]
                for name, rows in self.parts.items()
            },
        }


def pair_quality(
    store: Store,
    truth: Truth,
    *,
    pairs: str | None = None,
    min_iou: float = MIN_IOU,
    partial: bool = False,
    seed: int = 0,
    breakdowns: Sequence[Breakdown] = BREAKDOWNS,
) -> PairQuality:
    """Judge a pair set of the store.

    Args:
        store: Has the pairs and the detections they were mined from.
        truth: What is known of the media.
        pairs: Digest of the pairs; default the newest.
        min_iou: Least overlap of a detection with the animal that it shows.
        partial: Whether media without truth are left out instead of refused.
        seed: Of the interval's draws.
        breakdowns: What parts are told of.

    Raises:
        StageError: There are no pairs.
        ConfigError: There are none of that digest.
        DataError: The truth is of other media.
    """
    digest = store.choose("pairs", pairs, option="--pairs")
    collection = store.collection("pairs", digest)
    settings = collection.settings()
    source = store.collection("detections", str(settings["detections"]))
    media = source.read("media", MEDIA, columns=["media_id", "uri"])
    files = truth.files_of(media, partial=partial)
    detections = eligible(source.read("detections", DETECTIONS, columns=DETECTION_COLUMNS), settings["mine"])
    frames = source.read("frames", FRAMES, columns=["media_id", "frame_index"])
    matching = match(detections, truth.boxes, files, frames=frames, min_iou=min_iou)
    judged = judge(collection.read("pairs", PAIRS, columns=PAIR_COLUMNS), detections, matching, truth.boxes)
    return PairQuality(
        pairs=digest,
        detections=source.digest,
        whole=purity(judged, seed=seed),
        parts={name: purity_by(judged, name, seed=seed) for name in breakdowns},
        num_unmatched_detections=matching.num_unmatched_detections,
        num_part_boxes=matching.num_parts,
        num_truth=matching.num_truth,
        num_unmatched_truth=matching.num_unmatched_truth,
        num_media=len(files),
        num_media_unknown=media.num_rows - len(files),
        min_iou=min_iou,
    )


def eligible(detections: pa.Table, mine: Mapping[str, Any]) -> pa.Table:
    """The detections that mining could use: of its categories, and of ``min_score`` or more."""
    scored = pc.greater_equal(detections["score"], pa.scalar(np.float32(mine["min_score"]), pa.float32()))
    return detections.filter(
        pc.and_(scored, pc.is_in(detections["category"], pa.array(mine["categories"], pa.string())))
    )


def judge(pairs: pa.Table, detections: pa.Table, matching: Matching, truth: pa.Table) -> JudgedPairs:
    """The pairs with their verdicts; pairs in media of which nothing is known are left out.

    Args:
        pairs: Rows of ``PAIR_COLUMNS``, in any order.
        detections: (N,) rows of ``DETECTION_COLUMNS`` that hold both boxes of each pair.
        matching: Of those detections.
        truth: Rows of ``truth.TRUTH``.

    Raises:
        DataError: A pair names a box that is not among the detections.
    """
    ids = detections["detection_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    anchor, positive = (_rows(ids, order, pairs[name].to_numpy()) for name in ("anchor_id", "positive_id"))
    kept = np.flatnonzero(matching.covered[anchor] & matching.covered[positive])
    anchor, positive, pairs = anchor[kept], positive[kept], pairs.take(pa.array(kept))
    identity = identity_codes(truth, matching.shown)
    first, second = identity[anchor], identity[positive]
    verdict = np.where(first == second, figures.SAME, figures.DIFFERENT)
    verdict[(first < 0) | (second < 0)] = figures.FALSE_BOX
    corners = np.stack([detections[name].to_numpy() for name in CORNERS]).astype(np.float64)
    return JudgedPairs(
        verdict=verdict.astype(np.int8),
        identity=np.where(verdict == figures.SAME, first, -1),
        sequence=pairs["sequence_id"].to_numpy(),
        camera=pairs["camera_id"].to_numpy(),
        time_s=_time_s(detections)[anchor],
        gap_s=pairs["gap_s"].to_numpy().astype(np.float64),
        iou=pairs["iou"].to_numpy().astype(np.float64),
        margin=pairs["margin"].to_numpy().astype(np.float64),
        shape_iou=shape_iou(corners[:, anchor], corners[:, positive]),
        num_animals=matching.num_animals[anchor],
        partial=(matching.part[anchor] >= 0) | (matching.part[positive] >= 0),
    )


def shape_iou(a: Float64, b: Float64) -> Float64:
    """Overlap of boxes row by row if their centres were one.

    Args:
        a: (4, N) corners, half-open, with an area.
        b: (4, N), likewise.

    Returns:
        (N,) in (0, 1]; 1 where width and height are equal.
    """
    width_a, height_a, width_b, height_b = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared = np.minimum(width_a, width_b) * np.minimum(height_a, height_b)
    overlap: Float64 = shared / (width_a * height_a + width_b * height_b - shared)
    return overlap


def _rows(ids: Int64, order: Int64, wanted: Int64) -> Int64:
    place = np.minimum(np.searchsorted(ids, wanted, sorter=order), max(len(ids) - 1, 0))
    if len(wanted) and (not len(ids) or not np.array_equal(ids[order[place]], wanted)):
        raise DataError("A pair names a box that is not among the detections: run mine again.")
    return order[place] if len(wanted) else np.zeros(0, dtype=np.int64)


def _time_s(detections: pa.Table) -> Float64:
    """(N,) time of each box: absolute where the file's clock is known, else from the file's start."""
    start_us = pc.fill_null(pc.cast(detections["captured_at"], pa.int64()), 0).to_numpy()
    time_s: Float64 = start_us / 1e6 + detections["time_s"].to_numpy()
    return time_s

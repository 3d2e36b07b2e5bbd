"""Many mining settings over one annotated collection: its tables are loaded once, each setting is mined and judged.

In: a collection of detections, its truth, and settings. Out: figures of each, without a pair being written. The stage
``mine`` would read the same tables for every setting and keep pair sets that nobody trains on. All of a collection is
in memory at a time: annotated footage is hours, not months.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wildray.collection import Collection
from wildray.config import MineConfig
from wildray.errors import StageError
from wildray.mining.embedded import Vectors, embedded
from wildray.mining.judge import DETECTION_COLUMNS, PAIR_COLUMNS, eligible, judge
from wildray.mining.matching import MIN_IOU, Matching, match
from wildray.mining.mine import MEDIA_COLUMNS, sequence_gap_s
from wildray.mining.pairs import DETECTION_COLUMNS as MINED_COLUMNS
from wildray.mining.pairs import FRAME_COLUMNS, mine_tables
from wildray.mining.purity import Breakdown, purity, purity_by
from wildray.mining.sequences import assign_sequences
from wildray.mining.truth import Truth
from wildray.schema import DETECTIONS, FRAMES, MEDIA

KEPT_MATCHINGS = 8
"""Matchings kept: one for each ``mine.min_score`` of a grid."""


class AnnotatedCollection:
    """A collection of detections with its truth, loaded once.

    Args:
        collection: Detections, all of whose media the truth covers.
        truth: What is known of them.
        min_iou: Least overlap of a detection with the animal that it shows.

    Raises:
        StageError: Nothing has been detected in it.
        DataError: The truth is of other media.
    """

    def __init__(self, collection: Collection, truth: Truth, *, min_iou: float = MIN_IOU) -> None:
        self.truth, self.min_iou = truth, min_iou
        columns = list(dict.fromkeys([*MINED_COLUMNS, *DETECTION_COLUMNS]))
        self.detections = collection.read("detections", DETECTIONS, columns=columns)
        self.frames = collection.read("frames", FRAMES, columns=FRAME_COLUMNS)
        self.media = collection.read("media", MEDIA, columns=MEDIA_COLUMNS)
        if not self.frames.num_rows:
            raise StageError(f"No frame of the detections {collection.digest} was looked at.")
        self.files = truth.files_of(self.media)
        self._collection = collection
        self._matched = functools.lru_cache(maxsize=KEPT_MATCHINGS)(self._match)

    @property
    def footage_s(self) -> float:
        """Length of all media in seconds, as their headers or their last frame say."""
        last: dict[str, float] = {}
        for media_id, time_s in zip(
            self.frames["media_id"].to_pylist(), self.frames["time_s"].to_pylist(), strict=True
        ):
            last[media_id] = max(last.get(media_id, 0.0), time_s)
        known = zip(self.media["media_id"].to_pylist(), self.media["duration_s"].to_pylist(), strict=True)
        return sum(duration_s or last.get(media_id, 0.0) for media_id, duration_s in known)

    def figures(self, config: MineConfig, *, seed: int = 0, breakdowns: Sequence[Breakdown] = ("density",)) -> Any:
        """Mine with some settings and judge the pairs; plain values."""
        sequences = assign_sequences(self.media, gap_s=sequence_gap_s(config))
        _, pairs = mine_tables(
            sequences, self.frames, self.detections.select(MINED_COLUMNS), config, self.vectors_of(config)
        )
        detections, matching = self._matched(config.min_score, config.categories)
        judged = judge(pairs.select(PAIR_COLUMNS), detections, matching, self.truth.boxes)
        return {
            **purity(judged, seed=seed).to_json(),
            "num_detections": detections.num_rows,
            "num_unmatched_detections": matching.num_unmatched_detections,
            "num_part_boxes": matching.num_parts,
            "num_truth": matching.num_truth,
            "num_unmatched_truth": matching.num_unmatched_truth,
            "median_gap_s": float(np.median(judged.gap_s)) if len(judged) else None,
            "tables": {
                name: [{"part": part, **one.to_json()} for part, one in purity_by(judged, name, seed=seed).items()]
                for name in breakdowns
            },
        }

    def vectors_of(self, config: MineConfig) -> Vectors | None:
        """The vectors that are mined with, where a configuration names some; errors as ``embedded.embedded``."""
        looks = embedded(config, self._collection)
        return None if looks is None else looks.read(list(self._collection.finished()))

    def _match(self, min_score: float, categories: tuple[str, ...]) -> tuple[pa.Table, Matching]:
        usable = eligible(self.detections.select(DETECTION_COLUMNS), {"min_score": min_score, "categories": categories})
        found = match(usable, self.truth.boxes, self.files, frames=self.frames, min_iou=self.min_iou)
        return usable, found

"""The pairs of a set and what is known of each: what a sample is drawn from.

In: a store and the digest of a pair set. Out: ``Population``: a table of the pairs whose crops were kept, and facts of
each as arrays. Only columns are read, no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import StageError, StoreError
from wildray.schema import DETECTIONS, PAIRS, STATIC
from wildray.store import Store

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FACTS = ("density", "gap_s", "iou", "margin", "min_score")
"""What is known of a pair: boxes in its fuller frame, time between its frames, overlap, how much it exceeds every
rival's, the lower of its two scores."""
_COLUMNS = ["detection_id", "media_id", "frame_index", "score", "category"]


@dataclass(frozen=True)
class Population:
    """The pairs that can be judged.

    Attributes:
        digest: Of the pair set.
        detections: Digest of the detections it was mined from.
        mining: The settings it was mined with.
        pairs: (P) rows of schema ``PAIRS`` with both crop addresses.
        facts: By name in ``FACTS``: (P,) float64.
        num_without_crops: Pairs that cannot be shown.
    """

    digest: str
    detections: str
    mining: dict[str, Any]
    pairs: pa.Table
    facts: dict[str, Float64]
    num_without_crops: int


def read_population(store: Store, digest: str | None) -> Population:
    """The pairs of a set that can be shown.

    Args:
        store: The store.
        digest: Of a pair set; None: the newest.

    Raises:
        ConfigError: The store has no such pair set.
        StageError: Nothing was mined, the set is empty, or no crops were kept.
        StoreError: A table cannot be read.
    """
    digest = store.choose("pairs", digest, option="--pairs")
    collection = store.collection("pairs", digest)
    settings = collection.settings()
    pairs = collection.read("pairs", PAIRS)
    if not pairs.num_rows:
        raise StageError(f"The pair set {digest} is empty, there is nothing to judge. Mine with other settings.")
    shown = pairs.filter(pc.and_(pc.is_valid(pairs["anchor_pack"]), pc.is_valid(pairs["positive_pack"])))
    if not shown.num_rows:
        raise StageError(
            f"None of the {pairs.num_rows:,} pairs of the set {digest} has crops to look at. Run 'wildray detect' with "
            f"the media at hand, and mine again."
        )
    mining, detections = dict(settings.get("mine") or {}), str(settings.get("detections"))
    density = _densities(store, digest, detections, mining, shown)
    facts = {"density": density} | {name: np.asarray(shown[name].to_numpy(), dtype=np.float64) for name in FACTS[1:]}
    return Population(digest, detections, mining, shown, facts, pairs.num_rows - shown.num_rows)


def _densities(store: Store, digest: str, detections: str, mining: dict[str, Any], pairs: pa.Table) -> Float64:
    """(P,) boxes that mining could take, in the one of a pair's two frames that has more of them."""
    boxes = store.collection("detections", detections).read("detections", DETECTIONS, columns=_COLUMNS)
    ids, first = np.unique(_ints(boxes, "detection_id"), return_index=True)
    boxes = boxes.take(pa.array(first))
    taken = np.asarray(boxes["score"].to_numpy()) >= np.float32(mining.get("min_score", 0.0))
    if "categories" in mining:
        taken &= pc.is_in(boxes["category"], pa.array(mining["categories"], pa.string())).to_numpy()
    if mining.get("remove_static", True):
        static = store.collection("pairs", digest).read("static", STATIC, columns=["detection_id", "static"])
        taken &= ~np.isin(ids, _ints(static.filter(static["static"]), "detection_id"))
    media = _codes(boxes["media_id"])
    _, frame = np.unique(np.stack([media, _ints(boxes, "frame_index")]), axis=1, return_inverse=True)
    count = np.bincount(frame, weights=taken, minlength=1)
    sides = []
    for name in ("anchor_id", "positive_id"):
        wanted = _ints(pairs, name)
        place = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
        if not len(ids) or (ids[place] != wanted).any():
            raise StoreError(
                f"pairs/{digest} names boxes that detections/{detections} does not hold: it was altered. Mine again."
            )
        sides.append(count[frame[place]])
    return np.asarray(np.maximum(np.maximum(*sides), 1), dtype=np.float64)


def _codes(column: pa.ChunkedArray) -> Int64:
    codes: Int64 = pc.dictionary_encode(column.combine_chunks()).indices.to_numpy().astype(np.int64)
    return codes


def _ints(table: pa.Table, name: str) -> Int64:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)

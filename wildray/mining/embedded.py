"""A second round: boxes are compared by what a first model has learned, and not by their colours.

In: vectors that ``embed`` made of the crops of the very detections that are mined. Out: ``Looks`` of boxes, with cosine
as their measure. Its unit is the median distance of neighbouring boxes of one frame that do not overlap, which show two
animals: networks differ in how far they keep animals apart, and the limits of ``following`` and ``tracklets`` are in
that unit. It is found once for all shards. To run the network here would make mining read pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.config import MineConfig
from wildray.errors import ConfigError, StageError, nearest
from wildray.mining.following import Measure
from wildray.mining.linkers import Bool, Int64, aligned_iou
from wildray.mining.linking import Looks
from wildray.schema import DETECTIONS
from wildray.vectors import read_vectors

Float32 = npt.NDArray[np.float32]

SAMPLE_CHUNKS = 64
"""Chunks, evenly spread, that the unit is found from."""
MIN_NEIGHBOURS = 20
"""With fewer neighbours their median says little."""
LEAST_KNOWN = 0.5
"""Least share of the boxes that have a vector: those without one are compared by nothing."""
MOST_OVERLAP = 0.1
"""Boxes of one frame that overlap less show two animals (``method.same_frame_negatives`` takes the same limit)."""
_COLUMNS = [
    "detection_id", "media_id", "frame_index", "x1_px", "y1_px", "x2_px", "y2_px", "score", "category",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of boxes.

    Attributes:
        ids: (K,) int64 detection ids, ascending.
        values: (K, D) float32 of unit norm.
        unit: Cosine distance at which different animals usually are.
    """

    ids: Int64
    values: Float32
    unit: float

    def looks(self, detection_id: Int64) -> Looks:
        """Looks of the boxes (N,), NaN for those without a vector."""
        looks, known = _found(self.ids, self.values, detection_id)
        looks[~known] = np.nan
        return Looks(looks, Measure(self.unit, cosine=True))


@dataclass(frozen=True)
class Embedded:
    """The vectors of a collection of detections, of which shards read their part; pickles.

    Attributes:
        collection: Of ``embeddings/``.
        unit: As in ``Vectors``.
    """

    collection: Collection
    unit: float

    def read(self, chunks: Sequence[str]) -> Vectors:
        """The vectors of some chunks of the detections."""
        ids, values = _sorted(self.collection, chunks)
        return Vectors(ids, values, self.unit)


def vectors_used(config: MineConfig, source: Collection) -> dict[str, int]:
    """Number of vectors by chunk of the detections, of the embeddings that a configuration names; empty without any.

    Raises:
        ConfigError: There are no such embeddings, they are of other crops, or the linker does not look at them.
    """
    if config.embeddings is None:
        return {}
    finished = _collection(config, source).finished()
    return {chunk: int(finished[chunk]["num"]) for chunk in source.finished() if chunk in finished}


def embedded(config: MineConfig, source: Collection) -> Embedded | None:
    """The vectors that a configuration names, with their unit; None where it names none.

    Args:
        config: The mining settings.
        source: The detections that are mined.

    Raises:
        ConfigError: As ``vectors_used``.
        StageError: Most boxes have no vector, or too few frames show two animals to find the unit by, or the network
            does not tell them apart.
    """
    if config.embeddings is None:
        return None
    collection = _collection(config, source)
    distances, share = _sampled(config, source, collection)
    if share < LEAST_KNOWN:
        raise StageError(
            f"mine.embeddings: {share:.0%} of the boxes have a vector in {collection.digest}, expected "
            f"{LEAST_KNOWN:.0%} at least. Run 'wildray embed --run NAME --data detections/{source.digest}' again: it "
            "adds what is missing."
        )
    if len(distances) < MIN_NEIGHBOURS:
        raise StageError(
            f"mine.embeddings: {len(distances)} boxes have a neighbour in their frame, expected {MIN_NEIGHBOURS}: they "
            "say how far apart different animals are. Mine without mine.embeddings: animals that are alone need no "
            "looks."
        )
    unit = float(np.median(distances))
    if not unit > np.finfo(np.float32).eps:
        raise StageError(
            f"mine.embeddings: the vectors of different animals in {collection.digest} are equal: the network tells "
            "nothing apart. Embed with another run, or mine without mine.embeddings."
        )
    return Embedded(collection, unit)


def _sampled(config: MineConfig, source: Collection, collection: Collection) -> tuple[Float32, float]:
    """Distances of neighbours in a sample of the chunks, and the share of its boxes that have a vector."""
    chunks = sorted(source.finished())
    places = np.linspace(0, len(chunks) - 1, min(len(chunks), SAMPLE_CHUNKS)).round().astype(int)
    num_boxes, num_known = 0, 0
    distances = [np.zeros(0, dtype=np.float32)]
    for chunk in [chunks[place] for place in places]:
        boxes = source.read("detections", DETECTIONS, columns=_COLUMNS, chunks=[chunk])
        boxes = boxes.filter(_eligible(boxes, config))
        looks, known = _found(*_sorted(collection, [chunk]), boxes["detection_id"].to_numpy())
        num_boxes, num_known = num_boxes + len(known), num_known + int(known.sum())
        first, second = _neighbours(boxes, known)
        distances.append(1 - np.einsum("nd,nd->n", looks[first], looks[second]))
    return np.concatenate(distances), num_known / max(num_boxes, 1)


def _collection(config: MineConfig, source: Collection) -> Collection:
    """The embeddings, checked."""
    if config.linker != "chained" or config.look_weight == 0:
        got = f"mine.linker {config.linker}" if config.linker != "chained" else "mine.look_weight 0"
        raise ConfigError(
            f"mine.embeddings: got {got}, which compares no looks. Use mine.linker chained with a weight, or leave "
            "mine.embeddings away."
        )
    digest = str(config.embeddings)
    store = source.store
    known = store.collections("embeddings")
    if digest not in known:
        raise ConfigError(
            f"mine.embeddings: the store has no embeddings {digest!r}. {nearest(digest, known)} 'wildray embed --run "
            f"NAME --data detections/{source.digest}' makes some."
        )
    collection = store.collection("embeddings", digest)
    of = collection.settings()["source"]
    if of != f"detections/{source.digest}":
        raise ConfigError(
            f"mine.embeddings: {digest} are of {of}, and detections/{source.digest} is mined. Embed those, or choose "
            "the others by mine.detections."
        )
    return collection


def _sorted(collection: Collection, chunks: Sequence[str]) -> tuple[Int64, Float32]:
    """Ids, ascending, and vectors of those chunks that are finished."""
    ids, values = read_vectors(collection, [chunk for chunk in chunks if collection.is_finished(chunk)])
    numbers = pc.cast(ids, pa.int64()).to_numpy()
    order = np.argsort(numbers)
    return numbers[order], values[order]


def _found(ids: Int64, values: Float32, wanted: Int64) -> tuple[Float32, Bool]:
    """(N, D) the vectors of ``wanted`` (N,), and (N,) which are there; of the others the row is of another box."""
    if not len(ids):
        return np.zeros((len(wanted), values.shape[1]), dtype=np.float32), np.zeros(len(wanted), dtype=bool)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return values[place], ids[place] == wanted


def _eligible(boxes: pa.Table, config: MineConfig) -> pa.Array:
    scored = pc.greater_equal(boxes["score"], pa.scalar(np.float32(config.min_score), pa.float32()))
    return pc.and_(scored, pc.is_in(boxes["category"], pa.array(config.categories, pa.string())))


def _neighbours(boxes: pa.Table, known: Bool) -> tuple[Int64, Int64]:
    """Rows of boxes with vectors that follow each other in a frame, in the order of their left edges, and are apart."""
    frame = _frames(boxes)
    xyxy = np.stack([boxes[name].to_numpy() for name in ("x1_px", "y1_px", "x2_px", "y2_px")]).astype(np.float64)
    rows = np.flatnonzero(known)
    rows = rows[np.lexsort((boxes["detection_id"].to_numpy()[rows], xyxy[0, rows], frame[rows]))]
    first, second = rows[:-1], rows[1:]
    apart = frame[first] == frame[second]
    apart &= aligned_iou(xyxy[:, first], xyxy[:, second]) < MOST_OVERLAP
    return first[apart], second[apart]


def _frames(boxes: pa.Table) -> Int64:
    """(N,) a number for each box's frame."""
    media = pc.dictionary_encode(boxes["media_id"].combine_chunks()).indices.to_numpy().astype(np.int64)
    frame: Int64 = media * (1 << 32) + boxes["frame_index"].to_numpy().astype(np.int64)
    return frame

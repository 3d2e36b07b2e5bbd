"""What is measured of a backbone on labelled images, and intervals of what it gained.

In: a frozen backbone and an import of labelled images. Out: figures under several protocols from one pass over the
images, and the average precision of every query under the first, from which pages make intervals and compare runs.

Shapes: N images, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wildray.bootstrap import intervals
from wildray.config import EvalConfig
from wildray.labelled import open_labelled
from wildray.learning.backbone import Backbone
from wildray.learning.monitor import effective_rank
from wildray.retrieval.forward import UInt8, load_images, unit_vectors
from wildray.retrieval.metrics import chance, columns, score
from wildray.retrieval.splits import Columns, make_protocol
from wildray.store import Store

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
NUM_BOOTSTRAP = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """Figures of one backbone.

    Attributes:
        figures: Flat, by name; ``mAP`` is that of the first protocol.
        average_precision: (Q,) of each query under the first protocol.
        identity: (Q,) identity of each query, as a number.
    """

    figures: dict[str, float]
    average_precision: Float64
    identity: Int64


@dataclass(frozen=True)
class Retrieval:
    """Measures retrieval on an import of labelled images; pickles.

    Attributes:
        store: Holds the import.
        data: Its digest.
        protocols: By prefix of the figures' names; the first has none.
    """

    store: Store
    data: str
    protocols: Mapping[str, EvalConfig]

    def __call__(self, backbone: Backbone) -> Measured:
        """Embed the images and rank them."""
        vectors = unit_vectors(backbone, self.images(backbone.image_size), batch_size=64)
        return measured(vectors, open_labelled(self.store, self.data).text_columns, self.protocols)

    def images(self, size_px: int) -> UInt8:
        """(N, 3, size, size) uint8 RGB of the import's images in order."""
        labelled = open_labelled(self.store, self.data)
        rows = labelled.table.column("crop_row").to_pylist()
        packs = [str(pack) for pack in labelled.column("crop_pack")]
        return load_images(labelled.reader(), packs, rows, image_size=size_px)


def measured(vectors: Float32, table: Columns, protocols: Mapping[str, EvalConfig]) -> Measured:
    """Figures of unit vectors (N, D) of the rows of a table."""
    figures: dict[str, float] = {}
    first: tuple[Float64, Int64] | None = None
    for prefix, rules in protocols.items():
        protocol = make_protocol(table, rules)
        scores = score(vectors[protocol.queries], vectors[protocol.gallery], masks=protocol.masks)
        lucky = chance(len(protocol.queries), len(protocol.gallery), masks=protocol.masks)
        precision, identity = columns(scores)["mAP"], protocol.identities[protocol.queries][scores.answerable]
        found = {}
        for name, values in columns(scores).items():
            found[name] = float(values.mean())
            found[f"{name}_low"], found[f"{name}_high"] = interval(values, identity)
        found |= {f"chance_{name}": float(values.mean()) for name, values in columns(lucky).items()}
        figures |= {f"{prefix}{name}": value for name, value in found.items()}
        first = first or (precision, identity)
    assert first is not None, "there is at least one protocol"
    figures["rank"] = effective_rank(torch.from_numpy(vectors))
    return Measured(figures, *first)


def fastest() -> torch.device:
    """Where benches compute: on the GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def interval(values: Float64, identity: Int64) -> tuple[float, float]:
    """Interval of the mean over queries, by bootstrap over identities."""
    drawn = intervals({"mean": values}, identity, num_bootstrap=NUM_BOOTSTRAP, confidence=CONFIDENCE, seed=0)
    return drawn["mean"]


def standard_error(values: Float64, identity: Int64) -> float:
    """Standard deviation of the mean over queries, by bootstrap over identities."""
    _, codes, num_queries = np.unique(identity, return_inverse=True, return_counts=True)
    num = len(num_queries)
    drawn = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), size=NUM_BOOTSTRAP)
    means = drawn @ np.bincount(codes, weights=values, minlength=num) / (drawn @ num_queries)
    # drawn from n individuals, the spread is too small by (n - 1) / n
    return float(means.std()) * float(np.sqrt(num / max(num - 1, 1)))


def per_individual(found: Measured) -> list[list[float | int]]:
    """(mean average precision, number of queries) of every individual, ordered by its number."""
    numbers, codes, counts = np.unique(found.identity, return_inverse=True, return_counts=True)
    sums = np.bincount(codes, weights=found.average_precision, minlength=len(numbers))
    return [[round(float(mean), 4), int(num)] for mean, num in zip(sums / counts, counts, strict=True)]


def each_query(individuals: Sequence[Sequence[float]]) -> tuple[Float64, Int64]:
    """What ``per_individual`` gave, for every query: average precision (Q,), individual (Q,).

    Means over queries and their bootstrap over individuals are those of the queries themselves.
    """
    means, counts = (np.array(column) for column in zip(*individuals, strict=True))
    return np.repeat(means.astype(np.float64), counts.astype(np.int64)), np.repeat(
        np.arange(len(means)), counts.astype(np.int64)
    )


def gain(before: Measured, after: Measured) -> dict[str, float]:
    """What training added to mAP, paired by query, with its interval."""
    difference = after.average_precision - before.average_precision
    low, high = interval(difference, after.identity)
    return {"mAP": float(difference.mean()), "mAP_low": low, "mAP_high": high}

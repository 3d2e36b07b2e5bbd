"""Nearest neighbours by faiss: exact inner product, filtered, saved with the model it belongs to.

In: unit vectors and their ids. Out: the k most similar allowed answers of each query. An index says which model made
its vectors: similarities between vectors of two models are numbers without a meaning, and nothing else would tell.

faiss filters by id lists, not by a rule per query; so more neighbours than wanted are fetched, filtered, and fetched
again for those queries that came out short, until k are left or the gallery is exhausted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from wildray.errors import DataError, StoreError
from wildray.remote import local_copy
from wildray.retrieval.metrics import check_vectors
from wildray.store import Store

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Allowed = Callable[[slice], Bool]
"""(B, G) answers that count for a block of queries."""

_BLOCK_ROWS = 256
_WIDEN = 4
"""By how much more neighbours are fetched for queries that came out short."""


@dataclass(frozen=True)
class Neighbours:
    """Answers of each query, most similar first.

    Attributes:
        rows: (Q, k) int64 rows of the gallery; -1 where fewer than k answers count.
        similarity: (Q, k) float32 cosine; NaN there.
    """

    rows: Int64
    similarity: Float32


class VectorIndex:
    """An exact index over a gallery.

    Args:
        vectors: (G, D) float32 unit vectors.
        ids: Id of each.
        model: Digest of the backbone that made them.

    Raises:
        DataError: The vectors are not finite or not of unit norm, or their number is not that of the ids.
    """

    def __init__(self, vectors: Float32, ids: list[str], *, model: str) -> None:
        check_vectors(vectors, "index")
        if len(vectors) != len(ids):
            raise DataError(f"Got {len(vectors)} vectors and {len(ids)} ids, expected an id for every vector.")
        self.ids, self.model = list(ids), model
        self._index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return int(self._index.d)

    def search(self, queries: Float32, k: int, *, allowed: Allowed | None = None) -> Neighbours:
        """The k most similar allowed answers.

        Args:
            queries: (Q, D) float32 unit vectors.
            k: Answers wanted, at least 1.
            allowed: Which answers count; all by default.

        Raises:
            DataError: The queries are of another dimension, not finite or not of unit norm.
        """
        check_vectors(queries, "queries")
        if queries.shape[1] != self.dim:
            raise DataError(
                f"Queries have {queries.shape[1]} dimensions, expected {self.dim}: the index is of another model."
            )
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        similarity = np.full((len(queries), k), np.nan, dtype=np.float32)
        for start in range(0, len(queries), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(queries)))
            counts = np.ones((block.stop - start, len(self.ids)), dtype=np.bool_) if allowed is None else allowed(block)
            self._search_block(queries[block], counts, rows[block], similarity[block])
        return Neighbours(rows, similarity)

    def _search_block(self, queries: Float32, allowed: Bool, rows: Int64, similarity: Float32) -> None:
        """Fill (B, k) ``rows`` and ``similarity`` in place."""
        k, size = rows.shape[1], len(self.ids)
        wanted = np.minimum(allowed.sum(axis=1), k)
        pending = np.flatnonzero(wanted)
        num_fetched = min(size, _WIDEN * k)
        while len(pending):
            found_similarity, found = self._index.search(np.ascontiguousarray(queries[pending]), num_fetched)
            counts = np.take_along_axis(allowed[pending], found, axis=1)
            complete = counts.sum(axis=1) >= wanted[pending]
            for place in np.flatnonzero(complete):
                query = pending[place]
                chosen = np.flatnonzero(counts[place])[: wanted[query]]
                rows[query, : len(chosen)] = found[place, chosen]
                similarity[query, : len(chosen)] = found_similarity[place, chosen]
            pending = pending[~complete]
            num_fetched = min(size, _WIDEN * num_fetched)

    def save(self, store: Store, name: str) -> None:
        """Publish the index as ``index/<name>.faiss``, and then the record that makes it visible."""
        path = store.path("index", f"{name}.faiss")
        store.publish(path, lambda temporary: faiss.write_index(self._index, str(temporary)))
        record = {"model": self.model, "dim": self.dim, "ids": self.ids, "sha256": _sha256(path)}
        store.write_text(json.dumps(record), "index", f"{name}.json")

    @classmethod
    def load(cls, store: Store, name: str, *, model: str) -> VectorIndex:
        """An index that ``save`` wrote.

        Raises:
            StoreError: There is none, it was altered, or it was made by another model.
        """
        path = store.path("index", f"{name}.faiss")
        record = store.read_json("index", f"{name}.json")
        if record["model"] != model:
            raise StoreError(
                f"The index {name} was made by the model {record['model']}, the queries by {model}: index them anew."
            )
        if not path.is_file() or _sha256(path) != record["sha256"]:
            raise StoreError(f"{path} is not what its record says: it was altered or cut short. Index anew.")
        loaded = cls.__new__(cls)
        loaded.ids, loaded.model, loaded._index = list(record["ids"]), model, faiss.read_index(str(local_copy(path)))
        return loaded


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

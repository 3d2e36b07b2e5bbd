"""Rows of embeddings as arrays.

In: a collection of embeddings. Out: ids and vectors. Search reads them, and mining too, which may not import what makes
them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.collection import Collection
from wildray.errors import StoreError
from wildray.schema import EMBEDDINGS


def read_vectors(
    collection: Collection, chunks: Iterable[str] | None = None
) -> tuple[pa.ChunkedArray, npt.NDArray[np.float32]]:
    """Ids and (N, D) float32 unit vectors, in the order of their source.

    Args:
        collection: Of ``embeddings/``.
        chunks: Those wanted, or all that are finished.

    Raises:
        StoreError: The shards cannot be read.
    """
    table = collection.read("embeddings", EMBEDDINGS, columns=["id", "vector"], chunks=chunks)
    dim = int(collection.settings()["dim"])
    flat = np.concatenate([np.empty(0, np.float32), *(np.asarray(part.flatten()) for part in table["vector"].chunks)])
    if flat.size != table.num_rows * dim:
        raise StoreError(f"embeddings/{collection.digest} was altered: remove it and embed again.")
    return table["id"], flat.reshape(table.num_rows, dim)

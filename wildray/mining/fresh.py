"""Which of the media of a call are new to a collection.

In: the listed media, their ids, and the ids that plans cover. Out: the new ones as a table, each once, in the order of
the list. Objects for each would take several times the memory in collections of millions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.mining.inputs import MediaItem

NEW = pa.schema(
    [
        pa.field("media_id", pa.string(), nullable=False),
        pa.field("uri", pa.binary(), nullable=False),  # as ``to_bytes`` has it
        pa.field("kind", pa.string(), nullable=False),
        pa.field("camera_id", pa.binary(), nullable=False),
        pa.field("captured_at", pa.string()),  # the manifest's words
        pa.field("num_duplicates", pa.int32(), nullable=False),
    ]
)
BATCH = 16_384


def new_media(
    items: Sequence[MediaItem], ids: npt.NDArray[np.bytes_], covered: pa.ChunkedArray
) -> tuple[npt.NDArray[np.bytes_], pa.Table]:
    """Media that no plan covers.

    Args:
        items: The media of a call.
        ids: (N,) of each; several items under one id are duplicates, of which the first stands for all.
        covered: Ids that plans cover.

    Returns:
        The ids of the call, each once, and the new media as a table of ``NEW``.
    """
    media_ids, first, counts = np.unique(ids, return_index=True, return_counts=True)
    known = [np.asarray(chunk.to_numpy(zero_copy_only=False), ids.dtype) for chunk in covered.chunks]
    fresh = np.flatnonzero(~np.isin(media_ids, np.concatenate([np.empty(0, ids.dtype), *known])))
    fresh = fresh[np.argsort(first[fresh])]
    batches = [
        _batch([items[index] for index in first[some]], media_ids[some], counts[some])
        for some in (fresh[begin : begin + BATCH] for begin in range(0, len(fresh), BATCH))
    ]
    return media_ids, pa.Table.from_batches(batches, schema=NEW)


def uris_of(items: Sequence[MediaItem]) -> pa.ChunkedArray:
    """The addresses of media as bytes."""
    batches = (items[first : first + BATCH] for first in range(0, len(items), BATCH))
    return pa.chunked_array([[to_bytes(item.uri) for item in some] for some in batches], pa.binary())


def _batch(items: Sequence[MediaItem], ids: npt.NDArray[np.bytes_], counts: npt.NDArray[np.int64]) -> pa.RecordBatch:
    columns = {
        "media_id": ids.astype(str),
        "uri": [to_bytes(item.uri) for item in items],
        "kind": [item.kind for item in items],
        "camera_id": [to_bytes(item.camera_id) for item in items],
        "captured_at": [item.captured_at for item in items],
        "num_duplicates": counts - 1,
    }
    return pa.RecordBatch.from_pydict(columns, schema=NEW)


def item_of(row: Mapping[str, Any]) -> MediaItem:
    """The item that a row of ``NEW`` was made of."""
    return MediaItem(to_text(row["uri"]), row["kind"], to_text(row["camera_id"]), row["captured_at"])


def to_bytes(text: str) -> bytes:
    """Any text as bytes: on Linux a file's name is any bytes, which Python keeps as text that is no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def to_text(content: bytes) -> str:
    """What ``to_bytes`` was given."""
    return content.decode("utf-8", "surrogatepass")

"""Which of the media of a call are new to a collection.

In: the listed media, their ids, and the ids that plans cover. Out: the new ones as a table, each once, in the order of
the list. Objects for each would take several times the memory in collections of millions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.errors import DataError
from wildray.mining.inputs import MediaItem

NEW = pa.schema(
    [
        pa.field("media_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
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

    Raises:
        DataError: A name cannot be kept, since it is not UTF-8.
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
    """The addresses of media; DataError where one is not UTF-8."""
    with _named():
        return pa.chunked_array(
            [[item.uri for item in items[first : first + BATCH]] for first in range(0, len(items), BATCH)], pa.string()
        )


def _batch(items: Sequence[MediaItem], ids: npt.NDArray[np.bytes_], counts: npt.NDArray[np.int64]) -> pa.RecordBatch:
    columns = {name: [getattr(item, name) for item in items] for name in ("uri", "kind", "camera_id", "captured_at")}
    more = {"media_id": ids.astype(str), "num_duplicates": counts - 1}
    with _named():
        return pa.RecordBatch.from_pydict({**columns, **more}, schema=NEW)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r}: a name that is not UTF-8. Rename the file or folder.") from None

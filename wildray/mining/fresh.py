"""Which of the media of a call are new to a collection.

In: the listed media, their ids, and the ids that plans cover. Out: the new ones as a table, each once, in the order of
the list. Objects for each would take several times the memory in collections of millions.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def _batch(items: Sequence[MediaItem], ids: npt.NDArray[np.bytes_], counts: npt.NDArray[np.int64]) -> pa.RecordBatch:
    columns = {name: [getattr(item, name) for item in items] for name in ("uri", "kind", "camera_id", "captured_at")}
    try:
        return pa.RecordBatch.from_pydict(
            {**columns, "media_id": ids.astype(str), "num_duplicates": counts - 1}, schema=NEW
        )
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r}: a name that is not UTF-8. Rename the file or folder.") from None

"""Which of a call's media could not be looked at, and why.

In: the records of finished chunks, and the media ids of a call. Out: a count, and the rows of some. The records name
the media that failed, so that the tables of all chunks are not read to count a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.collection import Collection
from wildray.mining.chunks import Row
from wildray.schema import MEDIA

COLUMNS = ["media_id", "status", "uri", "error"]


def failures(
    collection: Collection, finished: Mapping[str, Any], media_ids: npt.NDArray[np.bytes_], *, most: int
) -> tuple[int, list[Row]]:
    """Media that could not be looked at.

    Args:
        collection: Of detections.
        finished: Its finished chunks as their writers recorded them.
        media_ids: (N,) of the call, each once.
        most: Rows that are read at the most.

    Returns:
        How many of the media failed, and the first of their rows with the columns ``COLUMNS``.
    """
    failed_of = {chunk: _failed(collection, chunk, record) for chunk, record in finished.items()}
    chunks = [chunk for chunk, failed in failed_of.items() if len(failed)]
    if not chunks:
        return 0, []
    ours = np.isin(np.concatenate([failed_of[chunk] for chunk in chunks]), media_ids)
    count, rows = int(ours.sum()), list[Row]()
    begin = 0
    for chunk in chunks:
        end = begin + len(failed_of[chunk])
        if len(rows) < min(most, count) and ours[begin:end].any():
            wanted = set(failed_of[chunk][ours[begin:end]].astype(str).tolist())
            table = collection.read("media", MEDIA, columns=COLUMNS, chunks=[chunk])
            rows += [row for row in table.to_pylist() if row["media_id"] in wanted]
        begin = end
    return count, rows[:most]


def _failed(collection: Collection, chunk: str, record: Mapping[str, Any]) -> npt.NDArray[np.bytes_]:
    """Ids of the failed media of a chunk; earlier versions recorded only how many there are."""
    if "failed" in record:
        return np.asarray(record["failed"], "S32")
    if record["num_done"] == len(record["media"]):
        return np.empty(0, "S32")
    rows = collection.read("media", MEDIA, columns=["media_id", "status"], chunks=[chunk]).to_pylist()
    return np.asarray([row["media_id"] for row in rows if row["status"] != "done"], "S32")

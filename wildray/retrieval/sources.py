"""What can be embedded: crops with their addresses and what is known of them, in chunks.

In: ``labelled/<digest>`` or ``detections/<digest>``. Out: chunks of rows with the columns ``id``, ``pack``, ``row``,
``identity``, ``camera_id``, ``encounter_id``. A chunk is the unit of work and commit of embedding: of detections it is
the chunk that detect published, so that new footage adds chunks and leaves the old ones valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from wildray.errors import DataError
from wildray.labelled import open_labelled
from wildray.packs import PackReader
from wildray.schema import DETECTIONS
from wildray.store import Store

CHUNK_ROWS = 1024
"""Labelled images in a chunk."""


@dataclass(frozen=True)
class Source:
    """Crops of one origin.

    Attributes:
        uri: ``labelled/<digest>`` or ``detections/<digest>``.
        place: Folder of the packs, as parts of a path in the store.
        chunks: Rows to embed by name of the chunk, in order.
    """

    uri: str
    place: tuple[str, str]
    chunks: dict[str, pa.Table]

    @property
    def num_rows(self) -> int:
        """Crops in all chunks."""
        return sum(chunk.num_rows for chunk in self.chunks.values())

    def reader(self, store: Store) -> PackReader:
        """Reads the crops."""
        return PackReader(store, self.place)


def open_source(store: Store, uri: str) -> Source:
    """The crops of an import of labelled images or of a detection run.

    Raises:
        DataError: The URI is of neither kind, or there is nothing in it.
    """
    kind, _, digest = uri.partition("/")
    if kind == "labelled" and digest:
        return _of_labelled(store, uri, digest)
    if kind == "detections" and digest:
        return _of_detections(store, uri, digest)
    raise DataError(f"Got {uri!r}, expected labelled/DIGEST or detections/DIGEST.")


def detections_uri(store: Store, data: str | None) -> str | None:
    """URI of the detections that ``detections`` (the newest) or ``detections/DIGEST`` names; None for other names.

    Raises:
        StageError: Nothing has been detected.
        ConfigError: There are no such detections.
    """
    kind, _, digest = (data or "").partition("/")
    if kind != "detections":
        return None
    return f"detections/{store.choose('detections', digest or None, option='--data')}"


def _of_labelled(store: Store, uri: str, digest: str) -> Source:
    labelled = open_labelled(store, digest)
    table = labelled.table
    missing = pa.nulls(table.num_rows, pa.string())
    rows = pa.table(
        {
            "id": table["image_id"],
            "pack": table["crop_pack"],
            "row": table["crop_row"],
            "identity": table["identity"],
            "camera_id": table["camera_id"] if "camera_id" in table.column_names else missing,
            "encounter_id": table["encounter"] if "encounter" in table.column_names else missing,
        }
    )
    chunks = {
        f"{start // CHUNK_ROWS:06d}": rows.slice(start, CHUNK_ROWS) for start in range(0, rows.num_rows, CHUNK_ROWS)
    }
    return Source(uri=uri, place=labelled.place, chunks=chunks)


def _of_detections(store: Store, uri: str, digest: str) -> Source:
    collection = store.collection("detections", digest)
    columns = ["detection_id", "crop_pack", "crop_row", "camera_id"]
    chunks = {}
    for name in collection.finished():
        table = collection.read("detections", DETECTIONS, columns=columns, chunks=[name])
        table = table.filter(table["crop_pack"].is_valid())
        missing = pa.nulls(table.num_rows, pa.string())
        chunks[name] = pa.table(
            {
                "id": table["detection_id"].cast(pa.string()),
                "pack": table["crop_pack"],
                "row": table["crop_row"],
                "identity": missing,
                "camera_id": table["camera_id"],
                "encounter_id": missing,
            }
        )
    source = Source(uri=uri, place=("crops", digest), chunks=chunks)
    if not source.num_rows:
        raise DataError(
            f"{uri} has no crops: they were made from a results file without media, or nothing was detected."
        )
    return source

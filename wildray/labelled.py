"""Labelled images for evaluation: imported once into packs, read from there ever after.

In: a wildlife-datasets metadata CSV and the images beside it. Out: ``labelled/<digest>/`` with JPEG crops in Arrow IPC
packs and ``metadata.parquet``: the CSV's columns as text (a missing value is null) and ``crop_pack``, ``crop_row``,
``content_hash``. The digest is of the table, the crop settings, and the size and modification time of every image, so
an unchanged folder is imported once and a changed one anew. The metadata is written last and makes the import visible.

Reading the images where they lie, evaluation by evaluation, would need no copy; but then results change silently with
the folder, a cluster's workers need it mounted, and photos of 24 megapixels are decoded again for every model.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from wildray.config import Config
from wildray.errors import DataError, StoreError
from wildray.metadata import UNKNOWN, Metadata, read_metadata
from wildray.packs import PackReader, PackWriter
from wildray.photos import crop_jpeg
from wildray.store import Store

logger = logging.getLogger(__name__)

MAX_SKIPPED = 0.5
"""An import fails when more than this share of its rows cannot be used: then the table, not the images, is at fault."""
_OURS = ("crop_pack", "crop_row", "content_hash")
_VERSION = 1
"""Raised when the same input would be imported differently."""


@dataclass(frozen=True)
class Labelled:
    """An import in a store.

    Attributes:
        store: The store.
        digest: Name of the import, 16 hex digits.
        table: A row per image: the CSV's columns as text, ``crop_pack``, ``crop_row`` (int32) and ``content_hash``;
            the identity is null where it is not known.
        num_skipped: Rows of the CSV that could not be used.
    """

    store: Store
    digest: str
    table: pa.Table
    num_skipped: int

    @property
    def place(self) -> tuple[str, str]:
        """Folder of the packs, as parts of a path in the store."""
        return ("labelled", self.digest)

    @property
    def text_columns(self) -> dict[str, list[str | None]]:
        """The columns of text by name: all but ``crop_row``."""
        return {field.name: self.column(field.name) for field in self.table.schema if pa.types.is_string(field.type)}

    def column(self, name: str) -> list[str | None]:
        """A column's values."""
        values: list[str | None] = self.table.column(name).to_pylist()
        return values

    def reader(self) -> PackReader:
        """Reads the images by ``crop_pack`` and ``crop_row``."""
        return PackReader(self.store, self.place)


def import_labelled(
    store: Store,
    metadata_path: str | os.PathLike[str],
    *,
    padding: float,
    longest_px: int,
    max_skipped: float = MAX_SKIPPED,
    newest: bool = True,
    identities: Collection[str] | None = None,
) -> Labelled:
    """Bring labelled images into a store; the same table and images are imported once.

    Args:
        store: Where to.
        metadata_path: CSV of wildlife-datasets columns; image paths are relative to its folder.
        padding: Share of a bbox's width and height added on each side, as for detections' crops.
        longest_px: Crops with a longer side are scaled down to it.
        max_skipped: Largest share of rows, 0 to 1, that may be skipped (missing or unreadable image, impossible bbox).
        newest: Whether it becomes the newest, which is evaluated where nothing else is said.
        identities: Only the images of these individuals; all by default.

    Returns:
        The import.

    Raises:
        DataError: The table does not hold what is needed, a path leads out of its folder, or too many
            rows are unusable.
    """
    start = time.monotonic()
    metadata = read_metadata(Path(metadata_path).expanduser())
    if identities is not None:
        metadata = metadata.of(identities)
    digest = _digest(metadata, padding, longest_px)
    path = store.path("labelled", digest, "metadata.parquet")
    if not path.is_file():
        with store.lease(f"labelled-{digest}"):
            table = _import(store, digest, metadata, padding=padding, longest_px=longest_px, max_skipped=max_skipped)
            store.write_table(table, "labelled", digest, "metadata.parquet")
    if newest:
        settings = {"metadata": str(metadata.path), "padding": padding, "longest_px": longest_px}
        store.collection("labelled", digest).begin(settings)
    labelled = open_labelled(store, digest)
    logger.info(
        "labelled images: %d of %d rows from %s, %d individuals, %.1f s",
        labelled.table.num_rows,
        len(metadata.rows),
        metadata.path,
        len(set(labelled.column("identity")) - {None}),
        time.monotonic() - start,
    )
    return labelled


def labelled_digest(config: Config, store: Store, data: str | None) -> str:
    """The import of a metadata CSV, made unless it is there; an import by its digest; or the newest.

    Raises:
        DataError: As ``import_labelled``; or the newest is asked for, and there is none.
    """
    known = {path.parent.name for path in store.path("labelled").glob("*/metadata.parquet")}
    if data is None or data in known:
        return open_labelled(store, data).digest
    padding, longest_px = config.detect.crop_padding, config.detect.crop_longest_px
    return import_labelled(
        store, data, padding=padding, longest_px=longest_px, max_skipped=config.eval.max_skipped
    ).digest


def open_labelled(store: Store, digest: str | None = None) -> Labelled:
    """An import that the store holds.

    Args:
        store: The store.
        digest: Which; the newest by default.

    Raises:
        DataError: Nothing was imported.
        StoreError: The import's table cannot be read.
    """
    name = digest or newest_labelled(store)
    if name is None:
        raise DataError(
            "The store holds no labelled images: give --data metadata.csv (columns image_id, identity, path)."
        )
    path = store.path("labelled", name, "metadata.parquet")
    try:
        table = store.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}): remove its folder and import again with --data.") from None
    num_skipped = int((table.schema.metadata or {}).get(b"num_skipped", b"0"))
    return Labelled(store=store, digest=name, table=table, num_skipped=num_skipped)


def newest_labelled(store: Store) -> str | None:
    """Digest of the import that was used last, or None."""
    return store.newest("labelled")


@dataclass(frozen=True)
class _Crop:
    """What became of one row: JPEG bytes, or what is wrong with it."""

    row: Mapping[str, str]
    jpeg: bytes | None
    fault: str


def _crop(metadata: Metadata, row: Mapping[str, str], padding: float, longest_px: int) -> _Crop:
    try:
        for column in ("image_id", "path"):
            if not row[column]:
                raise DataError(f"{column} is empty")
        jpeg = crop_jpeg(metadata.image_path(row), row.get("bbox", ""), padding=padding, longest_px=longest_px)
        return _Crop(row, jpeg, "")
    except DataError as error:
        return _Crop(row, None, f"{row['image_id'] or row['path']}: {error}")


def _crops(metadata: Metadata, padding: float, longest_px: int) -> Iterator[_Crop]:
    """All rows in order, decoded by threads, a bounded number at a time."""
    num_threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(num_threads) as pool:
        step = 16 * num_threads
        for start in range(0, len(metadata.rows), step):
            yield from pool.map(
                lambda row: _crop(metadata, row, padding, longest_px), metadata.rows[start : start + step]
            )


def _import(
    store: Store, digest: str, metadata: Metadata, *, padding: float, longest_px: int, max_skipped: float
) -> pa.Table:
    """Write the packs; returns the table that makes them visible."""
    columns = [name for name in metadata.columns if name not in _OURS]
    kept: dict[str, list[str | None]] = {name: [] for name in columns}
    packs: list[str] = []
    rows: list[int] = []
    hashes: list[str] = []
    faults: list[str] = []
    writer = PackWriter(store, ("labelled", digest), "images")
    for crop in _crops(metadata, padding, longest_px):
        if crop.jpeg is None:
            faults.append(crop.fault)
            continue
        pack, row = writer.add(len(rows), crop.jpeg)
        packs.append(pack)
        rows.append(row)
        hashes.append(hashlib.blake2b(crop.jpeg, digest_size=16).hexdigest())
        for name in columns:
            value = crop.row[name]
            unknown = name == "identity" and value.lower() == UNKNOWN
            kept[name].append(None if unknown else value or None)
    _judge_faults(metadata, faults, max_skipped)
    writer.close()
    _warn_copies(hashes)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in kept.items()})
    ours = (pa.array(packs, pa.string()), pa.array(rows, pa.int32()), pa.array(hashes, pa.string()))
    for name, array in zip(_OURS, ours, strict=True):
        table = table.append_column(name, array)
    return table.replace_schema_metadata({"num_skipped": str(len(faults))})


def _judge_faults(metadata: Metadata, faults: list[str], max_skipped: float) -> None:
    if not faults:
        return
    num_rows = len(metadata.rows)
    shown = "\n  ".join(faults[:5]) + (f"\n  ... and {len(faults) - 5} more" if len(faults) > 5 else "")
    if len(faults) == num_rows or len(faults) > max_skipped * num_rows:
        raise DataError(
            f"{len(faults)} of {num_rows} rows of {metadata.path} cannot be used (at most {max_skipped:.0%} may):\n  "
            f"{shown}\nPaths are relative to {metadata.folder}, boxes [x, y, width, height] in pixels."
        )
    logger.warning("%d of %d rows of %s were skipped:\n  %s", len(faults), num_rows, metadata.path, shown)


def _warn_copies(hashes: list[str]) -> None:
    if num_copies := sum(count - 1 for count in Counter(hashes).values()):
        logger.warning(
            "%d images are exact copies of others: in different encounters they make matches look easy", num_copies
        )


def _digest(metadata: Metadata, padding: float, longest_px: int) -> str:
    state = hashlib.blake2b(digest_size=8)
    state.update(f"{_VERSION} {padding!r} {longest_px}\n".encode())
    state.update(metadata.content)
    for row in metadata.rows:
        try:
            facts = metadata.image_path(row).stat()
            state.update(f"\n{facts.st_size} {facts.st_mtime_ns}".encode())
        except OSError:
            state.update(b"\nmissing")
    return state.hexdigest()

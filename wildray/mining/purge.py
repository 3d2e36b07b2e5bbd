"""Take crops out of a store for good: of people, say, whom a detector of animals alone cannot tell apart.

In: media (files or ids) or detection ids. Out: packs whose crops are of no bytes, detections without colours or a crop
address, pairs and vectors without them, and no page or logged picture that could still show them. Media stay on the
list ``purged.json``, so that a later detect with other settings does not crop them again. The rows of the detections
stay: that something was seen there, and when, is no picture.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.errors import DataError, StoreError
from wildray.mining.media import media_id
from wildray.packs import forget_packs, write_pack
from wildray.remote import local_copy, remove
from wildray.schema import DETECTIONS, MEDIA, PACK
from wildray.store import Store

logger = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".html")
"""Suffixes of files logged with runs that may show crops."""


@dataclass(frozen=True)
class PurgeResult:
    """What a purge took out.

    Attributes:
        num_media: Media whose crops are gone.
        num_crops: Crops emptied.
        num_pairs: Pairs removed.
        num_vectors: Embeddings removed.
        num_pages: Pages and logged pictures removed; ``wildray report`` makes pages anew.
        seconds: Wall-clock time.
    """

    num_media: int
    num_crops: int
    num_pairs: int
    num_vectors: int
    num_pages: int
    seconds: float


def purged_media(store: Store) -> set[str]:
    """Ids of media that are never cropped again."""
    return set(store.read_json("purged.json")) if store.path("purged.json").exists() else set()


def purge(store: Store, what: Sequence[str]) -> PurgeResult:
    """Take the crops of media or detections out of everything in the store.

    Args:
        store: The store.
        what: Paths of media files, media ids (32 hex digits), or detection ids (whole numbers).

    Returns:
        Counts.

    Raises:
        DataError: Something in ``what`` is not in the store; nothing is taken out then.
        StoreError: Another writer is at work in the store.
    """
    begun = time.monotonic()
    collections = [store.collection("detections", digest) for digest in sorted(store.collections("detections"))]
    media, detections = _resolve(collections, what)
    store.write_text(json.dumps(sorted(purged_media(store) | media)), "purged.json")
    gone: set[int] = set()
    num_crops = 0
    for collection in collections:
        with store.lease(f"detections-{collection.digest}"):
            for chunk in collection.finished():
                ids, crops = _purge_chunk(collection, chunk, media, detections)
                gone |= ids
                num_crops += crops
    forget_packs()
    num_pairs = _drop_rows(store, "pairs", ("anchor_id", "positive_id"), pa.array(sorted(gone), pa.int64()))
    num_vectors = _drop_rows(store, "embeddings", ("id",), pa.array([str(i) for i in sorted(gone)], pa.string()))
    num_pages = _remove_pictures(store)
    result = PurgeResult(len(media), num_crops, num_pairs, num_vectors, num_pages, time.monotonic() - begun)
    logger.info("purged %d crops of %d media and %d pairs in %.1f s", num_crops, len(media), num_pairs, result.seconds)
    return result


def _resolve(collections: Sequence[Collection], what: Sequence[str]) -> tuple[set[str], set[int]]:
    known: dict[str, str] = {}
    ids: set[int] = set()
    for collection in collections:
        rows = collection.read("media", MEDIA, columns=["media_id", "uri"]).to_pydict()
        known |= dict(zip(rows["uri"], rows["media_id"], strict=True))
        ids |= set(collection.read("detections", DETECTIONS, columns=["detection_id"])["detection_id"].to_pylist())
    media, detections, unknown = set(), set(), []
    for word in what:
        path = Path(word).absolute()
        if word in known.values():
            media.add(word)
        elif str(path) in known:
            media.add(known[str(path)])
        elif path.is_file() and media_id(str(path)) in known.values():
            media.add(media_id(str(path)))
        elif word.lstrip("-").isdigit() and int(word) in ids:
            detections.add(int(word))
        else:
            unknown.append(word)
    if unknown:
        raise DataError(
            f"The store holds no medium or detection {', '.join(unknown)}. Expected the path of a file that was "
            f"detected, its media_id, or a detection_id (put '--' before negative numbers). Nothing was taken out."
        )
    return media, detections


def _purge_chunk(collection: Collection, chunk: str, media: set[str], detections: set[int]) -> tuple[set[int], int]:
    table = collection.read("detections", DETECTIONS, chunks=[chunk])
    of_media = pc.is_in(table["media_id"], pa.array(sorted(media), pa.string()))
    of_ids = pc.is_in(table["detection_id"], pa.array(sorted(detections), pa.int64()))
    hit = pc.or_(of_media, of_ids)
    hits = table.filter(hit)
    if hits.num_rows == 0:
        return set(), 0
    ids = pa.array(hits["detection_id"].to_pylist(), pa.int64())
    crops = hits.filter(pc.is_valid(hits["crop_pack"]))
    for pack in sorted(set(crops["crop_pack"].to_pylist())):
        if not collection.store.path("crops", collection.digest, f"{pack}.arrow").exists():
            continue  # removed by hand: nothing is left to empty
        _empty_rows(collection.store, ("crops", collection.digest, f"{pack}.arrow"), ids)
    for name in ("colour", "crop_pack", "crop_row"):
        index = DETECTIONS.get_field_index(name)
        column = pc.if_else(hit, pa.scalar(None, DETECTIONS.field(index).type), table[name])
        table = table.set_column(index, DETECTIONS.field(index), column)
    collection.write("detections", chunk, table)
    return set(ids.to_pylist()), crops.num_rows


def _empty_rows(store: Store, place: tuple[str, ...], ids: pa.Array) -> None:
    path = store.path(*place)
    try:
        copy = local_copy(path)
        with pa.OSFile(str(copy), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"The pack {path} cannot be read ({error}), so its crops cannot be taken out one by one. Remove the file "
            f"by hand (all its crops go with it), then purge again."
        ) from None
    hit = pc.is_in(table["id"], ids)
    jpeg = pc.if_else(hit, pa.scalar(b"", pa.large_binary()), table["jpeg"])
    background = pa.nulls(table.num_rows, pa.large_binary())  # packs of before it was kept have none
    if "background" in table.column_names:
        background = pc.if_else(hit, pa.scalar(None, pa.large_binary()), table["background"])
    write_pack(store, pa.table([table["id"], jpeg, background], schema=PACK), *place)
    if copy != path:
        copy.unlink(missing_ok=True)  # this machine's; those of other nodes go as their caches fill


def _drop_rows(store: Store, stage: str, columns: tuple[str, ...], ids: pa.Array) -> int:
    dropped = 0
    for path in sorted(store.path(stage).glob("*/*.parquet")):
        table = store.read_table(path)
        hit = pc.is_in(table[columns[0]], ids)
        for column in columns[1:]:
            hit = pc.or_(hit, pc.is_in(table[column], ids))
        kept = table.filter(pc.invert(hit))
        if kept.num_rows < table.num_rows:
            store.write_table(kept, stage, path.parent.name, path.name)
            dropped += table.num_rows - kept.num_rows
    return dropped


def _remove_pictures(store: Store) -> int:
    pages = [path for path in store.path("reports").rglob("*") if path.is_file()]
    remove(store.path("reports"))
    logged = [path for path in store.path("mlartifacts").rglob("*") if path.suffix.lower() in PICTURES]
    for path in logged:
        path.unlink(missing_ok=True)
    return len(pages) + len(logged)

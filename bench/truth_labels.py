"""Labels for the very crops that label-free methods train on, from the truth of a simulated reserve.

In: a store with mined pairs of a simulated reserve, and its ``truth/boxes.parquet``. Out: an import of labelled images
in that store, whose digest goes into ``train.labels``: every crop that some pair holds, byte for byte, with the
identity of the animal its box shows. Crops of no animal (a stump, a gust) are left out: nobody would label them; so
are those of an animal that another box of the frame shows better.
Going through a folder of images instead would encode every crop a second time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wildray.errors import DataError
from wildray.mining.matching import match
from wildray.mining.truth import read_truth
from wildray.packs import PackReader, PackWriter
from wildray.schema import DETECTIONS, MEDIA, PAIRS
from wildray.store import Store

logger = logging.getLogger(__name__)

MIN_IOU = 0.2
"""``mine.min_iou``: from there on, two boxes are one animal to the label-free methods too. A motion detector often
boxes the part that moves: at the usual 0.5, half of its crops of animals would have no label."""


def label_crops(store: Store, truth: str | Path, *, pairs: str | None = None, min_iou: float = MIN_IOU) -> str:
    """Import the crops of a pair set as labelled images.

    Args:
        store: Has the pairs, the detections they were mined from, and the crops.
        truth: ``boxes.parquet`` of the reserve.
        pairs: Digest of the pairs; default the newest. A part of them gives a part of the images.
        min_iou: Least overlap with an animal's true box, in (0, 1].

    Returns:
        Digest of the import, for ``train.labels``. It does not become the newest import, which is evaluated by default.

    Raises:
        DataError: There are no pairs, or no crop shows an animal of the truth.
    """
    digest = pairs or store.newest("pairs")
    if digest is None:
        raise DataError(f"The store {store.root} has no pairs: run 'wildray mine' first.")
    collection = store.collection("pairs", digest)
    table = collection.read("pairs", PAIRS, columns=["anchor_id", "positive_id"])
    wanted = pc.unique(pa.chunked_array([*table["anchor_id"].chunks, *table["positive_id"].chunks], pa.int64()))
    source = str(collection.settings()["detections"])
    crops = store.collection("detections", source).read("detections", DETECTIONS)
    crops = crops.filter(pc.is_in(crops["detection_id"], value_set=wanted)).sort_by("detection_id")
    boxes = pq.read_table(truth)
    boxes = boxes.filter(pc.greater(boxes["mot_id"], 0))
    media = store.collection("detections", source).read("media", MEDIA, columns=["media_id", "uri"])
    try:
        files = read_truth([truth]).files_of(media, partial=True)
    except DataError as error:
        raise DataError(f"{error} Is it of another reserve?") from None
    place = match(crops, boxes, files, min_iou=min_iou).place
    kept = np.flatnonzero(place >= 0)
    if not len(kept):
        raise DataError(f"No crop of the pairs {digest} overlaps an animal of {truth} by {min_iou}: another reserve?")
    labelled = _table(crops.take(pa.array(kept)), boxes.take(pa.array(place[kept])))
    name = _import(store, source, labelled, num_skipped=crops.num_rows - len(kept))
    logger.info("%d of %d crops of the pairs %s labelled: %s", len(kept), crops.num_rows, digest, name)
    return name


def _table(crops: pa.Table, boxes: pa.Table) -> pa.Table:
    """Columns of a metadata table, as text, and where the detections' crops lie."""
    ids = [f"{detection_id & (2**64 - 1):016x}" for detection_id in crops["detection_id"].to_pylist()]
    columns = {
        "image_id": ids,
        "identity": boxes["identity"],
        "species": boxes["species"],
        "orientation": boxes["flank"],
        "camera_id": crops["camera_id"],
        "encounter": crops["media_id"],
    }
    table = pa.table(columns)
    return table.append_column("pack", crops["crop_pack"]).append_column("row", crops["crop_row"])


def _import(store: Store, detections: str, table: pa.Table, *, num_skipped: int) -> str:
    """Write packs and table; returns the digest, equal for equal content."""
    content = json.dumps([detections, table.to_pylist()]).encode()
    name = hashlib.blake2b(content, digest_size=8).hexdigest()
    if store.path("labelled", name, "metadata.parquet").is_file():
        return name
    reader, writer = PackReader(store, ("crops", detections)), PackWriter(store, ("labelled", name), "images")
    packs, rows, hashes = [], [], []
    for number, (pack, row) in enumerate(zip(table["pack"].to_pylist(), table["row"].to_pylist(), strict=True)):
        jpeg = reader.jpeg(pack, row)
        new_pack, new_row = writer.add(number, jpeg)
        packs.append(new_pack)
        rows.append(new_row)
        hashes.append(hashlib.blake2b(jpeg, digest_size=16).hexdigest())
    writer.close()
    table = table.drop_columns(["pack", "row"]).append_column("crop_pack", pa.array(packs, pa.string()))
    table = table.append_column("crop_row", pa.array(rows, pa.int32()))
    table = table.append_column("content_hash", pa.array(hashes, pa.string()))
    store.write_table(
        table.replace_schema_metadata({"num_skipped": str(num_skipped)}), "labelled", name, "metadata.parquet"
    )
    return name


def main() -> None:
    """Label the crops of a store and print the digest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("store", help="store with mined pairs")
    parser.add_argument("truth", help="truth/boxes.parquet of the simulated reserve")
    parser.add_argument("--pairs", help="digest of the pairs; default the newest")
    parser.add_argument("--min-iou", type=float, default=MIN_IOU, help="least overlap with a true box [%(default)s]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    print(label_crops(Store.open(arguments.store), arguments.truth, pairs=arguments.pairs, min_iou=arguments.min_iou))


if __name__ == "__main__":
    main()

"""Real nyala to train and measure on, and single images as samples of label-free methods.

In: the folder ``nyala`` of what WILDRAY_TEST_DATA names: photographs with identity, flank and encounter. Out: a store
with three imports (training, validation, test) of disjoint individuals, divided by a hash of the name, and a pairs
collection whose anchor and positive are one training image: all that self views need, and no identity in it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from wildray.config import DetectConfig
from wildray.errors import DataError
from wildray.labelled import import_labelled, open_labelled
from wildray.learning.labels import check_unseen
from wildray.schema import DETECTIONS, PAIRS, hash64
from wildray.store import Store

SPLITS = ("train", "validation", "test")
NUM_FOLDS = 5
"""One fifth of the individuals is tested on, one fifth chooses settings, the others are trained on."""


@dataclass(frozen=True)
class Animals:
    """What the bench trains and measures on.

    Attributes:
        root: The store's folder.
        imports: Digest of each split's images.
        num_images: Of each split.
        num_individuals: Of each split.
        self_pairs: Digest of the training images paired with themselves.
    """

    root: str
    imports: Mapping[str, str]
    num_images: Mapping[str, int]
    num_individuals: Mapping[str, int]
    self_pairs: str

    @property
    def store(self) -> Store:
        """The store."""
        return Store(self.root)


def split_of(identity: str) -> str:
    """The split of an individual, by a hash of its name alone."""
    fold = hash64(("split", identity)) % NUM_FOLDS
    return {0: "test", 1: "validation"}.get(fold, "train")


def open_animals(work: Path, *, smoke: bool) -> Animals:
    """The photographs of a working folder, imported unless they are.

    Raises:
        DataError: WILDRAY_TEST_DATA does not name a folder with ``nyala/metadata.csv``.
    """
    folder = work / ("nyala-smoke" if smoke else "nyala")  # the runs of a smoke trial must not be gone on with
    record = folder / "animals.json"
    if not record.is_file():
        source = Path(os.environ.get("WILDRAY_TEST_DATA", "")) / "nyala"
        if not (source / "metadata.csv").is_file():
            raise DataError(
                f"There is no {source / 'metadata.csv'}: set WILDRAY_TEST_DATA to the folder that holds 'nyala'."
            )
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(asdict(_make(folder, source)), indent=1))
    return Animals(**json.loads(record.read_text()))


def _make(folder: Path, source: Path) -> Animals:
    store = Store.open(folder / "store", create=True)
    with (source / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for entry in source.iterdir():
        link = folder / entry.name
        if entry.is_dir() and not link.exists():
            link.symlink_to(entry, target_is_directory=True)
    crops = DetectConfig()
    imports, num_images, num_individuals = {}, {}, {}
    for split in SPLITS:
        chosen = [row for row in rows if split_of(row["identity"]) == split]
        table = folder / f"{split}.csv"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(chosen)
        found = import_labelled(store, table, padding=crops.crop_padding, longest_px=crops.crop_longest_px)
        imports[split], num_images[split] = found.digest, found.table.num_rows
        num_individuals[split] = len({row["identity"] for row in chosen})
    for held_out in ("validation", "test"):
        check_unseen(store, trained=imports["train"], evaluated=imports[held_out])
    check_unseen(store, trained=imports["validation"], evaluated=imports["test"])
    return Animals(store.root, imports, num_images, num_individuals, pair_with_themselves(store, imports["train"]))


def pair_with_themselves(store: Store, labels: str) -> str:
    """A pairs collection in which every image of an import is its own partner.

    Label-free methods read pairs; with ``train.views self`` both views are of one of the two crops, so a pair of an
    image with itself is a single image. The packs are linked, not copied.

    Args:
        store: Holds the import; takes ``crops``, ``detections`` and ``pairs`` under its digest.
        labels: Digest of the import.

    Returns:
        Digest of the pairs.
    """
    labelled = open_labelled(store, labels)
    target = store.path("crops", labels)
    target.mkdir(parents=True, exist_ok=True)
    for pack in store.path(*labelled.place).glob("*.arrow"):
        if not (target / pack.name).exists():
            os.link(pack, target / pack.name)
    num = labelled.table.num_rows
    ids = np.array([hash64(("image", labels, row)) for row in range(num)], np.int64)
    packs, rows = labelled.table["crop_pack"], labelled.table["crop_row"]
    detections = {
        "detection_id": ids,
        "media_id": labelled.table["image_id"],
        "camera_id": [""] * num,
        "frame_index": np.zeros(num),
        "time_s": np.zeros(num),
        "width_px": np.ones(num),
        "height_px": np.ones(num),
        **{
            name: np.full(num, edge)
            for name, edge in zip(("x1_px", "y1_px", "x2_px", "y2_px"), (0, 0, 1, 1), strict=True)
        },
        "score": np.ones(num),
        "category": ["animal"] * num,
        "crop_pack": packs,
        "crop_row": rows,
    }
    pairs = {
        "anchor_id": ids,
        "positive_id": ids,
        "anchor_pack": packs,
        "anchor_row": rows,
        "positive_pack": packs,
        "positive_row": rows,
        "sequence_id": ids,
        "camera_id": [""] * num,
        "tracklet_id": ids,
        **{name: np.full(num, value) for name, value in (("iou", 1), ("gap_s", 0), ("min_score", 1), ("margin", 1))},
    }
    for stage, schema, columns in (("detections", DETECTIONS, detections), ("pairs", PAIRS, pairs)):
        collection = store.collection(stage, labels)
        # the box is the whole crop, of which nothing was added around it
        collection.begin({"detections": labels, "self_pairs_of": labels, "detect": {"crop_padding": 0.0}})
        collection.write(stage, "000000", _table(schema, columns, num))
        collection.done("000000", {"num": num})
    return labels


def _table(schema: pa.Schema, columns: Mapping[str, object], num: int) -> pa.Table:
    """A table of a schema; columns that are not given are null."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if isinstance(values, pa.ChunkedArray):
            arrays.append(values.combine_chunks().cast(field.type))
        else:
            arrays.append(
                pa.nulls(num, field.type) if values is None else pa.array(values).cast(field.type, safe=False)
            )
    return pa.Table.from_arrays(arrays, schema=schema)

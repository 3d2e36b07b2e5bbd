"""A store with pairs of drawn crops, made without media: every animal is a colour and a stripe period."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from wildray.config import Config
from wildray.packs import PackWriter, encode_jpeg, forget_packs, write_pack
from wildray.schema import DETECTIONS, PACK, PAIRS
from wildray.store import Store

DETECTIONS_DIGEST = "d" * 16
PAIRS_DIGEST = "a" * 16
TINY = {
    "backbone.name": "test_resnet",
    "backbone.image_size": 32,
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.checkpoint_steps": 2,
    "train.precision": "fp32",
    "method.hidden_dim": 32,
    "method.projection_dim": 16,
    "method.local_views": 1,
    "tracking.uri": None,
}
"""Settings of a training that takes a second or two."""
IMPORT = {"padding": 0.0, "longest_px": 64}
"""How drawn labelled images are imported."""


def tiny_config(*, workers: int = 1, **overrides: object) -> Config:
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    return Config.load(overrides=TINY | {"scale.workers": workers} | given)


def drawn_crop(rng: np.random.Generator, animal: int, *, size_px: int) -> np.ndarray:
    """Stripes of the animal's colour, period and angle."""
    look = np.random.default_rng(animal)
    period, angle = look.uniform(4, 12), look.uniform(0, np.pi)
    color = look.integers(40, 255, 3)
    y, x = np.mgrid[:size_px, :size_px]
    stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / period + rng.uniform(0, 6)) > 0
    image = np.where(stripes[..., None], color, 255 - color) + rng.normal(0, 10, (size_px, size_px, 3))
    return image.clip(0, 255).astype(np.uint8)


def make_store(root: str, *, num_pairs: int = 96, num_animals: int = 8, size_px: int = 48, with_crops: bool = True):
    store = Store.open(root, create=True)
    rng = np.random.default_rng(0)
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    detections, pairs = [], []
    writers = [PackWriter(store, ("crops", DETECTIONS_DIGEST), f"chunk{i}") for i in range(3)]
    for pair in range(num_pairs):
        animal, addresses = pair % num_animals, []
        writer = writers[pair % 3]
        for side in range(2):
            detection_id = 1000 + 2 * pair + side
            address = writer.add(detection_id, encode_jpeg(drawn_crop(rng, animal, size_px=size_px)))
            addresses.append(address if with_crops else (None, None))
            detections.append(
                {
                    "detection_id": detection_id,
                    "media_id": f"{animal:032x}",
                    "camera_id": f"cam{animal % 2}",
                    "frame_index": 10 * pair + side,
                    "time_s": pair * 1.0 + side,
                    "captured_at": start if animal else None,
                    "width_px": 320,
                    "height_px": 240,
                    "x1_px": float(pair),
                    "y1_px": 2.0,
                    "x2_px": float(pair + 30),
                    "y2_px": 40.0 + side,
                    "score": 0.9,
                    "category": "animal",
                    "motion": 0.5,
                    "crop_pack": addresses[-1][0],
                    "crop_row": addresses[-1][1],
                }
            )
        pairs.append(
            {
                "anchor_id": 1000 + 2 * pair,
                "positive_id": 1001 + 2 * pair,
                "anchor_pack": addresses[0][0],
                "anchor_row": addresses[0][1],
                "positive_pack": addresses[1][0],
                "positive_row": addresses[1][1],
                "sequence_id": animal,
                "camera_id": f"cam{animal % 2}",
                "tracklet_id": animal,
                "iou": 0.5,
                "gap_s": 1.0,
                "gap_frames": 1,
                "min_score": 0.9,
                "margin": 0.5,
            }
        )
    for writer in writers:
        writer.close()
    for stage, digest, rows, schema in (
        ("detections", DETECTIONS_DIGEST, detections, DETECTIONS),
        ("pairs", PAIRS_DIGEST, pairs, PAIRS),
    ):
        collection = store.collection(stage, digest)
        collection.begin({"detections": DETECTIONS_DIGEST, "detect": {"crop_padding": 0.1}})
        collection.write(stage, "all", pa.Table.from_pylist(rows, schema=schema))
        collection.done("all", {"rows": len(rows)})
    return store


def colour_of(detection_id, camera):
    """Of a background: its red is the camera's, its green the detection's own."""
    return (40 + 160 * camera, 20 + 2 * (detection_id % 100), 90)


def add_backgrounds(store: Store, *, every: int = 10) -> Store:
    """Give crops a background of one colour each, but for those of every tenth pair (or another number)."""
    for path in store.path("crops", DETECTIONS_DIGEST).glob("*.arrow"):
        with pa.OSFile(str(path), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
        backgrounds = []
        for detection_id in table["id"].to_pylist():
            pair = (detection_id - 1000) // 2
            picture = np.full((30, 40, 3), colour_of(detection_id, pair % 8 % 2), np.uint8)
            backgrounds.append(encode_jpeg(picture) if pair % every else None)
        columns = [table["id"], table["jpeg"], pa.array(backgrounds, pa.large_binary())]
        write_pack(store, pa.table(columns, schema=PACK), "crops", DETECTIONS_DIGEST, path.name)
    forget_packs()
    return store


def write_labels(folder: Path, images, *, camera: bool = True) -> Path:
    """A metadata.csv of drawn images: (identity, ...) in order."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    columns = ["image_id", "identity", "path", *(["camera_id"] if camera else [])]
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row, name in enumerate(images):
            animal = sum(map(ord, name))
            cv2.imwrite(str(folder / f"{row}.png"), drawn_crop(rng, animal, size_px=48)[..., ::-1])
            writer.writerow([f"i{row}", name, f"{row}.png", *([f"cam{row % 3}"] if camera else [])])
    return folder / "metadata.csv"

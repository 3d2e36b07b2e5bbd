"""A small store as the stages leave it, with drawn animals, hostile names and a file that cannot be read."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray import schema
from wildray.packs import PackWriter, encode_jpeg
from wildray.store import Store

HOSTILE = "<script>alert('cam')</script>"
CAMERAS = ("waterhole", HOSTILE, "north $x^2$ & fence")
FRAMES = 12
DETECTIONS, PAIRS, LABELLED, VECTORS = "d" * 16, "a" * 16, "b" * 16, "e" * 16


def draw(seed: int, shade: float = 1.0) -> npt.NDArray[np.uint8]:
    """(60, 90, 3) uint8: a body with stripes that the seed decides, on a brownish ground."""
    rng = np.random.default_rng(seed)
    image = np.full((60, 90, 3), (120, 110, 80), np.uint8)
    image = np.clip(image + np.random.default_rng().integers(-12, 12, image.shape), 0, 255).astype(np.uint8)
    cv2.ellipse(image, (45, 32), (32, 18), 0, 0, 360, tuple(int(v) for v in rng.integers(60, 230, 3)), -1)
    for x in rng.integers(18, 72, 6):
        cv2.line(image, (int(x), 18), (int(x) + 4, 46), (30, 24, 20), 3)
    return (image * shade).astype(np.uint8)


def media_rows() -> list[dict[str, Any]]:
    rows = []
    for number, camera in enumerate((*CAMERAS, "waterhole")):
        bad = number == len(CAMERAS)
        rows.append(
            {
                "media_id": f"{number:032x}",
                "uri": "/media/broken <b>clip</b>.mp4" if bad else f"/media/{number}.mp4",
                "kind": "video",
                "camera_id": camera,
                "captured_at": datetime(2024, 5, 1, 6 + number, tzinfo=UTC),
                "clock_flag": "ok" if number else "epoch",
                "num_duplicates": int(number == 0),
                "width_px": 640,
                "height_px": 360,
                "status": "unreadable" if bad else "done",
                "error": "no video stream <img src=http://evil/x.png>" if bad else None,
            }
        )
    return rows


def detection_rows(writer: PackWriter) -> list[dict[str, Any]]:
    """A walking animal per camera, and at the waterhole a rock that never moves."""
    rows = []
    for number, camera in enumerate(CAMERAS):
        for frame in range(FRAMES):
            things = [("animal", 40.0 + 40 * frame, 120.0, number, 0.6 + 0.03 * frame)]
            things += [("animal", 420.0, 250.0, 99, 0.4)] if camera == "waterhole" else []
            for kind, x, y, seed, score in things:
                identity = len(rows) + 1
                pack, row = writer.add(identity, encode_jpeg(draw(seed, 1 - 0.02 * frame)))
                rows.append(
                    {
                        "detection_id": identity,
                        "media_id": f"{number:032x}",
                        "camera_id": camera,
                        "frame_index": frame * 15,
                        "time_s": frame * 0.5,
                        "captured_at": datetime(2024, 5, 1, 6 + number, tzinfo=UTC) + timedelta(0),
                        "width_px": 640,
                        "height_px": 360,
                        "x1_px": x,
                        "y1_px": y,
                        "x2_px": x + 90,
                        "y2_px": y + 60,
                        "score": score,
                        "category": kind,
                        "motion": 0.0 if seed == 99 else 0.4,
                        "crop_pack": pack,
                        "crop_row": row,
                    }
                )
    return rows


def write_detections(store: Store, detector: str = "megadetector_lite") -> list[dict[str, Any]]:
    writer = PackWriter(store, ("crops", DETECTIONS), "chunk")
    rows = detection_rows(writer)
    writer.close()
    collection = store.collection("detections", DETECTIONS)
    collection.begin({"detect": {"detector": detector}, "facts": {}})
    frames = [
        {
            "media_id": f"{m:032x}",
            "frame_index": f * 15,
            "time_s": f * 0.5,
            "sampling_pass": 0,
            "num_boxes": int(f < 12),
        }
        | {"infrared": False}
        for m in range(3)
        for f in range(16)
    ]
    collection.write("media", "chunk", pa.Table.from_pylist(media_rows(), schema=schema.MEDIA))
    collection.write("frames", "chunk", pa.Table.from_pylist(frames, schema=schema.FRAMES))
    collection.write("detections", "chunk", pa.Table.from_pylist(rows, schema=schema.DETECTIONS))
    collection.done("chunk", {})
    return rows


def write_pairs(store: Store, rows: list[dict[str, Any]], repeat: int = 1) -> int:
    moving = [row for row in rows if row["motion"] > 0]
    pairs = []
    for one, other in itertools.pairwise(moving):
        if one["camera_id"] != other["camera_id"]:
            continue
        pairs.append(
            {
                "anchor_id": one["detection_id"],
                "positive_id": other["detection_id"],
                "anchor_pack": one["crop_pack"],
                "anchor_row": one["crop_row"],
                "positive_pack": other["crop_pack"],
                "positive_row": other["crop_row"],
                "sequence_id": 1 + CAMERAS.index(one["camera_id"]),
                "camera_id": one["camera_id"],
                "tracklet_id": 1,
                "iou": 0.38,
                "gap_s": 0.5,
                "gap_frames": 15,
                "min_score": one["score"],
                "margin": 0.1 + 0.01 * len(pairs),
            }
        )
    static = [
        {
            "detection_id": row["detection_id"],
            "sequence_id": 1,
            "static": row["motion"] == 0,
            "presence": 1.0 if row["motion"] == 0 else 0.1,
            "motion": row["motion"],
        }
        for row in rows
    ]
    collection = store.collection("pairs", PAIRS)
    collection.begin({"detections": DETECTIONS, "mine": {"min_iou": 0.2}})
    collection.write("pairs", "all", pa.Table.from_pylist(pairs * repeat, schema=schema.PAIRS))
    collection.write("static", "all", pa.Table.from_pylist(static, schema=schema.STATIC))
    collection.done("all", {})
    return len(pairs) * repeat


def write_run(store: Store, run: str = "first") -> None:
    history = [
        {"epoch": n + 1, "loss": 4 * 0.8**n, "mAP": 0.1 + 0.02 * n, "embedding_rank": 5 + n, "embedding_std": 0.4}
        | {"learning_rate": 1e-3, "images_per_s": 100.0}
        for n in range(10)
    ]
    store.write_text(json.dumps(history), "models", run, "history.json")
    store.write_text("train:\n  method: simclr\n", "models", run, "config.yaml")


def write_evaluation(store: Store, run: str = "first", num_identities: int = 10) -> None:
    rng = np.random.default_rng(0)
    writer = PackWriter(store, ("labelled", LABELLED), "images")
    rows = []
    for number in range(num_identities * 4):
        identity = number // 4
        pack, row = writer.add(number, encode_jpeg(draw(200 + identity, 1 - 0.1 * (number % 4))))
        rows.append(
            {"image_id": f"i{number}", "identity": f"animal <{identity}>", "species": ("nyala", "zebra")[identity % 2]}
            | {"camera_id": f"c{number % 3}", "encounter": f"e{number // 2}", "crop_pack": pack, "crop_row": row}
        )
    writer.close()
    store.write_table(pa.Table.from_pylist(rows), "labelled", LABELLED, "metadata.parquet")
    store.collection("labelled", LABELLED).begin({})
    centres = rng.normal(size=(num_identities, 16))
    vectors = np.array([centres[n // 4] + 0.4 * rng.normal(size=16) for n in range(len(rows))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings = store.collection("embeddings", VECTORS)
    embeddings.begin({"dim": 16})
    embeddings.write(
        "embeddings",
        "all",
        pa.Table.from_pylist(
            [{"id": row["image_id"], "vector": v.tolist()} for row, v in zip(rows, vectors, strict=True)],
            schema=schema.EMBEDDINGS,
        ),
    )
    embeddings.done("all", {})
    matches = []
    for query in range(len(rows)):
        order = [other for other in np.argsort(-(vectors @ vectors[query])).tolist() if other // 2 != query // 2][:10]
        matches += [
            {"query_id": f"i{query}", "rank": place + 1, "gallery_id": f"i{other}"}
            | {"identity": rows[other]["identity"], "similarity": float(vectors[query] @ vectors[other])}
            for place, other in enumerate(order)
        ]
    store.write_table(pa.Table.from_pylist(matches, schema=schema.MATCHES), "models", run, "matches.parquet")
    figures: dict[str, Any] = {"num_queries": 40, "num_identities": num_identities, "num_gallery": 40, "gain_mAP": 0.2}
    figures |= {"gain_mAP_low": 0.1, "gain_mAP_high": 0.3}
    for key, value in {"mAP": 0.62, "cmc_1": 0.7, "cmc_5": 0.9, "cmc_10": 0.95}.items():
        figures |= {key: value, f"{key}_low": value - 0.1, f"{key}_high": value + 0.05, f"chance_{key}": 0.09}
        figures |= {f"untrained_{key}": value - 0.2, f"untrained_{key}_low": 0.3, f"untrained_{key}_high": 0.5}
    content = figures | {
        "per_species": {"nyala": {"mAP": 0.7}, "zebra": {"mAP": 0.5}},
        "per_identity": {f"animal <{n}>": {"mAP": 1 - 0.08 * n} for n in range(num_identities)},
        "run": run,
        "labelled": LABELLED,
        "embeddings": VECTORS,
        "protocol": {"exclude": None},
    }
    store.write_text(json.dumps(content), "models", run, "evaluation.json")

"""A store with mined pairs whose truth is known, and the verdicts that people give on a sheet of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wildray import schema
from wildray.packs import PackWriter, encode_jpeg
from wildray.report.audit.record import read_record
from wildray.store import Store

HOSTILE = "</script><script>alert('cam')</script><img src=x onerror=alert(1)>"
DETECTIONS, PAIRS = "d" * 16, "a" * 16
BASE = 2**62
"""Detection ids begin here, where JavaScript's numbers have lost their last digits."""
Truth = dict[tuple[int, int], str]


def mined_store(
    folder: Path, num_pairs: int = 60, *, crops: bool = True, backgrounds: bool = False, seed: int = 0
) -> tuple[Store, Truth]:
    """Pairs with one to five boxes in the frame; wrong more often in company and at a low overlap."""
    store = Store.open(folder, create=True)
    rng = np.random.default_rng(seed)
    writer = PackWriter(store, ("crops", DETECTIONS), "pack")
    detections: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    truth: Truth = {}

    def box(frame: int, camera: str, *, score: float = 0.9) -> dict[str, Any]:
        number = len(detections)
        row: dict[str, Any] = {
            **{"detection_id": (BASE + number) * (-1) ** number, "media_id": f"{frame // 2:032x}", "camera_id": camera},
            **{"frame_index": frame, "time_s": frame / 2, "category": "animal", "score": score},
            **{"x1_px": 0.0, "y1_px": 0.0, "x2_px": 9.0, "y2_px": 9.0, "width_px": 640, "height_px": 360},
        }
        if crops:
            jpeg = encode_jpeg(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
            row["crop_pack"], row["crop_row"] = writer.add(row["detection_id"], jpeg, jpeg if backgrounds else None)
        detections.append(row)
        return row

    for number in range(num_pairs):
        density, iou = int(rng.choice([1, 1, 1, 2, 3, 5])), float(rng.uniform(0.2, 1.0))
        camera = HOSTILE if number % 3 == 0 else f"cam{number % 3}"
        one, other = box(2 * number, camera), box(2 * number + 1, camera)
        for _ in range(density - 1):
            box(2 * number + 1, camera)
        box(2 * number + 1, camera, score=0.1)  # too low for mining: it does not crowd the frame
        key = (one["detection_id"], other["detection_id"])
        luck = rng.random()
        truth[key] = "not_an_animal" if luck > 0.95 else "different" if luck > 0.35 + iou * 0.6 / density else "same"
        pairs.append(
            {
                **{"anchor_id": key[0], "positive_id": key[1], "sequence_id": number // 5, "camera_id": camera},
                **{"anchor_pack": one.get("crop_pack"), "anchor_row": one.get("crop_row")},
                **{"positive_pack": other.get("crop_pack"), "positive_row": other.get("crop_row")},
                **{"tracklet_id": number, "iou": iou, "gap_s": 2.0, "min_score": 0.9, "margin": iou / 2},
            }
        )
    writer.close()
    found, mined = store.collection("detections", DETECTIONS), store.collection("pairs", PAIRS)
    found.begin({"facts": {}})
    found.write("detections", "all", pa.Table.from_pylist(detections, schema=schema.DETECTIONS))
    mined.begin({"detections": DETECTIONS, "mine": {"min_score": 0.25, "categories": ["animal"], "linker": "assigned"}})
    mined.write("pairs", "all", pa.Table.from_pylist(pairs, schema=schema.PAIRS))
    mined.write("static", "all", schema.STATIC.empty_table())
    found.done("all", {})
    mined.done("all", {})
    return store, truth


def write_verdicts(
    path: Path,
    store: Store,
    sheet: str,
    say: Callable[[tuple[int, int]], str | None],
    *,
    reviewer: str = "Ada",
    **changes: object,
) -> str:
    """A verdict file as the page saves it; ``say`` gives the verdict on a pair, None leaves it open."""
    record = read_record(store, sheet)
    rows = []
    for one in record.drawn:
        word = say((int(one.anchor_id), int(one.positive_id)))
        if word is not None:
            rows.append({"anchor_id": one.anchor_id, "positive_id": one.positive_id, "verdict": word, "seconds": 1.5})
    content = {
        **{"format": "wildray-audit-verdicts", "version": 1, "sheet": sheet, "pairs": record.pairs},
        **{"reviewer": reviewer, "num_pairs": len(record.drawn), "verdicts": rows},
        **changes,
    }
    path.write_text(json.dumps(content))
    return str(path)

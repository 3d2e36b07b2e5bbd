"""Truth on disk: boxes with identity, MOT files, the list of individuals, and what a detector would have said.

In: what was seen in every frame of every capture. Out: ``truth/``: ``boxes.parquet``, ``mot/``, ``individuals.csv`` and
``megadetector.json`` (batch output 1.6). The detector's boxes are the truth with jitter, misses and scores, and it
takes the distractors for animals, as detectors do; so mining can be measured without running one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wildray.config import SimulateConfig
from wildray.simulate.exposure import frame_shape
from wildray.simulate.randomness import stream
from wildray.simulate.rendering import Seen
from wildray.simulate.scenery import camera_name
from wildray.simulate.script import Capture, inhabitants
from wildray.simulate.species import SPECIES

BOXES = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),  # relative to media/
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("time_s", pa.float64(), nullable=False),
        pa.field("captured_at", pa.timestamp("us", tz="UTC"), nullable=False),  # of the file's start
        pa.field("identity", pa.string(), nullable=False),
        pa.field("mot_id", pa.int32(), nullable=False),  # 0: a distractor
        pa.field("species", pa.string(), nullable=False),
        pa.field("activity", pa.string(), nullable=False),  # walking | grazing | resting | distractor
        pa.field("flank", pa.string()),  # left | right; null for a distractor
        pa.field("x1_px", pa.float32(), nullable=False),
        pa.field("y1_px", pa.float32(), nullable=False),
        pa.field("x2_px", pa.float32(), nullable=False),
        pa.field("y2_px", pa.float32(), nullable=False),
        pa.field("visibility", pa.float32(), nullable=False),  # visible share, 0 to 1
        pa.field("infrared", pa.bool_(), nullable=False),
    ]
)
DETECTOR_STEP_S = 0.5
"""Time between the frames in ``megadetector.json``."""
_JITTER = 0.05
"""Standard deviation of a corner as a share of the box's side."""
_MISSED = 0.03
_MISSED_DISTRACTOR = 0.15
Recorded = tuple[Capture, list[Seen]]


def write_truth(folder: Path, config: SimulateConfig, recorded: Sequence[Recorded]) -> None:
    """Write everything but ``boxes.parquet``'s media into ``truth/``.

    Args:
        folder: ``OUT/truth``.
        config: What the world was made from.
        recorded: Every capture with what was seen in its frames, in order.
    """
    (folder / "mot").mkdir(parents=True, exist_ok=True)
    pq.write_table(boxes_table(config, recorded), folder / "boxes.parquet", compression="zstd")
    for capture, seen in recorded:
        if capture.is_video:
            path = folder / "mot" / Path(capture.name).with_suffix(".txt")
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(mot_lines(seen)))
    (folder / "megadetector.json").write_text(json.dumps(detector_results(config, recorded), indent=1) + "\n")
    _write_individuals(folder / "individuals.csv", config, recorded)


def boxes_table(config: SimulateConfig, recorded: Iterable[Recorded]) -> pa.Table:
    """Every box of every frame, in the schema ``BOXES``."""
    columns: dict[str, list[Any]] = {name: [] for name in BOXES.names}
    for capture, seen in recorded:
        for one in seen:
            row = (
                capture.name, camera_name(capture.camera), one.frame_index, one.frame_index / config.fps,
                capture.captured_at, one.identity, one.mot_id, one.species, one.activity, one.flank or None,
                *one.xyxy_px, one.visibility, capture.night,
            )  # fmt: skip
            for name, value in zip(BOXES.names, row, strict=True):
                columns[name].append(value)
    return pa.table(columns, schema=BOXES)


def mot_lines(seen: Iterable[Seen]) -> list[str]:
    """``frame,id,x,y,w,h,1,1,1`` for every animal; frames count from 1, distractors are left out."""
    lines = []
    for one in seen:
        if one.mot_id:
            x1, y1, x2, y2 = one.xyxy_px
            lines.append(f"{one.frame_index + 1},{one.mot_id},{x1:g},{y1:g},{x2 - x1:g},{y2 - y1:g},1,1,1\n")
    return lines


def detector_results(config: SimulateConfig, recorded: Iterable[Recorded]) -> dict[str, Any]:
    """MegaDetector batch output 1.6 of all captures; files are relative to ``media/``."""
    return {
        "info": {"format_version": "1.6", "detector": "simulated", "detector_metadata": {"jitter": _JITTER}},
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "images": [_detector_entry(config, capture, seen) for capture, seen in recorded],
    }


def _detector_entry(config: SimulateConfig, capture: Capture, seen: Iterable[Seen]) -> dict[str, Any]:
    rng = stream(config.seed, "detector", capture.name)
    step = max(1, round(config.fps * DETECTOR_STEP_S))
    detections = []
    for one in seen:
        if one.frame_index % step:
            continue
        found = _detect(rng, one, frame_shape(config))
        if found is not None:
            detections.append({**found, "frame_number": one.frame_index} if capture.is_video else found)
    entry: dict[str, Any] = {"file": capture.name}
    if capture.is_video:
        entry |= {"frame_rate": config.fps, "frames_processed": list(range(0, capture.num_frames, step))}
    return entry | {"detections": detections}


def _detect(rng: np.random.Generator, one: Seen, shape: tuple[int, int]) -> dict[str, Any] | None:
    """A box and score for what is seen, or None where it is missed; relative to the frame."""
    draws = rng.standard_normal(4)
    luck, score = rng.uniform(0, 1, 2)
    x1, y1, x2, y2 = one.xyxy_px
    side = np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    size = np.array([shape[1], shape[0], shape[1], shape[0]])
    box = np.clip((np.array(one.xyxy_px) + draws * _JITTER * side) / size, 0, 1)
    if one.mot_id:
        conf, missed = (
            0.35 + 0.6 * one.visibility**0.5 * (0.85 + 0.15 * score),
            luck < _MISSED + 0.5 * (one.visibility < 0.25),
        )
    else:
        conf, missed = 0.28 + 0.4 * score, luck < _MISSED_DISTRACTOR or one.visibility < 0.4
    if missed or (box[2:] - box[:2] <= 2 / size[:2]).any():
        return None
    x, y, w, h = (round(float(value), 4) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
    return {"category": "1", "conf": round(float(conf), 3), "bbox": [x, y, w, h]}


def _write_individuals(path: Path, config: SimulateConfig, recorded: Iterable[Recorded]) -> None:
    files: dict[str, set[str]] = {}
    for capture, seen in recorded:
        for one in seen:
            files.setdefault(one.identity, set()).add(capture.name)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("identity", "mot_id", "species", "pattern", "held_out", "num_files"))
        for animal in inhabitants(config):
            species = SPECIES[animal.species]
            count = len(files.get(animal.identity, ()))
            held_out = str(animal.held_out).lower()
            writer.writerow((animal.identity, animal.mot_id, species.name, species.pattern, held_out, count))

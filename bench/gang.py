"""Trainings in processes of their own, on pairs of noise, for what is measured about workers and not about learning.

In: a configuration and a count of workers. Out: what each worker says of itself. Plain processes with gloo: Ray would
add its own to the figures.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import resource
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from wildray.config import Config
from wildray.learning.job import Job, Place
from wildray.learning.loop import run_training
from wildray.packs import PackWriter, encode_jpeg
from wildray.schema import DETECTIONS, PAIRS
from wildray.store import Store

DIGEST = "a" * 16
SAMPLE_S = 0.02


class StopError(Exception):
    """Ends a training after an epoch, as a kill would."""


def noise_store(root: Path, *, num_pairs: int, size_px: int) -> Store:
    """A store with pairs of smooth noise, which decode as photographs do."""
    store = Store.open(root, create=True)
    rng = np.random.default_rng(0)
    writer = PackWriter(store, ("crops", DIGEST), "noise")
    detections, pairs = [], []
    for pair in range(num_pairs):
        places = []
        for side in range(2):
            coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
            image = np.kron(coarse, np.ones((size_px // 8, size_px // 8, 1), np.uint8)).astype(np.uint8)
            places.append(writer.add(2 * pair + side, encode_jpeg(image)))
            detections.append(_detection(2 * pair + side, pair, places[-1]))
        pairs.append(_pair(pair, places))
    writer.close()
    for stage, rows, schema in (("detections", detections, DETECTIONS), ("pairs", pairs, PAIRS)):
        collection = store.collection(stage, DIGEST)
        collection.begin({"detections": DIGEST, "detect": {"crop_padding": 0.1}})
        collection.write(stage, "all", pa.Table.from_pylist(rows, schema=schema))
        collection.done("all", {"rows": len(rows)})
    return store


def run_gang(config: Config, store: Store, *, run: str, threads: int, stop_after: int = 0) -> list[dict[str, Any]]:
    """Train in ``scale.workers`` processes.

    Args:
        config: Of the training.
        store: With pairs.
        run: Name of the run; one that was stopped goes on.
        threads: Of each worker.
        stop_after: Epochs after which training is stopped; 0: it ends by itself.

    Returns:
        Of each worker: ``images_per_s`` of each epoch, ``peak_rss_mb``, ``peak_anonymous_mb`` and, before the model
        was made, ``start_anonymous_mb``.
    """
    with tempfile.TemporaryDirectory() as folder:
        workers = config.scale.workers
        spawn(_member, args=(config, store, run, threads, stop_after, folder), nprocs=workers)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(workers)]


def _member(rank: int, config: Config, store: Store, run: str, threads: int, stop_after: int, folder: str) -> None:
    workers = config.scale.workers
    os.environ["LOCAL_RANK"] = str(rank)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    speeds: list[float] = []

    def on_epoch(metrics: dict[str, float]) -> None:
        speeds.append(metrics["images_per_s"])
        if stop_after and metrics["epoch"] >= stop_after:
            raise StopError

    said: dict[str, Any] = {"start_anonymous_mb": anonymous_mb()}
    stop, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=_watch, args=(stop, peak), daemon=True)
    watcher.start()
    with contextlib.suppress(StopError):
        run_training(
            Job(config, store, run, DIGEST),
            Place(rank=rank, num_workers=workers, threads=threads),
            on_epoch=on_epoch,
        )
    stop.set()
    watcher.join()
    said |= {
        "images_per_s": speeds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_anonymous_mb": peak[0],
    }
    torch.save(said, Path(folder) / f"{rank}.pt")
    if workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def anonymous_mb() -> float:
    """Memory of this process that no file backs, in MB (2^20 bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def _watch(stop: threading.Event, peak: list[float]) -> None:
    while not stop.wait(SAMPLE_S):
        peak[0] = max(peak[0], anonymous_mb())


def _detection(detection_id: int, pair: int, place: tuple[str, int]) -> dict[str, object]:
    return {
        "detection_id": detection_id,
        "media_id": f"{pair:032x}",
        "camera_id": f"camera{pair % 4}",
        "frame_index": detection_id,
        "time_s": float(detection_id),
        "captured_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "width_px": 640,
        "height_px": 480,
        "x1_px": 10.0,
        "y1_px": 10.0,
        "x2_px": 200.0,
        "y2_px": 200.0,
        "score": 0.9,
        "category": "animal",
        "motion": 0.5,
        "crop_pack": place[0],
        "crop_row": place[1],
    }


def _pair(pair: int, places: list[tuple[str, int]]) -> dict[str, object]:
    return {
        "anchor_id": 2 * pair,
        "positive_id": 2 * pair + 1,
        "anchor_pack": places[0][0],
        "anchor_row": places[0][1],
        "positive_pack": places[1][0],
        "positive_row": places[1][1],
        "sequence_id": pair,
        "camera_id": f"camera{pair % 4}",
        "tracklet_id": pair,
        "iou": 0.5,
        "gap_s": 1.0,
        "gap_frames": 1,
        "min_score": 0.9,
        "margin": 0.5,
    }

"""What a frame, a box, a crop and a file cost: the measured rates that ``bench.scale_model`` reckons with.

    python -m bench.scale_rates [--frame-size 1280x720] [--videos 6]

In: nothing. Out: a JSON object of seconds of one core and bytes on disk, measured on H.264 clips of the simulator
without Ray, one thread for each network. Seconds are of the processor, the decoding child's included, so that what else
the machine does counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.record import commit, machine
from wildray.collection import Collection
from wildray.config import Config
from wildray.learning.first_backbone import load_backbone
from wildray.mining.chunks import plan_chunks
from wildray.mining.detectors import make_detector
from wildray.mining.media import find_media, identify, probe
from wildray.mining.sandbox import FrameSource
from wildray.mining.windows import ChunkWorker
from wildray.retrieval.forward import unit_vectors
from wildray.schema import DETECTIONS, FRAMES, MEDIA
from wildray.simulate.stage import simulate
from wildray.store import Store

NUM_EMBEDDED = 256


@contextmanager
def cpu_s(into: dict[str, float], name: str) -> Iterator[None]:
    """Add up user and system seconds of this process and of children that end in the block."""

    def now() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime

    before = now()
    yield
    into[name] = into.get(name, 0.0) + now() - before


def detected(config: Config, store: Store, rows: pa.Table, spent: dict[str, float]) -> Collection:
    """Look at media in this process; seconds go to ``spent`` under the detector's name."""
    name = config.detect.detector
    collection = store.collection("detections", name)
    collection.begin({})
    collection.plan_rows(plan_chunks(rows, config.detect, first=0), covers="media_id")
    detector = make_detector(config.detect)
    with FrameSource() as warm:  # the first frame pays for the network's set-up
        item = rows.slice(0, 1).to_pylist()[0]
        detector.detect([next(iter(warm.decode(item["uri"], item["kind"]))).image]) if name != "motion" else None
    with cpu_s(spent, name), FrameSource() as source:
        worker = ChunkWorker(config.detect, collection, source, detector, None)
        for chunk, part in collection.parts().items():
            worker.run(chunk, part)
    return collection


def bytes_per_row(collection: Collection, stage: str, schema: pa.Schema) -> tuple[float, int]:
    """Bytes of a row in a chunk's Parquet file, and of a file without rows."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty, compression="zstd")
    paths = [collection.store.path(stage, collection.digest, f"{chunk}.parquet") for chunk in collection.finished()]
    num_rows = max(1, sum(pq.read_metadata(path).num_rows for path in paths))
    base = empty.getvalue().size
    return sum(path.stat().st_size - base for path in paths) / num_rows, base


def measure(*, frame_size: str, num_videos: int) -> dict[str, Any]:
    """All rates."""
    torch.set_num_threads(1)
    spent: dict[str, float] = {}
    common = {"simulate.num_videos": num_videos, "simulate.frame_size": frame_size, "simulate.fps": 24.0}
    common |= {"simulate.bursts": 0.0, "simulate.timelapses": 0.0, "simulate.labelled_individuals": 0}
    common |= {"detect.chunk": "1h"}
    with tempfile.TemporaryDirectory(prefix="rates-") as name:
        config = Config.load(overrides=common)
        simulate(config, Path(name) / "world", workers=2)
        items = [item for item in find_media([str(Path(name) / "world" / "media")]) if item.kind == "video"]
        with cpu_s(spent, "identify"):
            ids = identify([item.uri for item in items])
        with cpu_s(spent, "probe"), FrameSource() as source:
            rows = [probe(item, source=source) | {"media_id": i.decode()} for item, i in zip(items, ids, strict=True)]
        media = pa.Table.from_pylist(rows, schema=MEDIA)
        store = Store.open(Path(name) / "store", create=True)
        found: dict[str, Any] = {"frame_size": frame_size, "machine": machine(), "commit": commit()}
        for detector in ("megadetector_lite", "motion"):
            chosen = Config.load(overrides={**common, "detect.detector": detector})
            collection = detected(chosen, store, media, spent)
            records = collection.finished().values()
            frames, boxes = (sum(one[n] for one in records) for n in ("num_frames", "num_detections"))
            found[f"{detector}_cpu_s_per_frame"] = spent[detector] / frames
            if detector == "megadetector_lite":
                found |= _sizes(collection, frames, boxes)
        found["video_bytes_per_s"] = sum(os.path.getsize(item.uri) for item in items) / sum(
            media["duration_s"].to_pylist()
        )
        found |= {f"{stage}_cpu_s_per_file": spent[stage] / len(items) for stage in ("identify", "probe")}
    return found | {"embed_cpu_s_per_crop": _embedding()}


def _sizes(collection: Collection, frames: int, boxes: int) -> dict[str, float]:
    found: dict[str, float] = {"frames": frames, "boxes": boxes, "boxes_per_frame": boxes / frames}
    for stage, schema in (("media", MEDIA), ("frames", FRAMES), ("detections", DETECTIONS)):
        found[f"{stage}_bytes_per_row"], found[f"{stage}_bytes_per_file"] = bytes_per_row(collection, stage, schema)
    packs = list(collection.store.path("crops", collection.digest).glob("*.arrow"))
    return found | {"crop_bytes": sum(path.stat().st_size for path in packs) / max(1, boxes)}


def _embedding() -> float:
    """Seconds of one core to embed a crop with the default small network at 96 px."""
    backbone = load_backbone(Config.load(overrides={"backbone.name": "resnet18", "backbone.image_size": 96}).backbone)
    images = np.random.default_rng(0).integers(0, 255, (NUM_EMBEDDED, 3, 96, 96), np.uint8)
    spent: dict[str, float] = {}
    unit_vectors(backbone, images[:64], batch_size=64)
    with cpu_s(spent, "embed"):
        unit_vectors(backbone, images, batch_size=64)
    return spent["embed"] / NUM_EMBEDDED


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frame-size", default="1280x720")
    parser.add_argument("--videos", type=int, default=6)
    arguments = parser.parse_args()
    print(json.dumps(measure(frame_size=arguments.frame_size, num_videos=arguments.videos), indent=1))


if __name__ == "__main__":
    main()

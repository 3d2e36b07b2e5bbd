"""How long ``mine`` takes over a million boxes in ten thousand sequences, and how much memory.

In: a count of sequences and workers. Out: a JSON object with wall-clock and CPU seconds, the peak of memory above an
idle Ray (driver, workers and object store together, shared pages counted once), and the counts of the result. The
table is synthetic: on each camera a stump that is always found, animals that walk and rest, and now and then a herd.
There is no peer to run beside it: nothing else pairs boxes of the same animal over whole collections.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import ray

from wildray.cli.cluster import connect
from wildray.collection import Collection
from wildray.config import Config
from wildray.mining.colour import NUM_VALUES
from wildray.mining.mine import mine
from wildray.schema import DETECTIONS, FRAMES, MEDIA
from wildray.store import Store

SEQUENCES_PER_CAMERA = 50
SEQUENCES_PER_CHUNK = 30
FRAMES_PER_SEQUENCE = 20
BOXES_PER_FRAME = 5
STEP_S = 0.5
MAY_2024_S = 1_714_521_600


def make_store(folder: Path, num_sequences: int) -> Store:
    """Write the tables of a detect run: ``num_sequences`` clips of 20 frames with 5 boxes each."""
    store = Store.open(folder, create=True)
    collection = store.collection("detections", "synthetic")
    collection.begin({})
    for chunk, first in enumerate(range(0, num_sequences, SEQUENCES_PER_CHUNK)):
        clips = np.arange(first, min(first + SEQUENCES_PER_CHUNK, num_sequences))
        _write_chunk(collection, f"{chunk:06d}-00000000", clips)
    return store


def _write_chunk(collection: Collection, chunk: str, clips: np.ndarray) -> None:
    names = np.array([f"{clip:032x}" for clip in clips])
    cameras = np.array([f"cam{clip // SEQUENCES_PER_CAMERA:05d}" for clip in clips])
    begin = pa.array((MAY_2024_S + clips % SEQUENCES_PER_CAMERA * 7200) * 1_000_000, pa.timestamp("us", tz="UTC"))
    frame = np.arange(FRAMES_PER_SEQUENCE)
    of_frame, index = np.repeat(np.arange(len(clips)), len(frame)), np.tile(frame, len(clips))
    of_box = np.repeat(np.arange(len(of_frame)), BOXES_PER_FRAME)
    boxes = _boxes(clips)
    media = {
        "media_id": names,
        "uri": names,
        "kind": np.full(len(clips), "video"),
        "camera_id": cameras,
        "captured_at": begin,
        "clock_flag": np.full(len(clips), "ok"),
        "duration_s": np.full(len(clips), FRAMES_PER_SEQUENCE * STEP_S),
        "num_duplicates": np.zeros(len(clips)),
        "status": np.full(len(clips), "done"),
    }
    frames = {
        "media_id": names[of_frame],
        "frame_index": index * 15,
        "time_s": index * STEP_S,
        "sampling_pass": np.zeros(len(index)),
        "num_boxes": np.full(len(index), BOXES_PER_FRAME),
        "infrared": np.zeros(len(index), dtype=bool),
    }
    rng = np.random.default_rng(int(clips[0]))
    detections = {
        "detection_id": rng.integers(-(2**63), 2**63 - 1, len(of_box)),
        "media_id": names[of_frame][of_box],
        "camera_id": cameras[of_frame][of_box],
        "frame_index": index[of_box] * 15,
        "time_s": index[of_box] * STEP_S,
        **{name: boxes[:, column] for column, name in enumerate(("x1_px", "y1_px", "x2_px", "y2_px"))},
        "score": rng.uniform(0.1, 1, len(of_box)),
        "category": np.full(len(of_box), "animal"),
        "motion": np.where(np.arange(len(of_box)) % BOXES_PER_FRAME == 0, 0.02, rng.uniform(0.1, 0.6, len(of_box))),
        "colour": _colours(clips, rng),
        "crop_pack": np.full(len(of_box), f"{chunk}-000"),
        "crop_row": np.arange(len(of_box)),
    }
    for stage, schema, columns in (
        ("media", MEDIA, media),
        ("frames", FRAMES, frames),
        ("detections", DETECTIONS, detections),
    ):
        nulls = pa.nulls(len(next(iter(columns.values()))))
        arrays = [
            columns[f.name]
            if isinstance(columns.get(f.name), pa.Array)
            else pa.array(columns[f.name]).cast(f.type, safe=False)
            if f.name in columns
            else nulls.cast(f.type)
            for f in schema
        ]
        collection.write(stage, chunk, pa.table(arrays, schema=schema))
    collection.done(chunk, {"media": names.tolist(), "num_frames": len(index), "num_detections": len(of_box)})


def _boxes(clips: np.ndarray) -> np.ndarray:
    """(C * F * B, 4) corners: the first box of each frame is the camera's stump, every tenth clip is a herd."""
    rng = np.random.default_rng((1, int(clips[0])))
    shape = (len(clips), 1, BOXES_PER_FRAME)
    step = np.arange(FRAMES_PER_SEQUENCE)[None, :, None]
    spread = np.where(clips % 10 == 0, 150.0, 1500.0)[:, None, None]  # a herd stands close together
    x = rng.uniform(0, 1, shape) * spread + rng.normal(0, 12, shape) * step
    y = rng.uniform(0, 1, shape) * spread * 0.5 + rng.normal(0, 3, shape) * step
    x[:, :, 0], y[:, :, 0] = (clips // SEQUENCES_PER_CAMERA * 37 % 1500)[:, None], 800.0
    corners = np.stack([x, y, x + 160, y + 120], axis=-1) + rng.normal(0, 4, (*x.shape, 4))
    return corners.reshape(-1, 4)


def _colours(clips: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """(C * F * B) lists of 54 bytes: each animal of a clip has its own, with noise."""
    own = rng.integers(40, 215, (len(clips), 1, BOXES_PER_FRAME, NUM_VALUES))
    noisy = own + rng.integers(-9, 10, (len(clips), FRAMES_PER_SEQUENCE, BOXES_PER_FRAME, NUM_VALUES))
    values = noisy.astype(np.uint8).reshape(-1)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, NUM_VALUES, dtype=np.int32)), values)


class Peak:
    """Samples a figure of memory, as a rule that of this process and all it started, until it is left.

    Args:
        read: Gives the figure in MB.
        every_s: Seconds between two samples.

    Attributes:
        idle_mb: The first of them.
        peak_mb: The largest.
    """

    def __init__(self, read: Callable[[], float], *, every_s: float) -> None:
        self._read, self._every_s = read, every_s

    def __enter__(self) -> Peak:
        """Begin to sample."""
        self.idle_mb = self.peak_mb = self._read()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        """End sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_mb = max(self.peak_mb, self._read())


def family() -> list[psutil.Process]:
    """This process and everything it started, Ray's processes among them."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def memory_mb() -> float:
    """Proportional set size of the family in MB."""
    total = 0
    for process in family():
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def cpu_s() -> float:
    """User and system time of the family so far, in seconds; what ended meanwhile is missing."""
    total = 0.0
    for process in family():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def main() -> None:
    """Make the table, mine it, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--linker", default="chained")
    parser.add_argument("--folder", type=Path, help="where the store is kept; default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mine-") as temporary:
        store = make_store(options.folder or Path(temporary), options.sequences)
        config = Config.load(None, {"mine.linker": options.linker, "scale.workers": options.workers})
        connect(None)
        time.sleep(2)
        before_s = cpu_s()
        with Peak(memory_mb, every_s=0.5) as memory:
            result = mine(config, store)
        report = {
            "seconds": round(result.seconds, 2),
            "cpu_s": round(cpu_s() - before_s, 2),
            "idle_mb": round(memory.idle_mb),
            "above_idle_mb": round(memory.peak_mb - memory.idle_mb),
            "num_detections": result.num_detections,
            "num_sequences": result.num_sequences,
            "num_pairs": result.num_pairs,
            "num_static": result.num_static,
            "load": psutil.getloadavg()[0],
        }
        print(json.dumps(report))
        ray.shutdown()


if __name__ == "__main__":
    main()

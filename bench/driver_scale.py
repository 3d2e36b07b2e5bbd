"""What a million media cost the driver of ``detect``: time per row, memory, files, and a second call.

    python -m bench.driver_scale [--rows 10000,100000,1000000] [--chunk 120s] [--out docs/driver.md]

In: counts of media. Out: a table. The media are rows of a Parquet manifest whose files are not there: listing,
identifying, planning, Ray Data's tasks, chunk records and counting run as they do with files, and nothing is decoded.
Each becomes a row that says so, the most that judging can have to do. Each count runs in a process and a Ray of its
own; a call beforehand starts the workers, and what a call on one medium takes once they run is the start-up that is
left out of the time per row. A fake decoder would add the time of the rows it makes, which is the workers', no
driver's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.mine_scale import Peak, memory_mb
from bench.pages import table
from bench.record import commit, machine
from wildray.cli.cluster import connect
from wildray.config import Config
from wildray.store import Store

MEDIA_PER_CAMERA = 2_000
NEW_MEDIA = 1_000
"""Media that a third call adds to the known ones."""
WARM_MEDIA = 5_000
"""Media of the first call of all, which starts as many of Ray's workers as there will be."""
STEP_S = 600
MAY_2024_S = 1_714_521_600
MAX_MB = 2_000
MAX_RATIO = 1.2
"""What the page holds the driver to: memory above idle, and time per row at the most against the least rows."""


@dataclass(frozen=True)
class Call:
    """One call of detect.

    Attributes:
        seconds: Wall-clock time.
        driver_cpu_s: User and system time of the driver's process, all its threads.
        driver_mb: Peak of the driver's resident memory above what it held before the call.
        all_mb: The same of driver, Ray's processes and object store together, shared pages counted once.
        num_new: Media it looked at for the first time.
    """

    seconds: float
    driver_cpu_s: float
    driver_mb: float
    all_mb: float
    num_new: int


def own_mb() -> float:
    """Resident memory of this process in MB."""
    return float(psutil.Process().memory_info().rss) / 2**20


def write_manifest(path: Path, num_rows: int, *, first: int = 0) -> Path:
    """A Parquet manifest of stills that are not there: 2,000 of each camera, ten minutes apart, shuffled."""
    number = np.arange(first, first + num_rows)
    camera = number // MEDIA_PER_CAMERA
    order = np.random.default_rng(first).permutation(num_rows)
    columns = {
        "uri": [f"cam{c:05d}/IMG_{n:07d}.JPG" for c, n in zip(camera[order], number[order], strict=True)],
        "camera_id": [f"cam{c:05d}" for c in camera[order]],
        "captured_at": pa.array(
            (MAY_2024_S + number[order] % MEDIA_PER_CAMERA * STEP_S) * 1_000_000, pa.timestamp("us", tz="UTC")
        ),
    }
    pq.write_table(pa.table(columns), path)
    return path


def call(config: Config, store: Store, media: Sequence[Path]) -> Call:
    """Run detect once, and measure it."""
    from wildray.mining.detect import detect

    before_s, begun = time.process_time(), time.monotonic()
    with Peak(own_mb, every_s=0.05) as own, Peak(memory_mb, every_s=2.0) as every:
        result = detect(config, store, [str(path) for path in media])
    seconds, cpu_s = time.monotonic() - begun, time.process_time() - before_s
    assert result.num_media == result.num_failed, "none of the media is there"
    return Call(
        seconds=round(seconds, 2),
        driver_cpu_s=round(cpu_s, 2),
        driver_mb=round(own.peak_mb - own.idle_mb, 1),
        all_mb=round(every.peak_mb - every.idle_mb, 1),
        num_new=result.num_new,
    )


def measure(num_rows: int, *, chunk: str, workers: int) -> dict[str, Any]:
    """All calls of one count, in a Ray of their own; the store is thrown away."""
    import ray

    config = Config.load(
        overrides={
            "detect.detector": "motion",
            "detect.chunk": chunk,
            "detect.max_failed": 1.0,
            "scale.workers": workers,
        }
    )
    with tempfile.TemporaryDirectory(prefix="driver-") as name:
        folder = Path(name)
        connect(None)
        warm = Store.open(folder / "warm", create=True)
        call(config, warm, [write_manifest(folder / "warm.parquet", WARM_MEDIA)])
        more = [write_manifest(folder / f"warm{i}.parquet", 1, first=WARM_MEDIA + i) for i in range(3)]
        start_up = [call(config, warm, [one]) for one in more]
        store = Store.open(folder / "store", create=True)
        manifest = write_manifest(folder / "media.parquet", num_rows)
        calls = {"first": call(config, store, [manifest])}
        files = [path.stat().st_size for path in Path(store.root).rglob("*") if path.is_file()]
        chunks = sum(1 for path in Path(store.root).rglob("*.parquet") if path.parent.parent.name == "media")
        calls["again"] = call(config, store, [manifest])
        more = write_manifest(folder / "more.parquet", NEW_MEDIA, first=num_rows)
        calls["more"] = call(config, store, [manifest, more])
        ray.shutdown()
    return {
        "rows": num_rows,
        "chunks": chunks,
        "start_up_s": min(one.seconds for one in start_up),
        "calls": {name: asdict(one) for name, one in calls.items()},
        "files": len(files),
        "bytes": sum(files),
        "largest_bytes": max(files),
        "load": round(os.getloadavg()[0], 1),
    }


def measure_apart(num_rows: int, *, chunk: str, workers: int) -> dict[str, Any]:
    """``measure`` in a process of its own."""
    asked = [sys.executable, "-m", "bench.driver_scale", "--one", str(num_rows)]
    asked += ["--chunk", chunk, "--workers", str(workers)]
    said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout  # nosec B603 # this module
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def us_per_row(found: dict[str, Any]) -> float:
    """Microseconds of wall-clock time per row of the first call, without start-up."""
    return float(found["calls"]["first"]["seconds"] - found["start_up_s"]) / found["rows"] * 1e6


def _row(found: dict[str, Any], least: dict[str, Any]) -> list[str]:
    first, again, more = (found["calls"][name] for name in ("first", "again", "more"))
    return [
        f"{found['rows']:,}",
        f"{found['chunks']:,}",
        f"{first['seconds']:.1f}",
        f"{first['driver_cpu_s']:.1f}",
        f"{us_per_row(found):.0f}",
        f"{us_per_row(found) / us_per_row(least):.2f}",
        f"{first['driver_cpu_s'] / found['rows'] * 1e6:.0f}",
        f"{max(one['driver_mb'] for one in (first, again, more)):.0f}",
        f"{first['all_mb']:.0f}",
        f"{found['files']:,}",
        f"{found['bytes'] / 1e6:.1f}",
        f"{found['largest_bytes'] / 1e6:.1f}",
        f"{again['seconds']:.1f}",
        f"{more['seconds']:.1f}",
        f"{found['load']:.1f}",
    ]


def page(results: Sequence[dict[str, Any]], *, chunk: str, workers: int) -> str:
    """The results as Markdown."""
    least = min(results, key=lambda found: found["rows"])
    header = ["rows", "chunks", "wall s", "driver CPU s", "us per row", "ratio", "driver CPU us per row"]
    header += [
        "driver MB",
        "all MB",
        "files",
        "MB",
        "largest file MB",
        "nothing new, s",
        f"{NEW_MEDIA:,} new, s",
        "load",
    ]
    rows = [_row(found, least) for found in results]
    further = [
        f"{(many['calls']['first'][name] - few['calls']['first'][name]) / (many['rows'] - few['rows']) * 1e6:.0f}"
        for few, many in itertools.pairwise(sorted(results, key=lambda found: int(found["rows"])))
        for name in ("seconds", "driver_cpu_s")
    ]
    start_up = ", ".join(f"{found['start_up_s']:.1f}" for found in results)
    return "\n".join(
        [
            "# The driver of detect over a million media",
            "",
            f"Media of a manifest whose files are not there, chunks of {chunk} of footage (240 stills in 120 s), "
            f"{workers} workers; `python -m bench.driver_scale` at commit {commit()} on {machine()}, "
            f"{os.cpu_count()} cores, on which other work ran at times (load: of the last minute, at the end).",
            "",
            table(header, rows),
            "",
            "Time per row leaves out what a call on one medium takes once Ray and its workers run "
            f"({start_up} s). The ratio is against the fewest rows: "
            f"{MAX_RATIO} at most is asked for, and {MAX_MB:,} MB of the driver. Driver MB: peak of its resident "
            "memory above that before the call, the most of the three calls. All MB: of the first call, driver, Ray's "
            "processes and object store together. Files and MB: of the store after the first call. Then the same "
            f"manifest again, and with a second one of {NEW_MEDIA:,} further media.",
            "",
            "The fixed costs of Ray's tasks make the fewest rows dear. What every further row takes between one count "
            f"and the next, in us: wall {', '.join(further[::2])}; driver CPU {', '.join(further[1::2])}.",
            "",
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="10000,100000,1000000", help="counts of media, with commas")
    parser.add_argument("--chunk", default="120s", help="detect.chunk")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int, help="one count in this process; prints JSON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    asked = {"chunk": arguments.chunk, "workers": arguments.workers}
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, **asked)))
        return
    results = []
    for count in arguments.rows.split(","):
        results.append(measure_apart(int(count), **asked))
        print(json.dumps(results[-1]), flush=True)
    text = page(results, **asked)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

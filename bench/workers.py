"""Two workers against one process with the same cores, at equal global batch: images per second, in turn.

    python -m bench.workers [--rounds 5] [--out docs/workers.md]

In: nothing. Out: the ratio of every round, its median and range. A round runs both, one after the other, so that what
else the machine does hits both; the first epoch of each warms up and is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch

from bench.gang import noise_store, run_gang
from bench.record import commit
from wildray.config import Config

STEPS_PER_EPOCH, EPOCHS = 8, 3


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the one process")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), num_pairs=arguments.batch_size * STEPS_PER_EPOCH, size_px=120)
        for number in range(arguments.rounds):
            speeds = []
            for workers in (1, arguments.workers):
                config = Config.load(
                    overrides={
                        "backbone.name": arguments.backbone,
                        "backbone.image_size": 96,
                        "train.method": arguments.method,
                        "train.batch_size": arguments.batch_size,
                        "train.epochs": EPOCHS,
                        "train.precision": arguments.precision,
                        "scale.workers": workers,
                    }
                )
                said = run_gang(config, store, run=f"r{number}-{workers}", threads=max(1, arguments.threads // workers))
                speeds.append(statistics.median(said[0]["images_per_s"][1:]))
            ratios.append(speeds[1] / speeds[0])
            rows.append(f"| {number + 1} | {speeds[0]:.1f} | {speeds[1]:.1f} | {ratios[-1]:.3f} |")
            print(rows[-1], flush=True)
    lines = [
        f"# {arguments.workers} workers against one process",
        "",
        f"{arguments.backbone} at 96 px, {arguments.method}, global batch {arguments.batch_size}, precision "
        f"{arguments.precision}, {arguments.threads} CPU cores, DistributedDataParallel over gloo, torch "
        f"{torch.__version__}, commit {commit()}; `python -m bench.workers`. Crops a second.",
        "",
        f"Ratio: median **{statistics.median(ratios):.3f}**, {min(ratios):.3f} to {max(ratios):.3f}.",
        "",
        f"| round | one process, {arguments.threads} threads | {arguments.workers} workers | ratio |",
        "| --- | --- | --- | --- |",
        *rows,
    ]
    print(lines[4])
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

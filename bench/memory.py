"""Peak memory of a worker by ``scale.strategy``: trains a little, is stopped, goes on, and its backbone is loaded.

    python -m bench.memory [--strategies ddp,zero1,zero2,zero3] [--backbone NAME] [--out docs/memory.md]

In: nothing. Out: a Markdown table. Each strategy runs in processes of its own; the backbone that it wrote is opened
in a process that never imports DeepSpeed.
"""

from __future__ import annotations

import argparse
import os
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import tempfile
from pathlib import Path

import torch

from bench.gang import noise_store, run_gang
from bench.record import commit
from wildray.config import Config

STEPS_PER_EPOCH, EPOCHS = 2, 2
OPEN = """
import sys, torch
from pathlib import Path
from wildray.learning.first_backbone import open_backbone
backbone = open_backbone(Path(sys.argv[1])).eval()
with torch.no_grad():
    vectors = backbone(torch.rand(2, 3, backbone.image_size, backbone.image_size))
assert vectors.isfinite().all() and "deepspeed" not in sys.modules
print(vectors.shape[1])
"""


def measure(strategy: str, arguments: argparse.Namespace, root: Path) -> str:
    """One line of the table."""
    config = Config.load(
        overrides={
            "backbone.name": arguments.backbone,
            "backbone.image_size": 96,
            "train.method": arguments.method,
            "train.batch_size": arguments.batch_size,
            "train.epochs": EPOCHS,
            "train.precision": "fp32",
            "scale.workers": arguments.workers,
            "scale.strategy": strategy,
        }
    )
    store = noise_store(root, num_pairs=arguments.batch_size * STEPS_PER_EPOCH, size_px=120)
    begun = run_gang(config, store, run=strategy, threads=1, stop_after=1)
    resumed = run_gang(config, store, run=strategy, threads=1)
    assert all(len(worker["images_per_s"]) == EPOCHS - 1 for worker in resumed), "it did not go on where it stopped"
    weights = store.path("models", strategy, "backbone.safetensors")
    opened = [sys.executable, "-c", OPEN, str(weights)]
    dim = subprocess.run(opened, check=True, capture_output=True, text=True).stdout  # nosec B603 # code of this module
    disk_mb = sum(path.stat().st_size for path in store.path("models", strategy, "checkpoints").rglob("*.pt")) / 2**20
    own = [worker["peak_anonymous_mb"] - worker["start_anonymous_mb"] for worker in begun]
    cells = [
        strategy,
        _range([worker["peak_rss_mb"] for worker in begun]),
        _range([worker["peak_anonymous_mb"] for worker in begun]),
        _range(own),
        _range([worker["peak_anonymous_mb"] for worker in resumed]),
        f"{disk_mb / 2:.0f}",
        f"yes, {dim.strip()} dimensions",
    ]
    return f"| {' | '.join(cells)} |"


def _range(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if max(values) - min(values) >= 1 else f"{max(values):.0f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--strategies", default="ddp,zero1,zero2,zero3")
    parser.add_argument("--backbone", default="vit_base_patch16_224")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    # glibc would keep what is freed below 32 MB, and the figures would be those of its heap, not of the model
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1048576"
    lines = [
        "# Peak memory of a worker",
        "",
        f"{arguments.backbone} at 96 px, {arguments.method}, AdamW, float32, batch {arguments.batch_size} over "
        f"{arguments.workers} workers of one CPU core each (gloo), torch {torch.__version__}, commit {commit()}; "
        f"`python -m bench.memory`. MB are 2^20 bytes; two figures are the least and the most of the workers.",
        "",
        "Resident memory counts mapped files too, such as torch's libraries; anonymous memory (RssAnon, sampled every "
        "20 ms) is the process's own. The model's share is its peak less what the process held before there was one; "
        "under ZeRO it holds DeepSpeed's own modules too. glibc was told to give back what is freed "
        "(`MALLOC_MMAP_THRESHOLD_=1048576`), as GPU allocators reuse it.",
        "",
        "| strategy | peak resident | peak anonymous | of it the model's | peak anonymous, going on from a checkpoint "
        "| checkpoint on disk, all workers | backbone opens without DeepSpeed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for strategy in arguments.strategies.split(","):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(strategy, arguments, Path(folder)))
        print(lines[-1], flush=True)
        if arguments.out is not None:
            arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

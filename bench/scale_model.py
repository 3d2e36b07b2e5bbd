"""Scale on paper: nodes, hours, money, bytes and objects for so many videos, from measured rates.

    python -m bench.scale_model [--out docs/scale.md] [--set cpu_node_usd_per_h=0.5 --set video_s=15 ...]

In: rates that were measured, each with where, and assumptions that anybody may set otherwise. Out: tables. A model, no
measurement: it says what would be the first thing in the way, and a run of that size says whether it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from bench.pages import table
from bench.scale_measured import RATES, Rate
from bench.scale_words import BOTTLENECKS, END, INTRODUCTION
from wildray.mining.chunks import MAX_CHUNKS, PART_CHUNKS, PART_ROWS
from wildray.mining.mine import SHARD_ROWS
from wildray.packs import PACK_BYTES

SIZES = (1_000, 100_000, 10_000_000)
NODES = {1_000: 1, 100_000: 8, 10_000_000: 128}
"""CPU nodes for each size."""
HASHED_BYTES = 2 << 20
"""First and last MiB of a file, which its id is made of (``wildray.mining.media``)."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed, none of it measured; ``--set NAME=VALUE`` sets it otherwise."""

    video_s: float = 30.0
    """Length of a video."""
    interval_s: float = 0.5
    """detect.base_interval."""
    boxes_per_frame: float = 0.65
    """Boxes in a frame that is looked at (the simulator's clips have so many; most real ones have fewer)."""
    video_bytes_per_s: float = 1e6
    """8 Mbit/s, as trail cameras write at 1080p."""
    chunk_s: float = 120.0
    """detect.chunk."""
    cores_per_node: float = 16.0
    """Cores of a CPU node."""
    busy: float = 0.85
    """Share of the cores' time that is work."""
    node_bytes_per_s: float = 600e6
    """What a node reads from object storage, in bytes a second (5 Gbit/s)."""
    cpu_node_usd_per_h: float = 0.70
    """Price of a CPU node of 16 cores."""
    gpu_usd_per_h: float = 3.00
    """Price of a GPU with its share of a node."""
    storage_usd_per_gb_month: float = 0.023
    """Price of object storage."""
    put_usd_per_million: float = 5.0
    """Price of a million objects written."""
    get_usd_per_million: float = 0.4
    """Price of a million objects read."""
    epochs: float = 10.0
    """Epochs of pretraining, two views of a pair."""
    max_train_images: float = 200e6
    """Images after which training ends, however many pairs there are."""
    gpus: float = 8.0
    """GPUs that train together, where more than an hour of one is needed."""
    embedding_bytes: float = 2048.0
    """512 dimensions of four bytes."""


@dataclass(frozen=True)
class Reckoned:
    """What so many videos come to; hours are wall-clock on the nodes of the size."""

    videos: int
    nodes: int
    frames: float
    boxes: float
    pairs: float
    detect_core_h: float
    motion_core_h: float
    mine_core_h: float
    embed_core_h: float
    train_gpu_h: float
    detect_h: float
    read_h: float
    driver_h: float
    driver_gb: float
    mine_h: float
    embed_h: float
    train_h: float
    compute_usd: float
    media_gb: float
    hashed_gb: float
    stored_gb: float
    vectors_gb: float
    chunk_s: float
    chunk_core_min: float
    chunks: float
    parts: float
    objects: float
    request_usd: float
    storage_usd_month: float


def reckon(videos: int, nodes: int, assumed: Assumed, rates: Mapping[str, Rate] = RATES) -> Reckoned:
    """The model: rates times counts, over cores."""
    rate = {name: one.value for name, one in rates.items()}
    frames = videos * max(1.0, assumed.video_s / assumed.interval_s)
    boxes = frames * assumed.boxes_per_frame
    footage_s = videos * assumed.video_s
    per_file_s = rate["identify"] + rate["probe"]
    detect_core_h = (frames * rate["megadetector_lite"] + videos * per_file_s) / 3600
    cores = nodes * assumed.cores_per_node * assumed.busy
    chunk_s = max(assumed.chunk_s, footage_s / MAX_CHUNKS)
    chunks = max(1.0, footage_s / chunk_s)
    crops = boxes * rate["crop"]
    packs = max(chunks, crops / PACK_BYTES)
    parts = max(1.0, videos / PART_ROWS, chunks / PART_CHUNKS)
    shards = max(1.0, (frames + boxes) / SHARD_ROWS)
    objects = (
        4 * chunks + packs + parts + 4 * shards
    )  # media, frames, detections, record; plans; pairs, static, records
    stored = crops + boxes * rate["box_row"] + frames * rate["frame_row"] + videos * rate["record_bytes"]
    stored += chunks * rate["chunk_overhead"]
    pairs = boxes * rate["pairs_per_box"]
    train_gpu_h = min(2 * pairs * assumed.epochs, assumed.max_train_images) / rate["train_gpu"] / 3600
    gpus = assumed.gpus if train_gpu_h > 1 else 1.0
    mine_core_h, embed_core_h = boxes * rate["mine"] / 3600, boxes * rate["embed"] / 3600
    media_bytes = footage_s * assumed.video_bytes_per_s
    hashed = videos * min(HASHED_BYTES, assumed.video_s * assumed.video_bytes_per_s)
    reads = (
        videos * 3 + objects * 3
    )  # a file is identified, probed and decoded; what is stored is read to mine and train
    cpu_node_h = (detect_core_h + mine_core_h + embed_core_h) / assumed.cores_per_node / assumed.busy
    return Reckoned(
        videos=videos,
        nodes=nodes,
        frames=frames,
        boxes=boxes,
        pairs=pairs,
        detect_core_h=detect_core_h,
        motion_core_h=detect_core_h * rate["motion"] / rate["megadetector_lite"],
        mine_core_h=mine_core_h,
        embed_core_h=embed_core_h,
        train_gpu_h=train_gpu_h,
        detect_h=detect_core_h / cores,
        read_h=(media_bytes + hashed) / (nodes * assumed.node_bytes_per_s) / 3600,
        driver_h=(videos * rate["driver_wall"] + chunks * rate["driver_chunk"]) / 3600,
        driver_gb=videos * rate["driver_bytes"] / 1e9,
        mine_h=mine_core_h / cores,
        embed_h=embed_core_h / cores,
        train_h=train_gpu_h / gpus,
        compute_usd=cpu_node_h * assumed.cpu_node_usd_per_h + train_gpu_h * assumed.gpu_usd_per_h,
        media_gb=media_bytes / 1e9,
        hashed_gb=hashed / 1e9,
        stored_gb=stored / 1e9,
        vectors_gb=boxes * assumed.embedding_bytes / 1e9,
        chunk_s=chunk_s,
        chunk_core_min=max(chunk_s, assumed.video_s) / assumed.interval_s * rate["megadetector_lite"] / 60,
        chunks=chunks,
        parts=parts,
        objects=objects,
        request_usd=objects / 1e6 * assumed.put_usd_per_million + reads / 1e6 * assumed.get_usd_per_million,
        storage_usd_month=(stored + boxes * assumed.embedding_bytes) / 1e9 * assumed.storage_usd_per_gb_month,
    )


def short(value: float) -> str:
    """A figure to two or three digits, with thousands apart."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _column(of: Mapping[str, str], found: list[Reckoned]) -> str:
    rows = [[words, *(short(getattr(one, name)) for one in found)] for name, words in of.items()]
    return table(["videos", *(f"{one.videos:,}" for one in found)], rows)


WORK = {
    "frames": "frames looked at",
    "boxes": "boxes, and crops",
    "pairs": "pairs",
    "detect_core_h": "detect, core hours (MegaDetectorLite)",
    "motion_core_h": "the same by the motion detector",
    "mine_core_h": "mine, core hours",
    "embed_core_h": "embed, core hours",
    "train_gpu_h": "pretrain, GPU hours",
}
TIME = {
    "nodes": "CPU nodes",
    "driver_h": "hours: listing, identifying, planning and recording",
    "detect_h": "hours: detect",
    "read_h": "hours: the same, if reading the media were all (in parallel)",
    "mine_h": "hours: mine",
    "train_h": "hours: pretrain",
    "embed_h": "hours: embed",
    "compute_usd": "USD for the machines",
    "request_usd": "USD for requests to object storage",
    "storage_usd_month": "USD a month for what is stored",
}
BYTES = {
    "media_gb": "GB of media, read once to decode",
    "hashed_gb": "GB read to identify them, at every call",
    "stored_gb": "GB stored: crops and rows",
    "vectors_gb": "GB of vectors, where all crops are embedded",
    "chunk_s": "seconds of footage in a chunk",
    "chunk_core_min": "core minutes in a chunk, the most that a killed worker loses",
    "chunks": "chunks",
    "parts": "files of plans",
    "objects": "objects, or files, of detect and mine",
    "driver_gb": "GB of memory of the driver",
}


def page(assumed: Assumed) -> str:
    """The whole model as Markdown."""
    found = [reckon(videos, NODES[videos], assumed) for videos in SIZES]
    rates = [[name, f"{one.value:.4g}", one.unit, one.source] for name, one in RATES.items()]
    settings = [[field.name, f"{getattr(assumed, field.name):,g}"] for field in fields(Assumed)]
    parts = [
        INTRODUCTION,
        "## Work\n\n" + _column(WORK, found),
        "## Time and money\n\n" + _column(TIME, found),
        "## Bytes and objects\n\n" + _column(BYTES, found),
        _bottlenecks(found, assumed),
        "## Measured\n\n" + table(["rate", "value", "unit", "where"], rates),
        "## Assumed\n\n" + table(["name", "value"], settings),
        END,
    ]
    return "\n\n".join(parts) + "\n"


def _bottlenecks(found: list[Reckoned], assumed: Assumed) -> str:
    few, some, many = found
    core_h = some.detect_core_h + some.mine_core_h + some.embed_core_h
    hashed_h = many.hashed_gb * 1e9 / assumed.node_bytes_per_s / 3600
    return BOTTLENECKS.format(
        *found,
        laptop_h=few.detect_core_h / 4 / assumed.busy,
        detect_share=some.detect_core_h / core_h * 100,
        plain_chunks=many.videos * assumed.video_s / assumed.chunk_s / 1e6,
        max_chunks=MAX_CHUNKS,
        chunk_min=many.chunk_core_min,
        parts=round(many.parts),
        hash_h=hashed_h / many.nodes,
        hash_one_h=hashed_h,
    )


def main() -> None:
    """Reckon, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an assumption")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    known = {field.name for field in fields(Assumed)}
    chosen = dict(text.partition("=")[::2] for text in arguments.set)
    if unknown := set(chosen) - known:
        parser.error(f"nothing is assumed of {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    text = page(replace(Assumed(), **{name: float(value) for name, value in chosen.items()}))
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

"""The stage ``mine``: detections in, pairs and static boxes out, in one pass over columns, without a pixel.

The driver reads the small Media columns, puts the media into sequences and cuts the cameras into shards. Tasks of Ray
Data read the chunks that their shard needs, decide, publish the two tables of the shard and record it as done, so a
stage that was killed goes on where it stopped. What comes out is named after the settings *and* the set of finished
chunks: new media never meet stale pairs, and two trials with equal settings share one set. A ``groupby`` over
sequences would shuffle rows that already lie in the order of cameras and time.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from wildray.collection import Collection
from wildray.config import Config, MineConfig, ScaleConfig
from wildray.errors import StageError, WildrayError, error_to_bytes, raise_error_bytes
from wildray.mining.embedded import Embedded, embedded, vectors_used
from wildray.mining.naming import pairs_digest
from wildray.mining.pairs import DETECTION_COLUMNS, FRAME_COLUMNS, mine_tables
from wildray.mining.sequences import assign_sequences
from wildray.nodes import of_kind, selector, task_cpus
from wildray.progress import tracked
from wildray.schema import DETECTIONS, FRAMES, MEDIA, hash64
from wildray.store import Store

logger = logging.getLogger(__name__)

SHARD_ROWS = 200_000
"""Frames and boxes of a shard: a task holds about a kilobyte for each at its peak."""
SHARD_ROWS_EMBEDDED = 50_000
"""The same where boxes have vectors: of 512 numbers, they are two kilobytes more."""
MEDIA_COLUMNS = ["media_id", "uri", "camera_id", "captured_at", "clock_flag", "duration_s"]
"""What the driver reads of the Media rows."""
MIN_SEQUENCE_GAP_S = 60.0
"""Default of ``mine.sequence_gap`` for short intervals."""
GAP_PER_INTERVAL = 1.5
"""For long ones it is so many intervals, so that two frames an interval apart are of one sequence."""


@dataclass(frozen=True)
class MineResult:
    """What mine came to.

    Attributes:
        num_pairs: Pairs of boxes taken for one animal.
        num_static: Boxes taken for static false detections.
        num_sequences: Sequences of the media.
        num_detections: Boxes looked at.
        detections: Digest of the detections.
        digest: Name of the set of pairs.
        uri: Folder of the pairs.
        reused: Whether the set was there already.
        seconds: Wall-clock time.
    """

    num_pairs: int
    num_static: int
    num_sequences: int
    num_detections: int
    detections: str
    digest: str
    uri: str
    reused: bool
    seconds: float


def mine(config: Config, store: Store) -> MineResult:
    """Decide which two boxes are one animal and which never move; a set that is there already is used as it is.

    Args:
        config: ``mine`` and ``scale`` are used; the result does not depend on ``scale``.
        store: Where the detections are, and where ``pairs/<digest>/`` and ``static/<digest>/`` go.

    Returns:
        Counts, and where the pairs are.

    Raises:
        ConfigError: ``mine.detections`` names no collection, or ``mine.embeddings`` none of its crops.
        StageError: Nothing has been detected yet, or the embeddings do not serve (``embedded.embedded``).
        StoreError: The store cannot be read or written, or another mine is at work on the same set.
    """
    begun = time.monotonic()
    source = store.collection(
        "detections", store.choose("detections", config.mine.detections, option="mine.detections")
    )
    finished = source.finished()
    if not finished:
        raise StageError(f"The detections {source.digest} hold no finished chunk yet: run 'wildray detect' first.")
    vectors = vectors_used(config.mine, source)
    target = store.collection("pairs", pairs_digest(config.mine, source.digest, finished, vectors))
    reused = _is_complete(target)
    if not reused:
        with store.lease(f"pairs-{target.digest}"):
            logger.info("mine: %d chunks of detections %s, pairs %s", len(finished), source.digest, target.digest)
            looks = embedded(config.mine, source)
            target.begin({"mine": config.mine.model_dump(mode="json"), "detections": source.digest})
            _work(config, source, target, finished, looks)
    else:
        target.begin(target.settings())
    records = target.finished().values()
    result = MineResult(
        num_pairs=sum(record["num_pairs"] for record in records),
        num_static=sum(record["num_static"] for record in records),
        num_sequences=sum(record["num_sequences"] for record in records),
        num_detections=sum(record["num_detections"] for record in records),
        detections=source.digest,
        digest=target.digest,
        uri=str(store.path("pairs", target.digest)),
        reused=reused,
        seconds=time.monotonic() - begun,
    )
    logger.info(
        "mine: %d pairs, %d of %d boxes static, %d sequences in %.1f s%s",
        result.num_pairs,
        result.num_static,
        result.num_detections,
        result.num_sequences,
        result.seconds,
        " (the set was there already)" if reused else "",
    )
    if result.num_pairs == 0:
        _warn_of_none(config.mine)
    return result


def _warn_of_none(config: MineConfig) -> None:
    logger.warning(
        "mine: no pairs. Of the categories %s there are too few boxes of score %g or more %s apart: try a shorter "
        "mine.interval, a lower mine.min_score or mine.min_iou, or look at the footage again with a shorter "
        "detect.base_interval. The linker chained needs frames no further apart than mine.link_gap all along",
        ", ".join(config.categories),
        config.min_score,
        config.interval,
    )


def _is_complete(target: Collection) -> bool:
    planned = target.planned()
    return bool(planned) and set(planned) <= set(target.finished())


def _work(
    config: Config, source: Collection, target: Collection, finished: Mapping[str, Any], looks: Embedded | None
) -> None:
    """Plan the shards, and work on those that are not finished."""
    shards = _shards(config.mine, source, finished)
    if not target.planned():
        target.plan({name: {"chunks": shard["chunks"]} for name, shard in shards.items()})
    done = set(target.finished())
    left = [shard for name, shard in shards.items() if name not in done]
    if not left:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    workers = min(config.scale.workers, len(left))
    tasks = ray.data.from_items(left, override_num_blocks=len(left)).map(
        functools.partial(_mine_shard, config=config.mine, source=source, target=target, looks=looks),
        compute=ray.data.TaskPoolStrategy(size=workers),
        num_cpus=_cpus_per_task(config.scale),
        label_selector=selector(config.scale.decode_nodes),
    )
    for row in tracked(tasks.iter_rows(), len(left), "mining"):
        raise_error_bytes(row["error"])


def _cpus_per_task(scale: ScaleConfig) -> float:
    if scale.cpus_per_worker is not None:
        return scale.cpus_per_worker
    return task_cpus(of_kind(ray.nodes(), scale.decode_nodes) if ray.is_initialized() else [], scale.workers)


def _shards(config: MineConfig, source: Collection, finished: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cut the media into shards of whole stretches of about ``SHARD_ROWS`` rows; depends on nothing but the chunks.

    Returns:
        By name: ``shard`` (the name), ``chunks`` (what it reads) and ``sequences`` (its files, an Arrow IPC stream).
    """
    parts: list[pa.Table] = []
    weight: dict[str, float] = {}
    chunks_of: dict[str, list[str]] = {}
    denser = _denser(finished)
    for chunk, record in finished.items():
        if "again" in record:
            continue
        part = source.read("media", MEDIA, columns=MEDIA_COLUMNS, chunks=[chunk])
        parts.append(part)
        own = [chunk, *denser.get(chunk, ())]
        num_rows = sum(finished[name]["num_detections"] + finished[name]["num_frames"] for name in own)
        share = num_rows / max(part.num_rows, 1)
        for media_id in part["media_id"].to_pylist():
            chunks_of.setdefault(media_id, []).extend(own)
            weight[media_id] = weight.get(media_id, 0.0) + share
    sequences = assign_sequences(pa.concat_tables(parts), gap_s=sequence_gap_s(config))
    media_ids = sequences["media_id"].to_pylist()
    total = np.cumsum([weight[media_id] for media_id in media_ids])
    shards = {}
    most = SHARD_ROWS if config.embeddings is None else SHARD_ROWS_EMBEDDED
    for number, (first, last) in enumerate(_cuts(sequences["stretch"].to_numpy(), total, most)):
        part = sequences.slice(first, last - first)
        chunks = sorted({chunk for media_id in media_ids[first:last] for chunk in chunks_of[media_id]})
        name = f"{number:06d}-{hash64(media_ids[first:last]) & 0xFFFFFFFF:08x}"
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part)
        shards[name] = {"shard": name, "chunks": chunks, "sequences": sink.getvalue().to_pybytes()}
    return shards


def _denser(finished: Mapping[str, Any]) -> dict[str, list[str]]:
    """The chunks of the dense pass by the chunk of the base pass whose media they look at again."""
    found: dict[str, list[str]] = {}
    for chunk, record in finished.items():
        if "again" in record:
            found.setdefault(record["again"], []).append(chunk)
    return found


def _cuts(stretch: npt.NDArray[np.int64], total: npt.NDArray[np.float64], most: int) -> list[tuple[int, int]]:
    """(first, end) rows of each shard: a shard is closed at the first stretch that ends beyond ``most`` rows."""
    ends = np.flatnonzero(np.append(stretch[1:] != stretch[:-1], True)) + 1
    cuts, first, begin = [], 0, 0.0
    for end in ends.tolist():
        if total[end - 1] - begin >= most or end == len(stretch):
            cuts.append((first, end))
            first, begin = end, float(total[end - 1])
    return cuts


def sequence_gap_s(config: MineConfig) -> float:
    """Time without footage that ends a sequence, in seconds: as set, or long enough for the interval."""
    if config.sequence_gap is not None:
        return config.sequence_gap.seconds
    interval_s = config.interval.value if config.interval.unit == "s" else 0.0
    return max(MIN_SEQUENCE_GAP_S, GAP_PER_INTERVAL * interval_s)


def _mine_shard(
    row: dict[str, Any], *, config: MineConfig, source: Collection, target: Collection, looks: Embedded | None
) -> dict[str, Any]:
    """One task: work on a shard. An error of ours comes back as a value, since Ray Data loses the cause of its own."""
    try:
        _publish_shard(row, config, source, target, looks)
    except WildrayError as error:
        return {"shard": row["shard"], "error": error_to_bytes(error)}
    return {"shard": row["shard"], "error": b""}


def _publish_shard(
    row: Mapping[str, Any], config: MineConfig, source: Collection, target: Collection, looks: Embedded | None
) -> None:
    """Read what a shard needs, decide, publish, record."""
    shard, chunks = str(row["shard"]), [str(chunk) for chunk in row["chunks"]]
    sequences = pa.ipc.open_stream(row["sequences"]).read_all()
    frames = source.read("frames", FRAMES, columns=FRAME_COLUMNS, chunks=chunks)
    detections = source.read("detections", DETECTIONS, columns=DETECTION_COLUMNS, chunks=chunks)
    vectors = None if looks is None else looks.read(chunks)
    static, pairs = mine_tables(sequences, frames, detections, config, vectors)
    target.write("static", shard, static)
    target.write("pairs", shard, pairs)
    record = {
        "num_pairs": pairs.num_rows,
        "num_static": int(np.count_nonzero(static["static"].to_numpy())),
        "num_sequences": len(np.unique(sequences["sequence_id"].to_numpy())),
        "num_detections": static.num_rows,
    }
    target.done(shard, record)

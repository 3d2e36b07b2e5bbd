"""The stage ``detect``: media in; media, frames, detections and crops out, chunk by chunk.

Media are hashed, those the store does not know are probed and planned into chunks, and the chunks are worked on by
tasks of Ray Data, whose processes keep a detector and a decoding process each. A chunk is published whole and recorded
last, so a stage that was killed goes on where it stopped and ends with the same rows. Ray Data's own checkpoints lose
rows where one input makes many, and its ``read_videos`` decodes every frame.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from wildray.config import Config, DetectConfig
from wildray.errors import DataError, StageError, WildrayError, error_to_bytes, raise_error_bytes
from wildray.mining.chunks import Row, plan_chunks
from wildray.mining.clock import captured
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.results import Results, read_results
from wildray.mining.detectors.results_file import SCHEME
from wildray.mining.failures import failures
from wildray.mining.fresh import new_media
from wildray.mining.media import MediaItem, find_media, identify, probe
from wildray.mining.sandbox import FrameSource
from wildray.mining.windows import ChunkWorker
from wildray.nodes import of_kind, selector, task_cpus
from wildray.progress import tracked
from wildray.schema import MEDIA
from wildray.store import Collection, Store

logger = logging.getLogger(__name__)

NOT_IN_DIGEST = {"decode_timeout", "decode_memory_mb", "max_file_gb", "max_failed", "chunk"}
"""Settings that decide whether a file can be looked at, not what is seen in it."""
DIGEST_VERSION = 2
"""Raised when the code finds other boxes, frames or crops than before from equal settings."""
SCAN_BATCH = 16
SCAN_BLOCK = 1_024
TASKS_PER_CPU = 32
"""Files probed by one Ray task: so many that there are 32 tasks for each CPU, but at least 16 and at most 1,024."""
SCAN_ROUND = 131_072
"""Files that Ray's object store holds rows of at a time."""
MOST_BLOCKS = 1_024
BLOCKS_PER_WORKER = 16
"""Ray Data's driver keeps a task and its metadata for every block: beyond so many, a task does several chunks."""
MOST_SHOWN = 20
"""Media of which it is said why they failed."""


@dataclass(frozen=True)
class DetectResult:
    """What detect came to.

    Attributes:
        num_media: Different media of this call (duplicates counted once).
        num_done: Those looked at, now or earlier.
        num_failed: Those that could not be; their rows in the table media say why.
        num_new: Those looked at for the first time.
        num_frames: Frames looked at in the whole collection.
        num_detections: Boxes in the whole collection.
        digest: Name of the collection: detector and sampling.
        seconds: Wall-clock time.
    """

    num_media: int
    num_done: int
    num_failed: int
    num_new: int
    num_frames: int
    num_detections: int
    digest: str
    seconds: float


def detect(config: Config, store: Store, media: Sequence[str]) -> DetectResult:
    """Look at media and keep what is seen; those the store already has are not looked at again.

    Args:
        config: ``detect`` and ``scale`` are used.
        store: Where everything is kept.
        media: Files, folders, globs, manifests; or one MegaDetector results file, then the media it speaks of as far
            as they do not lie beside it.

    Returns:
        Counts and the digest of the collection.

    Raises:
        DataError: There are no media, or a manifest or results file is wrong.
        StageError: More than ``detect.max_failed`` of the media could not be looked at; the others are kept.
        StoreError: The store cannot be written, or another detect is at work on the same collection.
    """
    begun = time.monotonic()
    results, items = _inputs(config, media)
    detector = None if results is not None else make_detector(config.detect)
    facts: dict[str, object] = (
        dict(detector.digest_facts) if detector else {"results": results.digest if results else ""}
    )
    digest = config.detect.digest(extra={"version": DIGEST_VERSION, **facts}, exclude=NOT_IN_DIGEST)
    collection = store.collection("detections", digest)
    with store.lease(f"detections-{digest}"):
        logger.info(
            "detect: %d media with %s, collection %s", len(items), detector.name if detector else "results", digest
        )
        collection.begin({"detect": config.detect.model_dump(mode="json"), "facts": facts})
        media_ids, new = new_media(items, identify(items), collection.covering())
        del items  # of millions, they take more memory than all that follows
        _plan(config, collection, new, results)
        finished = _work(config, collection, results)
    num_failed, failed = failures(collection, finished, media_ids, most=MOST_SHOWN)
    result = DetectResult(
        num_media=len(media_ids),
        num_done=len(media_ids) - num_failed,
        num_failed=num_failed,
        num_new=new.num_rows,
        num_frames=sum(record["num_frames"] for record in finished.values()),
        num_detections=sum(record["num_detections"] for record in finished.values()),
        digest=digest,
        seconds=time.monotonic() - begun,
    )
    logger.info("detect: %d frames, %d boxes in %.1f s", result.num_frames, result.num_detections, result.seconds)
    _judge(config, failed, num_failed=num_failed, num_media=len(media_ids))
    return result


def _inputs(config: Config, media: Sequence[str]) -> tuple[Results | None, list[MediaItem]]:
    files = [name for name in media if name.lower().endswith(".json")]
    others = [name for name in media if name not in files]
    if not files:
        return None, find_media(others, time_zone=config.detect.time_zone)
    if len(files) > 1:
        raise StageError(f"Got {len(files)} results files, expected one at a time: {', '.join(files)}.")
    at_hand = find_media(others, time_zone=config.detect.time_zone) if others else []
    results = read_results(files[0], frame_size=config.detect.frame_size)
    return results, results.items(at_hand)


def _plan(config: Config, collection: Collection, new: pa.Table, results: Results | None) -> None:
    """Plan chunks over new media (``fresh.NEW``)."""
    if new.num_rows == 0:
        return
    logger.info("detect: %d new media", new.num_rows)
    tables = [MEDIA.empty_table()]
    if results is not None:
        absent = pc.starts_with(new["uri"], SCHEME)
        tables += _absent(config, results, new.filter(absent))
        new = new.filter(pc.invert(absent))
    if new.num_rows:
        tables += tracked(_probed(config, new), new.num_rows, "reading headers", weigh=len)
    parts = plan_chunks(pa.concat_tables(tables), config.detect, first=len(collection.planned()))
    collection.plan_rows(parts, covers="media_id")


def _absent(config: Config, results: Results, new: pa.Table) -> Iterator[pa.Table]:
    """Media rows of media that only a results file knows."""
    for batch in new.to_batches(max_chunksize=SCAN_BLOCK):
        rows = []
        for given in batch.to_pylist():
            capture = captured({}, given=given["captured_at"], time_zone=config.detect.time_zone)
            when = {"captured_at": capture.at, "captured_at_text": capture.text, "captured_at_zone": capture.zone}
            known = {name: given[name] for name in ("media_id", "num_duplicates")}
            rows.append({**results.media_row(_item(given)), **when, **known, "clock_flag": "none"})
        yield pa.Table.from_pylist(rows, schema=MEDIA)


def _probed(config: Config, new: pa.Table) -> Iterator[pa.Table]:
    """Media rows of new media, probed by Ray tasks."""
    options = _source_options(config.detect)
    zone, max_bytes = config.detect.time_zone, config.detect.max_file_gb * 1e9

    def probe_batch(batch: pa.Table) -> pa.Table:
        rows = []
        with FrameSource(**options) as source:
            for given in batch.to_pylist():
                row = probe(_item(given), source=source, time_zone=zone, max_file_bytes=max_bytes)
                rows.append(row | {name: given[name] for name in ("media_id", "num_duplicates")})
        return pa.Table.from_pylist(rows, schema=MEDIA)

    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = min(SCAN_BLOCK, max(SCAN_BATCH, new.num_rows // (TASKS_PER_CPU * cpus)))
    where = selector(config.scale.decode_nodes)
    for begin in range(0, new.num_rows, SCAN_ROUND):
        some = new.slice(begin, SCAN_ROUND)
        scanned = ray.data.from_arrow([some.slice(at, size) for at in range(0, some.num_rows, size)]).map_batches(
            probe_batch, batch_size=None, batch_format="pyarrow", num_cpus=_cpus(config) / 2, label_selector=where
        )
        batches: Iterable[Any] = scanned.iter_batches(batch_size=None, batch_format="pyarrow")
        # what Ray gives lies in its object store, and is kept there for as long as it is referred to
        yield pa.concat_tables(table.cast(MEDIA) for table in batches).combine_chunks()


def _item(given: Row) -> MediaItem:
    return MediaItem(given["uri"], given["kind"], given["camera_id"], given["captured_at"])


def _work(config: Config, collection: Collection, results: Results | None) -> dict[str, Any]:
    """Do the planned chunks that are not done; returns the records of all that are then."""
    finished = collection.finished()
    todo = [(chunk, part or "") for chunk, part in collection.parts().items() if chunk not in finished]
    if not todo:
        return finished
    path = None if results is None else str(results.path)

    def work(batch: Any) -> Any:
        ((chunk, part),) = zip(batch["chunk"], batch["part"], strict=True)
        try:
            if collection.is_finished(str(chunk)):  # its block has been worked on by a process that died
                return {"chunk": [chunk], "error": [b""]}
            _worker(config.detect, collection, path).run(str(chunk), str(part) or None)
        except WildrayError as error:
            return {"chunk": [chunk], "error": [error_to_bytes(error)]}
        return {"chunk": [chunk], "error": [b""]}

    workers = min(config.scale.workers, len(todo))
    num_blocks = min(len(todo), max(MOST_BLOCKS, BLOCKS_PER_WORKER * workers))
    chunks, parts = zip(*todo, strict=True)
    dataset = ray.data.from_arrow(
        [
            pa.table({"chunk": chunks[begin:end], "part": parts[begin:end]})
            for begin, end in itertools.pairwise(len(todo) * block // num_blocks for block in range(num_blocks + 1))
        ]
    )
    where = selector(config.scale.decode_nodes)
    tasks = ray.data.TaskPoolStrategy(size=workers)
    done = dataset.map_batches(work, batch_size=1, compute=tasks, num_cpus=_cpus(config), label_selector=where)
    for record in tracked(done.iter_rows(), len(todo), "detecting"):
        raise_error_bytes(record["error"])
        logger.debug("chunk %s", record["chunk"])
    return collection.finished()


@functools.lru_cache(maxsize=1)
def _worker(config: DetectConfig, collection: Collection, results_path: str | None) -> ChunkWorker:
    """The detector and decoding process of a Ray worker, kept from one chunk to the next."""
    results = None if results_path is None else read_results(results_path, frame_size=config.frame_size)
    if results is not None and results.digest != collection.settings()["facts"]["results"]:
        raise DataError(f"{results_path} was changed while it was worked on. Run the same command again.")
    return ChunkWorker(
        config,
        collection,
        FrameSource(**_source_options(config)),
        make_detector(config) if results is None else None,
        results,
    )


def _cpus(config: Config) -> float:
    """CPUs set aside for a worker: never all of a small machine, or Ray Data's own tasks would wait for ever."""
    scale = config.scale
    if scale.cpus_per_worker is not None:
        return max(0.1, min(1.0, scale.cpus_per_worker / 2))
    return task_cpus(of_kind(ray.nodes(), scale.decode_nodes), scale.workers)


def _source_options(config: DetectConfig) -> dict[str, Any]:
    return {
        "timeout_s": config.decode_timeout.seconds,
        "memory_mb": config.decode_memory_mb,
        "max_pixels": config.max_pixels,
    }


def _judge(config: Config, failed: Sequence[Row], *, num_failed: int, num_media: int) -> None:
    """Say which media failed; too many of them fail the stage."""
    for row in failed:
        logger.warning("%s: %s (%s)", row["status"], row["error"], row["uri"])
    if num_media and num_failed / num_media > config.detect.max_failed:
        reasons = "\n  ".join(f"{row['status']}: {row['error']}" for row in failed[:5])
        raise StageError(
            f"{num_failed} of {num_media} media could not be looked at, more than detect.max_failed = "
            f"{config.detect.max_failed:g} allows; the others are kept. The first reasons:\n  {reasons}"
        )

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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from wildray.config import Config, DetectConfig
from wildray.errors import DataError, StageError, WildrayError, error_to_bytes, raise_error_bytes
from wildray.mining.chunks import Row, plan_chunks
from wildray.mining.clock import captured
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.results import Results, read_results
from wildray.mining.failures import failures
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
MOST_BLOCKS = 1_024
BLOCKS_PER_WORKER = 16
"""Ray Data's driver keeps a task and its metadata for every block: beyond so many, a task does several chunks."""
MOST_SHOWN = 20
"""Media of which it is said why they failed."""
_BLOCK = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("media_id", "uri", "kind", "camera_id", "captured_at")),
        pa.field("num_duplicates", pa.int32()),
    ]
)


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
        ids = identify(items)
        media_ids, new = _plan(config, collection, items, ids, results)
        del items
        finished = _work(config, collection, results)
    num_failed, failed = failures(collection, finished, media_ids, most=MOST_SHOWN)
    result = DetectResult(
        num_media=len(media_ids),
        num_done=len(media_ids) - num_failed,
        num_failed=num_failed,
        num_new=new,
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


def _plan(
    config: Config,
    collection: Collection,
    items: Sequence[MediaItem],
    ids: npt.NDArray[np.bytes_],
    results: Results | None,
) -> tuple[npt.NDArray[np.bytes_], int]:
    """Plan chunks over the media that no chunk covers.

    Returns:
        The ids of the items, each once (several items under one id are duplicates), and how many of them are new.
    """
    media_ids, first, counts = np.unique(ids, return_index=True, return_counts=True)
    fresh = ~np.isin(media_ids, np.asarray(collection.covering(), "S32"))
    if not fresh.any():
        return media_ids, 0
    logger.info("detect: %d new media", fresh.sum())
    new = [
        _New(media_id.decode(), items[index], int(count) - 1)
        for media_id, index, count in zip(media_ids[fresh], first[fresh], counts[fresh], strict=True)
    ]
    absent = [results is not None and results.is_absent(one.item.uri) for one in new]
    tables = [MEDIA.empty_table()]
    if results is not None:
        tables += _absent(config, results, list(itertools.compress(new, absent)))
    at_hand = [one for one, gone in zip(new, absent, strict=True) if not gone]
    if at_hand:
        tables += tracked(_probed(config, at_hand), len(at_hand), "reading headers", weigh=len)
    num_new = len(new)
    del new, at_hand
    media = pa.concat_tables(tables)
    tables.clear()
    collection.plan_rows(plan_chunks(media, config.detect, first=len(collection.planned())), covers="media_id")
    return media_ids, num_new


class _New(NamedTuple):
    """A medium that the collection does not have."""

    media_id: str
    item: MediaItem
    num_duplicates: int


def _absent(config: Config, results: Results, media: Sequence[_New]) -> Iterator[pa.Table]:
    """Media rows of media that only a results file knows."""
    for first in range(0, len(media), SCAN_BLOCK):
        rows = []
        for one in media[first : first + SCAN_BLOCK]:
            capture = captured({}, given=one.item.captured_at, time_zone=config.detect.time_zone)
            when = {"captured_at": capture.at, "captured_at_text": capture.text, "captured_at_zone": capture.zone}
            more = {"media_id": one.media_id, "num_duplicates": one.num_duplicates, "clock_flag": "none"}
            rows.append({**results.media_row(one.item), **when, **more})
        yield pa.Table.from_pylist(rows, schema=MEDIA)


def _probed(config: Config, media: Sequence[_New]) -> Iterator[pa.Table]:
    """Media rows of new media, probed by Ray tasks."""
    options = _source_options(config.detect)
    zone, max_bytes = config.detect.time_zone, config.detect.max_file_gb * 1e9

    def probe_batch(batch: pa.Table) -> pa.Table:
        rows = []
        with FrameSource(**options) as source:
            for given in batch.to_pylist():
                item = MediaItem(given["uri"], given["kind"], given["camera_id"], given["captured_at"])
                row = probe(item, source=source, time_zone=zone, max_file_bytes=max_bytes)
                rows.append(row | {name: given[name] for name in ("media_id", "num_duplicates")})
        return pa.Table.from_pylist(rows, schema=MEDIA)

    size = min(SCAN_BLOCK, max(SCAN_BATCH, len(media) // (TASKS_PER_CPU * _num_cpus())))
    blocks = [_block(media[first : first + size]) for first in range(0, len(media), size)]
    where = selector(config.scale.decode_nodes)
    scanned = ray.data.from_arrow(blocks).map_batches(
        probe_batch, batch_size=None, batch_format="pyarrow", num_cpus=_cpus(config) / 2, label_selector=where
    )
    batches: Iterable[Any] = scanned.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in batches:
        yield table.cast(MEDIA)


def _block(media: Sequence[_New]) -> pa.Table:
    """What a task is told of media that it is to probe."""
    columns = {name: [getattr(one.item, name) for one in media] for name in ("uri", "kind", "camera_id", "captured_at")}
    columns |= {name: [getattr(one, name) for one in media] for name in ("media_id", "num_duplicates")}
    try:
        return pa.table(columns, schema=_BLOCK)
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r}: a name that is not UTF-8. Rename the file or folder.") from None


def _num_cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


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

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from wildray.collection import Collection
from wildray.config import Config, DetectConfig
from wildray.errors import DataError, StageError, WildrayError, error_to_bytes, raise_error_bytes
from wildray.mining.chunks import Row, plan_chunks
from wildray.mining.dense import SETTINGS, plan_again
from wildray.mining.detectors import make_detector, mot_results
from wildray.mining.detectors.results import Results, read_results
from wildray.mining.detectors.results_file import SCHEME
from wildray.mining.failures import failures
from wildray.mining.fresh import new_media
from wildray.mining.media import MediaItem, find_media
from wildray.mining.sandbox import FrameSource
from wildray.mining.scan import absent_rows, cpus_per_task, identified, probed_rows, source_options
from wildray.mining.windows import ChunkWorker
from wildray.nodes import selector
from wildray.progress import tracked
from wildray.schema import MEDIA
from wildray.store import Store

logger = logging.getLogger(__name__)

NOT_IN_DIGEST = {"decode_timeout", "decode_memory_mb", "max_file_gb", "max_failed", "chunk", *SETTINGS}
"""Settings that decide whether a file can be looked at, not what is seen in it; and those of the dense pass, which adds
frames to those that are there."""
DIGEST_VERSION = 2
"""Raised when the code finds other boxes, frames or crops than before from equal settings."""
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
        num_new_frames: Frames looked at by this call.
        num_frames: Frames looked at in the whole collection.
        num_dense_frames: Those of them that the dense pass added.
        num_detections: Boxes in the whole collection.
        digest: Name of the collection: detector and sampling.
        seconds: Wall-clock time.
    """

    num_media: int
    num_done: int
    num_failed: int
    num_new: int
    num_new_frames: int
    num_frames: int
    num_dense_frames: int
    num_detections: int
    digest: str
    seconds: float


def detect(config: Config, store: Store, media: Sequence[str]) -> DetectResult:
    """Look at media and keep what is seen; those the store already has are not looked at again.

    Args:
        config: ``detect`` and ``scale`` are used.
        store: Where everything is kept.
        media: Files, folders, globs, manifests; or one MegaDetector results file, then the media it speaks of as far
            as they do not lie beside it; or MOT ground-truth files, whose boxes are taken as detections.

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
    unused = NOT_IN_DIGEST | (set() if results is not None and _is_mot(results.path) else mot_results.SETTINGS)
    digest = config.detect.digest(extra={"version": DIGEST_VERSION, **facts}, exclude=unused)
    collection = store.collection("detections", digest)
    with store.lease(f"detections-{digest}"):
        logger.info(
            "detect: %d media with %s, collection %s", len(items), detector.name if detector else "results", digest
        )
        collection.begin({"detect": config.detect.model_dump(mode="json"), "facts": facts})
        media_ids, new = new_media(items, identified(config, items), collection.covering())
        num_new = new.num_rows
        del items  # of millions, they take more memory than all that follows
        _plan(config, collection, new, results)
        del new
        num_before = sum(record["num_frames"] for record in collection.finished().values())
        finished = _passes(config, collection, results, media_ids)
    num_failed, failed = failures(collection, finished, media_ids, most=MOST_SHOWN)
    num_frames = sum(record["num_frames"] for record in finished.values())
    result = DetectResult(
        num_media=len(media_ids),
        num_done=len(media_ids) - num_failed,
        num_failed=num_failed,
        num_new=num_new,
        num_new_frames=num_frames - num_before,
        num_frames=num_frames,
        num_dense_frames=sum(record.get("num_dense_frames", 0) for record in finished.values()),
        num_detections=sum(record["num_detections"] for record in finished.values()),
        digest=digest,
        seconds=time.monotonic() - begun,
    )
    logger.info("detect: %d frames, %d boxes in %.1f s", result.num_frames, result.num_detections, result.seconds)
    _judge(config, failed, num_failed=num_failed, num_media=len(media_ids))
    return result


def _inputs(config: Config, media: Sequence[str]) -> tuple[Results | None, list[MediaItem]]:
    files = [name for name in media if name.lower().endswith((".json", mot_results.SUFFIX))]
    others = [name for name in media if name not in files]
    if not files:
        return None, find_media(others, time_zone=config.detect.time_zone)
    if len(files) > 1 and not all(map(_is_mot, files)):
        raise StageError(f"Got {len(files)} results files, expected one at a time: {', '.join(files)}.")
    if others and _is_mot(files[0]):
        raise StageError(f"{files[0]} is taken without media, of which no crop is made: leave {', '.join(others)} out.")
    at_hand = find_media(others, time_zone=config.detect.time_zone) if others else []
    results = _read(tuple(files), config.detect)
    return results, results.items(at_hand)


def _is_mot(path: str | Path) -> bool:
    return str(path).lower().endswith(mot_results.SUFFIX)


def _read(paths: tuple[str, ...], config: DetectConfig) -> Results:
    """Boxes that stand in files: MegaDetector's, or of MOT ground truth."""
    if _is_mot(paths[0]):
        return mot_results.read_mot_results(paths, config)
    return read_results(paths[0], frame_size=config.frame_size)


def _plan(config: Config, collection: Collection, new: pa.Table, results: Results | None) -> None:
    """Plan chunks over new media (``fresh.NEW``)."""
    if new.num_rows == 0:
        return
    logger.info("detect: %d new media", new.num_rows)
    tables = [MEDIA.empty_table()]
    if results is not None:
        absent = pc.starts_with(new["uri"], SCHEME.encode())
        tables += absent_rows(config, results, new.filter(absent))
        new = new.filter(pc.invert(absent))
    if new.num_rows:
        tables += tracked(probed_rows(config, new), new.num_rows, "reading headers", weigh=len)
    parts = plan_chunks(_joined(tables), config.detect, first=len(collection.planned()))
    collection.plan_rows(parts, covers="media_id")


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One table of all; the list is emptied, so that whoever sorts the table need not hold the rows twice."""
    table = pa.concat_tables(tables)
    tables.clear()
    return table


def _passes(
    config: Config, collection: Collection, results: Results | None, media_ids: npt.NDArray[np.bytes_]
) -> dict[str, Any]:
    """Do what is planned, then plan and do the dense pass; returns the records of all finished chunks."""
    begun = time.monotonic()
    finished = _work(config, collection, results)
    if config.detect.dense_interval is None or results is not None:  # a results file says nothing of other frames
        return finished
    base_s = time.monotonic() - begun
    if plan_again(config.detect, collection, finished, media_ids):
        finished = _work(config, collection, results)
    _log_passes(finished, base_s=base_s, dense_s=time.monotonic() - begun - base_s)
    return finished


def _work(config: Config, collection: Collection, results: Results | None) -> dict[str, Any]:
    """Do the planned chunks that are not done; returns the records of all that are then."""
    finished = collection.finished()
    todo = [(chunk, part or "") for chunk, part in collection.parts().items() if chunk not in finished]
    if not todo:
        return finished
    paths = None if results is None else tuple(map(str, results.paths or (results.path,)))

    def work(batch: Any) -> Any:
        ((chunk, part),) = zip(batch["chunk"], batch["part"], strict=True)
        try:
            if collection.is_finished(str(chunk)):  # its block has been worked on by a process that died
                return {"chunk": [chunk], "error": [b""]}
            _worker(config.detect, collection, paths).run(str(chunk), str(part) or None)
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
    done = dataset.map_batches(work, batch_size=1, compute=tasks, num_cpus=cpus_per_task(config), label_selector=where)
    for record in tracked(done.iter_rows(), len(todo), "detecting"):
        raise_error_bytes(record["error"])
        logger.debug("chunk %s", record["chunk"])
    return collection.finished()


def _log_passes(finished: Mapping[str, Any], *, base_s: float, dense_s: float) -> None:
    """Say what the passes of a collection came to, and of which media there was no second look."""
    again = [record for record in finished.values() if "again" in record]
    base = [record for record in finished.values() if "again" not in record]
    for name, records, seconds in (("base", base, base_s), ("dense", again, dense_s)):
        decoded = sum(record.get("num_decoded", record["num_frames"]) for record in records)
        detected, boxes = (sum(record[key] for record in records) for key in ("num_frames", "num_detections"))
        text = "detect: %s pass: %d frames decoded, %d detected, %d boxes; %.1f s in this call"
        logger.info(text, name, decoded, detected, boxes, seconds)
    missed = {media_id for record in again for media_id in record["not_again"]}
    if missed:
        logger.warning("detect: %d media could not be looked at a second time: %s", len(missed), min(missed))


@functools.lru_cache(maxsize=1)
def _worker(config: DetectConfig, collection: Collection, paths: tuple[str, ...] | None) -> ChunkWorker:
    """The detector and decoding process of a Ray worker, kept from one chunk to the next."""
    results = None if paths is None else _read(paths, config)
    if results is not None and results.digest != collection.settings()["facts"]["results"]:
        raise DataError(f"{results.path} was changed while it was worked on. Run the same command again.")
    return ChunkWorker(
        config,
        collection,
        FrameSource(**source_options(config)),
        make_detector(config) if results is None else None,
        results,
    )


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

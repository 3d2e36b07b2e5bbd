"""The stage ``detect``: media in; media, frames, detections and crops out, chunk by chunk.

Media are hashed, those the store does not know are probed and planned into chunks, and the chunks are worked on by
tasks of Ray Data, whose processes keep a detector and a decoding process each. A chunk is published whole and recorded
last, so a stage that was killed goes on where it stopped and ends with the same rows. Ray Data's own checkpoints lose
rows where one input makes many, and its ``read_videos`` decodes every frame.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import ray.data

from wildray.config import Config, DetectConfig
from wildray.errors import DataError, StageError, WildrayError, error_to_bytes, raise_error_bytes
from wildray.mining.chunks import Row, from_json, plan_chunks, to_json
from wildray.mining.clock import captured, flag_clocks
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.results import Results, read_results
from wildray.mining.media import MediaItem, find_media, media_id, media_id_of_name, probe
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
"""Files probed by one Ray task."""


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
        ids = _identify(items)
        new = _plan(config, collection, ids, results)
        _work(config, collection, results)
        finished = collection.finished()
    wanted = set(ids)
    rows = collection.read("media", MEDIA, columns=["media_id", "status", "uri", "error"]).to_pylist()
    mine = [row for row in rows if row["media_id"] in wanted]
    failed = [row for row in mine if row["status"] != "done"]
    result = DetectResult(
        num_media=len(mine),
        num_done=len(mine) - len(failed),
        num_failed=len(failed),
        num_new=new,
        num_frames=sum(record["num_frames"] for record in finished.values()),
        num_detections=sum(record["num_detections"] for record in finished.values()),
        digest=digest,
        seconds=time.monotonic() - begun,
    )
    logger.info("detect: %d frames, %d boxes in %.1f s", result.num_frames, result.num_detections, result.seconds)
    _judge(config, failed, len(mine))
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


def _identify(items: Sequence[MediaItem]) -> dict[str, list[MediaItem]]:
    """Media by id; several items under one id are duplicates."""

    def identify(item: MediaItem) -> str:
        try:
            if os.path.getsize(item.uri) > 0:
                return media_id(item.uri)
        except OSError:
            logger.debug("%s cannot be read", item.uri)
        return media_id_of_name(item.uri)

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(identify, items))
    grouped: dict[str, list[MediaItem]] = {}
    for name, item in zip(ids, items, strict=True):
        grouped.setdefault(name, []).append(item)
    return grouped


def _plan(config: Config, collection: Collection, ids: dict[str, list[MediaItem]], results: Results | None) -> int:
    """Plan chunks over the media that no chunk covers; returns how many there are."""
    covered = collection.covered()
    fresh = {name: items for name, items in ids.items() if name not in covered}
    if not fresh:
        return 0
    logger.info("detect: %d new media", len(fresh))
    absent = {name for name, items in fresh.items() if results is not None and results.is_absent(items[0].uri)}
    rows = [_absent_row(config, results, name, fresh[name][0]) for name in sorted(absent) if results is not None]
    at_hand = {name: items for name, items in fresh.items() if name not in absent}
    if at_hand:
        rows += tracked(_probed(config, at_hand), len(at_hand), "reading headers")
    rows = flag_clocks(rows)
    chunks = plan_chunks(rows, config.detect, first=len(collection.planned()))
    collection.plan(chunks, covers=fresh)
    return len(fresh)


def _absent_row(config: Config, results: Results, name: str, item: MediaItem) -> Row:
    """The Media row of a medium that only a results file knows."""
    capture = captured({}, given=item.captured_at, time_zone=config.detect.time_zone)
    when = {"captured_at": capture.at, "captured_at_text": capture.text, "captured_at_zone": capture.zone}
    return {**results.media_row(item), **when, "media_id": name, "num_duplicates": 0}


def _probed(config: Config, media: dict[str, list[MediaItem]]) -> Iterator[Row]:
    """Media rows of new media, probed by Ray tasks."""
    options = _source_options(config.detect)
    zone, max_bytes = config.detect.time_zone, config.detect.max_file_gb * 1e9

    def probe_batch(batch: Any) -> Any:
        rows = []
        with FrameSource(**options) as source:
            for name in batch["media_id"]:
                row = probe(media[name][0], source=source, time_zone=zone, max_file_bytes=max_bytes)
                row |= {"media_id": str(name), "num_duplicates": len(media[name]) - 1}
                rows.append(json.dumps(to_json(row)))
        return {"row": rows}

    dataset = ray.data.from_items([{"media_id": name} for name in media])
    where = selector(config.scale.decode_nodes)
    scanned = dataset.map_batches(probe_batch, batch_size=SCAN_BATCH, num_cpus=_cpus(config) / 2, label_selector=where)
    for row in scanned.iter_rows():
        yield from_json(json.loads(row["row"]))


def _work(config: Config, collection: Collection, results: Results | None) -> None:
    """Do the planned chunks that are not done."""
    finished = collection.finished()
    todo = [chunk for chunk in collection.planned() if chunk not in finished]
    if not todo:
        return
    path = None if results is None else str(results.path)

    def work(batch: Any) -> Any:
        (chunk,) = batch["chunk"]
        try:
            record = _worker(config.detect, collection, path).run(str(chunk))
        except WildrayError as error:
            return {"chunk": [chunk], "num_detections": [0], "error": [error_to_bytes(error)]}
        return {"chunk": [chunk], "num_detections": [record["num_detections"]], "error": [b""]}

    dataset = ray.data.from_items([{"chunk": chunk} for chunk in todo], override_num_blocks=len(todo))
    workers = ray.data.TaskPoolStrategy(size=min(config.scale.workers, len(todo)))
    where = selector(config.scale.decode_nodes)
    done = dataset.map_batches(work, batch_size=1, compute=workers, num_cpus=_cpus(config), label_selector=where)
    for record in tracked(done.iter_rows(), len(todo), "detecting"):
        raise_error_bytes(record["error"])
        logger.debug("chunk %s: %d boxes", record["chunk"], record["num_detections"])


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


def _judge(config: Config, failed: Sequence[Row], num_media: int) -> None:
    """Say which media failed; too many of them fail the stage."""
    for row in failed[:20]:
        logger.warning("%s: %s (%s)", row["status"], row["error"], row["uri"])
    if num_media and len(failed) / num_media > config.detect.max_failed:
        reasons = "\n  ".join(f"{row['status']}: {row['error']}" for row in failed[:5])
        raise StageError(
            f"{len(failed)} of {num_media} media could not be looked at, more than detect.max_failed = "
            f"{config.detect.max_failed:g} allows; the others are kept. The first reasons:\n  {reasons}"
        )

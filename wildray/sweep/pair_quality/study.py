"""A study of pair quality: every setting of a grid over every collection, each pair set mined and judged once.

In: a grid, collections with their truth, a store. Out: ``purity/<name>/results.json``, a row for each setting and
collection. Settings that come to the same pair set (a threshold that a linker does not use) are one piece of work; what
is judged is kept by the pairs' digest, so that a study that was killed goes on and another one with settings in common
takes them over. Ray tasks load a collection once and work through some of its settings. Nothing is decoded. Tune would
add a process and a record for each of thousands of points that take a tenth of a second.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from wildray.collection import Collection
from wildray.config import MineConfig
from wildray.errors import user_error
from wildray.mining.embedded import vectors_used
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.matching import MIN_IOU
from wildray.mining.naming import pairs_digest
from wildray.mining.truth import Truth
from wildray.progress import tracked
from wildray.store import Store
from wildray.sweep.pair_quality.footage import Judgeable
from wildray.sweep.pair_quality.spec import PairGrid

Settings = dict[str, Any]
"""Dotted names of mining settings to values."""

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised when pairs are judged differently from before, so that older figures are not taken for newer."""
SETTINGS_PER_TASK = 40
"""A task takes seconds, of which it spends less than one on loading."""
PLACE = "purity"


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        name: Of the study.
        num_collections: Collections of detections.
        num_points: Settings times collections: rows of the results.
        num_pair_sets: Different pair sets among them.
        num_mined: Those that were mined now; the others were judged before.
        num_decoded: Frames decoded.
        results: Path of the rows.
        seconds: Wall-clock time.
    """

    name: str
    num_collections: int
    num_points: int
    num_pair_sets: int
    num_mined: int
    num_decoded: int
    results: str
    seconds: float


@dataclass(frozen=True)
class _Piece:
    """A pair set that is to be mined and judged."""

    pairs: str
    config: MineConfig


def study(
    grid: PairGrid, collections: Sequence[Judgeable], store: Store, *, min_iou: float = MIN_IOU, seed: int = 0
) -> StudyResult:
    """Judge every setting of the grid over every collection.

    Args:
        grid: The settings.
        collections: Annotated detections.
        store: Has the detections, and takes the results.
        min_iou: Least overlap of a detection with the animal that it shows.
        seed: Of the intervals' draws.

    Raises:
        DataError: A truth is of other media, or cannot be read.
        StoreError: The store cannot be read or written.
    """
    begun = time.monotonic()
    with store.lease(f"purity-{grid.name}"):
        rows: list[dict[str, Any]] = []
        num_pair_sets = num_mined = 0
        for each in collections:
            loaded = each.load(store, min_iou=min_iou)
            key = _key(loaded, seed)
            pieces, points = _pieces(grid, each, store)
            left = [piece for piece in pieces.values() if not store.path(PLACE, *_place(piece.pairs, key)).is_file()]
            logger.info(
                "purity: %s: %d settings, %d pair sets, %d to mine", each.name, len(points), len(pieces), len(left)
            )
            for _ in tracked(_judged(each, loaded, left, store, key, seed=seed), len(left), each.name):
                num_mined += 1
            num_pair_sets += len(pieces)
            rows += _rows(each, loaded, points, store, key)
        content = {
            "name": grid.name,
            "description": grid.description,
            "grid": {name: list(values) for name, values in grid.grid.items()},
            "base": grid.config().mine.model_dump(mode="json"),
            "min_iou": min_iou,
            "rows": rows,
        }
        path = store.write_text(json.dumps(content), PLACE, grid.name, "results.json")
    result = StudyResult(
        name=grid.name,
        num_collections=len(collections),
        num_points=len(rows),
        num_pair_sets=num_pair_sets,
        num_mined=num_mined,
        num_decoded=sum(each.num_decoded for each in collections),
        results=str(path),
        seconds=time.monotonic() - begun,
    )
    logger.info(
        "purity: %d settings over %d collections are %d pair sets, %d mined now; decoded frames %d; %.1f s",
        len(grid.points()), len(collections), num_pair_sets, num_mined, result.num_decoded, result.seconds,
    )  # fmt: skip
    return result


def _key(loaded: AnnotatedCollection, seed: int) -> str:
    """What the figures of a pair set depend on besides the pairs."""
    facts = [VERSION, loaded.truth.digest, loaded.min_iou, seed]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=4).hexdigest()


def _place(pairs: str, key: str) -> tuple[str, str]:
    return ".judged", f"{pairs}-{key}.json"


def _pieces(grid: PairGrid, each: Judgeable, store: Store) -> tuple[dict[str, _Piece], list[tuple[Settings, str]]]:
    """Pair sets by digest, and every setting with the digest of its pair set."""
    source = store.collection("detections", each.detections)
    finished = source.finished()
    pieces: dict[str, _Piece] = {}
    points = []
    for settings in grid.points():
        config = grid.config(settings).mine
        digest = pairs_digest(config, each.detections, finished, vectors_used(config, source))
        pieces.setdefault(digest, _Piece(digest, config))
        points.append((settings, digest))
    return pieces, points


def _judged(
    each: Judgeable, loaded: AnnotatedCollection, pieces: Sequence[_Piece], store: Store, key: str, *, seed: int
) -> Iterator[str]:
    """Do the pieces by tasks of Ray; gives the digest of each that is done."""
    detections, truth = store.collection("detections", each.detections), ray.put(loaded.truth)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = min(SETTINGS_PER_TASK, max(1, -(-len(pieces) // cpus)))
    waiting = [
        _task.remote(detections, truth, pieces[begin : begin + size], key, loaded.min_iou, seed)
        for begin in range(0, len(pieces), size)
    ]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            for names in ray.get(done):
                yield from names
    except ray.exceptions.RayError as error:
        known = user_error(error)
        if known is None:
            raise
        raise known from None
    finally:
        for task in waiting:
            ray.cancel(task)


@ray.remote(num_cpus=1, max_retries=2)
def _task(
    detections: Collection, truth: Truth, pieces: Sequence[_Piece], key: str, min_iou: float, seed: int
) -> list[str]:
    """Truth comes along, since its files may lie on the driver's machine alone."""
    loaded = AnnotatedCollection(detections, truth, min_iou=min_iou)
    for piece in pieces:
        figures = loaded.figures(piece.config, seed=seed)
        detections.store.write_text(json.dumps(figures), PLACE, *_place(piece.pairs, key))
    return [piece.pairs for piece in pieces]


def _rows(
    each: Judgeable,
    loaded: AnnotatedCollection,
    points: Sequence[tuple[Settings, str]],
    store: Store,
    key: str,
) -> Iterator[dict[str, Any]]:
    """A row for every setting: where, what, and its figures."""
    minutes = loaded.footage_s / 60
    facts = {
        "collection": each.name,
        "footage": each.footage,
        "advised": each.advised,
        "detections": each.detections,
        "minutes": minutes,
        "frames_per_s": loaded.frames.num_rows / loaded.footage_s if loaded.footage_s else None,
        "num_frames": loaded.frames.num_rows,
    }
    judged: dict[str, Any] = {}
    for settings, digest in points:
        if digest not in judged:
            judged[digest] = store.read_json(PLACE, *_place(digest, key))
        figures = judged[digest]
        per_minute = figures["num_same"] / minutes if minutes else None
        yield {**facts, "settings": dict(settings), "pairs": digest, "right_per_minute": per_minute, **figures}

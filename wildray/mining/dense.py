"""The plan of the dense pass: where frames of the base pass show animals near each other, the file is looked at again.

In: the finished chunks of the base pass. Out: further chunks of the same collection, planned and recorded as all others
are, each of them beside one chunk of the base pass. What was looked at before is not looked at again: settings other
than before add the frames that they ask for beyond those that are there. So the settings of the dense pass are no part
of the collection's name, and boxes of the base pass are never made twice. The alternative, a collection for each
setting, would copy the base pass, crops and all, or scatter what every reader wants together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.config import DetectConfig
from wildray.mining.chunks import PART_CHUNKS, PART_ROWS, PLAN, windows
from wildray.mining.company import LOOK_FRAMES, Gaps, Spans, crowd_sizes, find_gaps, spans_of, within_budget
from wildray.mining.looks import CORNERS
from wildray.mining.sequences import rows_of
from wildray.progress import tracked
from wildray.schema import DETECTIONS, FRAMES, MEDIA, hash64

logger = logging.getLogger(__name__)

SETTINGS = {"dense_interval", "dense_where", "dense_near", "dense_min_score", "dense_budget"}
"""The settings of the dense pass."""
ANIMAL = "animal"
READERS = 16
"""Chunks read at a time: in object storage it is the waiting that takes long."""
UNKNOWN_FPS = 30.0
"""Taken where a file does not say: it bounds what a look at every frame costs."""

AGAIN_PLAN = pa.schema(
    [
        *PLAN,
        pa.field("again", pa.string(), nullable=False),
        pa.field("seen_in", pa.list_(pa.string()), nullable=False),
        pa.field("start_s", pa.list_(pa.float64()), nullable=False),
        pa.field("stop_s", pa.list_(pa.float64()), nullable=False),
        pa.field("interval_s", pa.float64(), nullable=False),
    ]
)
"""A row per look: ``looks.AGAIN`` beside the columns of a plan."""


@dataclass(frozen=True)
class _Chunk:
    """What one chunk of the base pass has to offer."""

    name: str
    media: pa.Table  # without rows where there are no gaps
    gaps: Gaps
    num_frames: int
    footage_s: float


def plan_again(
    config: DetectConfig, collection: Collection, finished: Mapping[str, Any], media_ids: npt.NDArray[np.bytes_]
) -> int:
    """Plan the dense pass over the chunks of the base pass that have not had it with these settings.

    Args:
        config: ``dense_interval`` is set.
        collection: All its planned chunks are finished.
        finished: Those, as their writers recorded them.
        media_ids: Of the call: chunks of the base pass that hold none of them are left for another call.

    Returns:
        Number of the chunks planned.
    """
    assert config.dense_interval is not None
    settings = config.digest(exclude=set(type(config).model_fields) - SETTINGS)
    noted = {chunk for note in collection.notes() if note.get("dense") == settings for chunk in note["chunks"]}
    todo = [chunk for chunk, record in finished.items() if "again" not in record and chunk not in noted]
    ids = pa.array(media_ids.astype(str), pa.string())
    with ThreadPoolExecutor(READERS) as pool:
        offers = pool.map(lambda name: _offers(config, collection, name, ids), todo)
        chunks = [chunk for chunk in tracked(offers, len(todo), "looking for company") if chunk is not None]
    if not chunks:
        return 0
    chosen = _chosen(chunks, config.dense_budget)
    parts = _parts(config, collection, finished, chunks, chosen)
    names = [chunk.name for chunk in chunks]
    first = len(collection.planned())
    record = f"{first:06d}-dense-{hash64([settings, *names]) & 0xFFFFFFFF:08x}"
    note = {"dense": settings, "chunks": names}
    return collection.plan_rows(parts, covers="media_id", record=record, note=note)


def _offers(config: DetectConfig, collection: Collection, name: str, media_ids: pa.Array) -> _Chunk | None:
    """What a chunk has to offer; None where it holds none of the media."""
    media = collection.read("media", MEDIA, chunks=[name])
    if not pc.any(pc.is_in(media["media_id"], media_ids)).as_py():
        return None
    columns = ["media_id", "frame_index", "time_s"]
    frames = collection.read("frames", FRAMES, columns=columns, chunks=[name])
    wanted = ["media_id", "frame_index", *CORNERS, "score", "category"]
    boxes = collection.read("detections", DETECTIONS, columns=wanted, chunks=[name])
    boxes = boxes.filter(
        pc.and_(pc.equal(boxes["category"], ANIMAL), pc.greater_equal(boxes["score"], config.dense_min_score))
    )
    of_frame, index, time_s = rows_of(frames["media_id"], media["media_id"]), *_numpy(frames, "frame_index", "time_s")
    usable = np.asarray(pc.and_(pc.equal(media["kind"], "video"), pc.equal(media["status"], "done")).to_numpy())
    order = np.lexsort((index, of_frame))
    order = order[usable[of_frame[order]]]
    media_of, index, time_s = of_frame[order], index[order].astype(np.int64), time_s[order].astype(np.float64)
    of_box, (box_index,) = rows_of(boxes["media_id"], media["media_id"]), _numpy(boxes, "frame_index")
    span = int(max(index.max(initial=0), box_index.max(initial=0))) + 1
    keys, wanted_keys = media_of * span + index, of_box * span + box_index.astype(np.int64)
    known = np.flatnonzero(np.isin(wanted_keys, keys))
    frame = np.searchsorted(keys, wanted_keys[known])
    by_frame = np.argsort(frame, kind="stable")
    xyxy = np.stack(_numpy(boxes, *CORNERS)).astype(np.float64)[:, known[by_frame]]
    where, near = config.dense_where, config.dense_near
    crowd = crowd_sizes(xyxy, frame[by_frame], len(order), where=where, near=near)
    (duration_s,) = _numpy(media, "duration_s")
    gaps = find_gaps(
        media_of,
        time_s,
        crowd,
        end_s=duration_s.astype(np.float64),
        step_s=_steps_s(config, media),
        aligned=_aligned(config),
    )
    footage_s = float(np.nansum(duration_s.astype(np.float64)[usable]))
    return _Chunk(name, media if len(gaps.cost) else media.slice(0, 0), gaps, frames.num_rows, footage_s)


def _chosen(chunks: Sequence[_Chunk], frames_per_s: float) -> list[npt.NDArray[np.bool_]]:
    """Which gaps of each chunk are looked at, given the frames that each second of footage may cost in the mean."""
    crowd = np.concatenate([chunk.gaps.crowd for chunk in chunks])
    cost = np.concatenate([chunk.gaps.cost for chunk in chunks])
    num_frames, footage_s = sum(chunk.num_frames for chunk in chunks), sum(chunk.footage_s for chunk in chunks)
    chosen = within_budget(crowd, cost, frames_per_s * footage_s)
    logger.info(
        "detect: %d frames of %.0f s of footage; looking closer at %d of %d spans between them, at most %d more frames "
        "(detect.dense_budget allows %d)",
        num_frames,
        footage_s,
        np.count_nonzero(chosen),
        len(chosen),
        cost[chosen].sum(),
        int(frames_per_s * footage_s),
    )
    ends = np.cumsum([len(chunk.gaps.crowd) for chunk in chunks])
    return np.split(chosen, ends[:-1])


def _parts(
    config: DetectConfig,
    collection: Collection,
    finished: Mapping[str, Any],
    chunks: Sequence[_Chunk],
    chosen: Sequence[npt.NDArray[np.bool_]],
) -> Iterator[pa.Table]:
    """Parts of the plan, tables of ``AGAIN_PLAN``."""
    seen_in = {chunk.name: [chunk.name] for chunk in chunks}
    for name, record in finished.items():
        if record.get("again") in seen_in:
            seen_in[record["again"]].append(name)
    number = len(collection.planned())
    tables: list[pa.Table] = []
    for chunk, some in zip(chunks, chosen, strict=True):
        if not some.any():
            continue
        for looks in _chunks(config, chunk.media, chunk.gaps.take(np.flatnonzero(some))):
            tables.append(
                _rows(config, chunk.media, looks, number=number, again=chunk.name, seen_in=seen_in[chunk.name])
            )
            number += 1
            if len(tables) == PART_CHUNKS or sum(table.num_rows for table in tables) >= PART_ROWS:
                yield pa.concat_tables(tables)
                tables = []
    if tables:
        yield pa.concat_tables(tables)


def _chunks(config: DetectConfig, media: pa.Table, gaps: Gaps) -> Iterator[list[Spans]]:
    """The looks of each chunk: of one look, or of several that come to no more than one may hold."""
    last = [max(len(windows(row, config.window.seconds)) - 1, 0) for row in media.to_pylist()]
    last_window, step_s = np.array(last, dtype=np.int64), _steps_s(config, media)
    looks: list[Spans] = []
    for look in spans_of(gaps, window_s=config.window.seconds, last_window=last_window, step_s=step_s):
        if looks and sum(other.num_frames for other in looks) + look.num_frames > LOOK_FRAMES:
            yield looks
            looks = []
        looks.append(look)
    yield looks


def _rows(
    config: DetectConfig, media: pa.Table, looks: Sequence[Spans], *, number: int, again: str, seen_in: Sequence[str]
) -> pa.Table:
    """The plan of one chunk."""
    assert config.dense_interval is not None
    table = media.take(pa.array([look.media for look in looks], pa.int64()))
    name = f"{number:06d}-{hash64([again, config.dense_interval, *looks]) & 0xFFFFFFFF:08x}"
    columns = {
        "chunk": [name] * len(looks),
        "again": [again] * len(looks),
        "seen_in": [list(seen_in)] * len(looks),
        "start_s": [look.starts_s for look in looks],
        "stop_s": [look.stops_s for look in looks],
        "interval_s": [config.dense_interval.seconds] * len(looks),
    }
    for field in AGAIN_PLAN:
        if field.name in columns:
            table = table.append_column(field, pa.array(columns[field.name], field.type))
    return table


def _steps_s(config: DetectConfig, media: pa.Table) -> npt.NDArray[np.float64]:
    """(M,) time between the frames of a dense look at each file: no less than between two of its frames."""
    assert config.dense_interval is not None
    (fps,) = _numpy(media, "fps")
    rate = np.nan_to_num(fps.astype(np.float64), nan=UNKNOWN_FPS)
    steps: npt.NDArray[np.float64] = np.maximum(
        config.dense_interval.seconds, 1 / np.where(rate > 0, rate, UNKNOWN_FPS)
    )
    return steps


def _aligned(config: DetectConfig) -> bool:
    """Whether the frames at the base interval are among those at the dense one."""
    assert config.dense_interval is not None
    base, dense = config.base_interval.seconds, config.dense_interval.seconds
    if config.sampling != "exact" or dense == 0:
        return dense == 0
    return abs(base / dense - round(base / dense)) < 1e-9


def _numpy(table: pa.Table, *names: str) -> list[npt.NDArray[np.generic]]:
    return [np.asarray(table[name].to_numpy()) for name in names]

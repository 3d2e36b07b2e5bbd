"""Chunks of detection: which media are worked on and committed together.

In: Media rows that are new to the store, as a table. Out: parts of a plan, tables of the same rows ordered by camera
and time, with the chunk of each, which is bounded by minutes of footage. Chunks of a fixed number of files would hold
seconds of one collection and days of another. The rows stay columns all the way: as Python objects a million of them
would take gigabytes.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.config import DetectConfig
from wildray.mining.clock import clock_flags
from wildray.schema import CLOCK_FLAGS, MEDIA, hash64

STILL_S = 0.5
"""Footage that a still counts for in a chunk, in seconds: about the cost of one frame."""
MAX_CHUNKS = 50_000
"""Chunks of one call: where ``detect.chunk`` would make more, they are longer. Each is five files and a task."""
PART_ROWS = 16_384
PART_CHUNKS = 1_024
"""A part of a plan, which is one file, holds at most so many media (unless one chunk has more) and chunks."""

MAX_WINDOWS = 10_000
"""Parts that a file is worked on in at most, whatever its header says: 69 days in windows of 600 s."""

FLAGGED_ROWS = 65_536
"""Media whose clocks are judged at a time, unless one camera has more."""

Row = dict[str, Any]

PLAN = MEDIA.append(pa.field("chunk", pa.string(), nullable=False))
"""Columns of a plan."""
_WIDE = pa.schema([field.with_type(pa.large_string()) if field.type == pa.string() else field for field in MEDIA])
"""Of tens of millions of rows the addresses alone are more than the 2 GB that a column of plain strings can hold."""


def windows(row: Mapping[str, Any], window_s: float) -> list[tuple[float, float | None]]:
    """Parts of a file that are worked on one after the other.

    Args:
        row: A Media row.
        window_s: Longest part in seconds.

    Returns:
        (start_s, stop_s) of each; the last ends with the file (None), since containers misstate their duration.
        No windows where the file cannot be used.
    """
    if row["status"] != "done":
        return []
    count = math.ceil((row["duration_s"] or 0.0) / window_s) if row["kind"] == "video" else 1
    count = min(max(1, count), MAX_WINDOWS)
    starts = [index * window_s for index in range(count)]
    return [(start, starts[index + 1] if index + 1 < count else None) for index, start in enumerate(starts)]


def plan_chunks(media: pa.Table, config: DetectConfig, *, first: int) -> Iterator[pa.Table]:
    """Group media into chunks, and judge their clocks by each other.

    Args:
        media: New Media rows, in any order; ``clock_flag`` is set here.
        config: ``chunk`` bounds the footage of a chunk; a longer file is a chunk of its own.
        first: Number of the first chunk.

    Yields:
        Parts of the plan: tables of ``PLAN``, all rows of a chunk in one part.
    """
    if media.num_rows == 0:
        return
    media = media.cast(_WIDE).combine_chunks()
    order = pc.sort_indices(media, [(name, "ascending") for name in ("camera_id", "captured_at", "uri")])
    media = media.set_column(MEDIA.get_field_index("clock_flag"), _WIDE.field("clock_flag"), _clock_flags(media, order))
    footage_s = _footage_s(media).take(order).to_numpy()
    bounds = _bounds(footage_s.tolist(), _chunk_s(footage_s, config.chunk.seconds))
    begin = 0
    while begin < len(bounds) - 1:
        end = begin + 1
        while end < len(bounds) - 1 and end - begin < PART_CHUNKS and bounds[end + 1] - bounds[begin] <= PART_ROWS:
            end += 1
        part = media.take(order.slice(bounds[begin], bounds[end] - bounds[begin])).cast(MEDIA)
        yield _named(part, bounds[begin : end + 1], first + begin)
        begin = end


def _clock_flags(media: pa.Table, order: pa.Array) -> pa.Array:
    """The flags of Media rows that ``order`` sorts by camera; names and keys are objects for some cameras at a time."""
    cameras = media["camera_id"].combine_chunks().dictionary_encode()
    codes = cameras.indices.to_numpy()[order.to_numpy()]
    ends = [*(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
    flags = np.empty(len(codes), np.int8)
    begin = 0
    for end in ends:
        if end - begin >= FLAGGED_ROWS or end == len(codes):
            some = order.slice(begin, end - begin)
            uris = media["uri"].combine_chunks().take(some).to_pylist()
            captured_at_us = media["captured_at"].combine_chunks().take(some).cast(pa.int64()).to_pylist()
            found = clock_flags(codes[begin:end].tolist(), uris, captured_at_us)
            flags[some.to_numpy()] = [CLOCK_FLAGS.index(flag) for flag in found]
            begin = end
    return pa.DictionaryArray.from_arrays(flags, pa.array(CLOCK_FLAGS, pa.large_string())).cast(pa.large_string())


def _footage_s(media: pa.Table) -> pa.Array:
    known_s = pc.fill_null(media["duration_s"], 0.0)
    counted = pc.and_(pc.equal(media["kind"], "video"), pc.not_equal(known_s, 0.0))
    return pc.if_else(counted, known_s, STILL_S).combine_chunks()


def _chunk_s(footage_s: npt.NDArray[np.float64], chunk_s: float) -> float:
    """Footage of a chunk: as asked for, or so much that there are about ``MAX_CHUNKS``.

    A file counts for one chunk at the most, whatever its header says: one that claims to last a thousand years is no
    reason to put all others together.
    """
    for _ in range(64):
        longer_s = float(np.minimum(footage_s, chunk_s).sum()) / MAX_CHUNKS
        if longer_s <= 1.01 * chunk_s:
            break
        chunk_s = longer_s
    return chunk_s


def _bounds(footage_s: Sequence[float], chunk_s: float) -> list[int]:
    """First row of each chunk, and the number of rows."""
    bounds, so_far_s = [0], 0.0
    for index, length_s in enumerate(footage_s):
        if index > bounds[-1] and so_far_s + length_s > chunk_s:
            bounds.append(index)
            so_far_s = 0.0
        so_far_s += length_s
    return [*bounds, len(footage_s)]


def _named(part: pa.Table, bounds: Sequence[int], first: int) -> pa.Table:
    """A part with the names of its chunks, which follow from their number and their media."""
    ids = part["media_id"].to_pylist()
    sizes: npt.NDArray[np.int64] = np.diff(np.asarray(bounds))
    names = []
    for number, (begin, size) in enumerate(zip(np.cumsum(sizes) - sizes, sizes, strict=True), start=first):
        names.append(f"{number:06d}-{hash64(ids[begin : begin + size]) & 0xFFFFFFFF:08x}")
    return part.append_column(PLAN.field("chunk"), pa.array(np.repeat(names, sizes), pa.string()))


def from_json(row: Mapping[str, Any]) -> Row:
    """A Media row of a plan as JSON, which earlier versions wrote."""
    at = row["captured_at"]
    return {**row, "captured_at": dt.datetime.fromisoformat(at) if at is not None else None}

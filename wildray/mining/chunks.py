"""Chunks of detection: which media are worked on and committed together.

In: Media rows that are new to the store. Out: plans of chunks, ordered by camera and time and bounded by minutes of
footage, each a list of media with their windows. Chunks of a fixed number of files would hold seconds of one
collection and days of another.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

from wildray.config import DetectConfig
from wildray.schema import hash64

STILL_S = 0.5
"""Footage that a still counts for in a chunk, in seconds: about the cost of one frame."""

MAX_WINDOWS = 10_000
"""Parts that a file is worked on in at most, whatever its header says: 69 days in windows of 600 s."""

Row = dict[str, Any]


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


def plan_chunks(rows: Sequence[Row], config: DetectConfig, *, first: int) -> dict[str, Row]:
    """Group media into chunks.

    Args:
        rows: New Media rows, in any order.
        config: ``chunk`` bounds the footage of a chunk; a longer file is a chunk of its own.
        first: Number of the first chunk.

    Returns:
        Content by chunk id: ``media`` (rows as ``to_json`` writes them) and ``windows`` (a list per medium).
    """
    chunks: dict[str, Row] = {}
    group: list[Row] = []
    footage_s = 0.0

    def close() -> None:
        number = first + len(chunks)
        chunk = f"{number:06d}-{hash64(row['media_id'] for row in group) & 0xFFFFFFFF:08x}"
        parts = [windows(row, config.window.seconds) for row in group]
        chunks[chunk] = {"media": [to_json(row) for row in group], "windows": parts}

    for row in sorted(rows, key=_camera_and_time):
        length_s = (row["duration_s"] or STILL_S) if row["kind"] == "video" else STILL_S
        if group and footage_s + length_s > config.chunk.seconds:
            close()
            group, footage_s = [], 0.0
        group.append(row)
        footage_s += length_s
    if group:
        close()
    return chunks


def to_json(row: Mapping[str, Any]) -> Row:
    """A Media row with its time as text."""
    at = row["captured_at"]
    return {**row, "captured_at": at.isoformat() if at is not None else None}


def from_json(row: Mapping[str, Any]) -> Row:
    """The Media row that ``to_json`` wrote."""
    at = row["captured_at"]
    return {**row, "captured_at": dt.datetime.fromisoformat(at) if at is not None else None}


def _camera_and_time(row: Mapping[str, Any]) -> tuple[str, float, str]:
    at = row["captured_at"]
    return (row["camera_id"], at.timestamp() if at is not None else math.inf, row["uri"])

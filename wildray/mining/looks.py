"""Looks: which frames of a file are decoded together, which of them are new, and which say what the scene is like.

In: a planned row. Out: the looks of it: of the base pass one for each window of the file; of the dense pass the spans
of one window in which animals are near each other. A dense look decodes some frames of the base pass again, spread over
its whole window: against the few seconds of a span alone an animal that rests would be scenery, and its evidence of
motion would be of another kind than that of all other boxes. To keep pixels of the first pass for it would fill disks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.collection import Collection
from wildray.config import DetectConfig
from wildray.mining.chunks import Row, windows
from wildray.mining.detectors.clip import MAX_REFERENCES
from wildray.mining.sampling import Sampling
from wildray.schema import DETECTIONS, FRAMES

FIRST_PASS, DENSE_PASS = 0, 1
"""``sampling_pass`` of frames at the base interval, and of those between them where animals are."""

Span = tuple[float, float | None]
"""Start and stop in seconds of the file, half-open; None is its end."""

CORNERS = ["x1_px", "y1_px", "x2_px", "y2_px"]
AGAIN = ("again", "seen_in", "start_s", "stop_s", "interval_s")
"""What the plan of a dense look has beside the Media columns: the chunk of the base pass, all chunks that hold frames
of the file, its spans, and the interval."""


@dataclass(frozen=True)
class Look:
    """Frames of one file that are looked at together.

    Attributes:
        spans: Parts of the file, ascending.
        interval_s: Time between the frames.
        sampling: ``exact`` or ``keyframe``.
        sampling_pass: Of the frames that are new.
        seen: Numbers of the frames that were looked at before: their boxes are known.
        references: By number of the frame: (N, 4) boxes, in pixels, of the frames of before that say what the scene is
            like. Empty: the frames of the look themselves do.
    """

    spans: tuple[Span, ...]
    interval_s: float
    sampling: Sampling
    sampling_pass: int = FIRST_PASS
    seen: frozenset[int] = frozenset()
    references: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)


def looks(row: Row, config: DetectConfig, collection: Collection) -> Iterator[Look]:
    """The looks of a planned row.

    Args:
        row: A Media row, of the dense pass with the columns ``AGAIN``.
        config: ``window``, ``base_interval`` and ``sampling``.
        collection: Of the row, with the chunks of the base pass where it is of the dense one.
    """
    if "again" in row:
        yield _again(row, config, collection)
        return
    for span in windows(row, config.window.seconds):
        yield Look((span,), config.base_interval.seconds, config.sampling)


def _again(row: Row, config: DetectConfig, collection: Collection) -> Look:
    frames, detections = _seen(collection, tuple(row["seen_in"]))
    frames = frames.filter(pc.equal(frames["media_id"], row["media_id"]))
    spans = tuple(zip(row["start_s"], row["stop_s"], strict=True))
    start_s, stop_s = _window_of(spans[0][0], windows(row, config.window.seconds))
    times_s, base = frames["time_s"].to_numpy(), frames["sampling_pass"].to_numpy() == FIRST_PASS
    typical = base & (times_s >= start_s) & (times_s < (np.inf if stop_s is None else stop_s))
    indices = np.sort(frames["frame_index"].to_numpy()[typical])
    if len(indices) > MAX_REFERENCES:
        indices = indices[np.linspace(0, len(indices) - 1, MAX_REFERENCES).round().astype(np.intp)]
    own = pc.and_(
        pc.equal(detections["media_id"], row["media_id"]), pc.is_in(detections["frame_index"], pa.array(indices))
    )
    boxes = detections.filter(own)
    corners = np.stack([boxes[name].to_numpy() for name in CORNERS], axis=1).astype(np.float32)
    of_box = boxes["frame_index"].to_numpy()
    return Look(
        spans,
        row["interval_s"],
        "exact",
        DENSE_PASS,
        frozenset(frames["frame_index"].to_pylist()),
        {index: corners[of_box == index] for index in indices.tolist()},
    )


@functools.lru_cache(maxsize=1)
def _seen(collection: Collection, chunks: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """What chunks hold of frames and boxes, kept from one row to the next. They never change once they are recorded."""
    columns = ["media_id", "frame_index", "time_s", "sampling_pass"]
    frames = collection.read("frames", FRAMES, columns=columns, chunks=chunks)
    boxes = collection.read("detections", DETECTIONS, columns=["media_id", "frame_index", *CORNERS], chunks=chunks)
    return frames, boxes


def _window_of(time_s: float, parts: list[Span]) -> Span:
    """The window that a time lies in."""
    return next((start, stop) for start, stop in parts if stop is None or time_s < stop)

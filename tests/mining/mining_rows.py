"""Rows as detect writes them, made from short descriptions, and a store that holds them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from wildray.collection import Collection
from wildray.schema import DETECTIONS, FRAMES, MEDIA, hash64
from wildray.store import Store

BEGIN = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


@dataclass
class Clip:
    """A file: ``boxes[i]`` are the boxes of the i-th frame looked at, each ``(x1, y1, x2, y2)`` or with more fields."""

    name: str
    boxes: Sequence[Sequence[Any]]
    camera: str = "cam"
    at_s: float | None = 0.0
    times_s: Sequence[float] | None = None
    fps: float = 10.0
    every: int = 1
    flag: str = "ok"
    kind: str = "video"
    passes: Sequence[int] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def media_id(self) -> str:
        return f"{hash64((self.name,)) & (2**64 - 1):032x}"

    def times(self) -> list[float]:
        if self.times_s is not None:
            return list(self.times_s)
        return [index * self.every / self.fps for index in range(len(self.boxes))]

    def indices(self) -> list[int]:
        return [round(time * self.fps) for time in self.times()]


def box(clip: Clip | str, frame: int, ordinal: int = 0) -> int:
    """Detection id of a clip's box by the number of its frame looked at and its place there."""
    return hash64((clip if isinstance(clip, str) else clip.name, frame, ordinal))


def media_table(clips: Iterable[Clip]) -> pa.Table:
    rows = []
    for clip in clips:
        at = None if clip.at_s is None else BEGIN + dt.timedelta(seconds=clip.at_s)
        times = clip.times()
        row = {
            "media_id": clip.media_id,
            "uri": f"/media/{clip.camera}/{clip.name}",
            "kind": clip.kind,
            "camera_id": clip.camera,
            "captured_at": at,
            "clock_flag": clip.flag if at is not None else "none",
            "fps": clip.fps,
            "duration_s": times[-1] + 1 / clip.fps if times and clip.kind == "video" else None,
            "num_duplicates": 0,
            "status": "done",
        }
        rows.append({**row, **clip.extra})
    return pa.Table.from_pylist(rows, schema=MEDIA)


def frames_table(clips: Iterable[Clip]) -> pa.Table:
    rows = [
        {
            "media_id": clip.media_id,
            "frame_index": index,
            "time_s": time,
            "sampling_pass": clip.passes[number] if clip.passes else 0,
            "num_boxes": len(clip.boxes[number]),
            "infrared": False,
        }
        for clip in clips
        for number, (index, time) in enumerate(zip(clip.indices(), clip.times(), strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=FRAMES)


def detections_table(clips: Iterable[Clip]) -> pa.Table:
    rows = []
    for clip in clips:
        for number, (index, time) in enumerate(zip(clip.indices(), clip.times(), strict=True)):
            for ordinal, item in enumerate(clip.boxes[number]):
                corners, more = (item[:4], item[4]) if len(item) > 4 else (item, {})
                row = {
                    "detection_id": box(clip, number, ordinal),
                    "media_id": clip.media_id,
                    "camera_id": clip.camera,
                    "frame_index": index,
                    "time_s": time,
                    "x1_px": corners[0],
                    "y1_px": corners[1],
                    "x2_px": corners[2],
                    "y2_px": corners[3],
                    "score": 0.9,
                    "category": "animal",
                    "crop_pack": "pack",
                    "crop_row": len(rows),
                }
                rows.append({**row, **more})
    return pa.Table.from_pylist(rows, schema=DETECTIONS)


def add_chunk(collection: Collection, chunk: str, clips: Sequence[Clip]) -> None:
    """Publish a chunk of clips as detect does."""
    media, frames, detections = media_table(clips), frames_table(clips), detections_table(clips)
    collection.write("media", chunk, media)
    collection.write("frames", chunk, frames)
    collection.write("detections", chunk, detections)
    record = {
        "media": media["media_id"].to_pylist(),
        "num_media": media.num_rows,
        "num_frames": frames.num_rows,
        "num_detections": detections.num_rows,
    }
    collection.done(chunk, record)


def make_store(folder: Any, chunks: Sequence[Sequence[Clip]], *, digest: str = "d0") -> Store:
    """A store with one collection of detections."""
    store = Store.open(folder, create=True)
    collection = store.collection("detections", digest)
    collection.begin({"detect": {}})
    for number, clips in enumerate(chunks):
        add_chunk(collection, f"{number:06d}-aaaaaaaa", clips)
    return store

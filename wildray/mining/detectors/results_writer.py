"""From the store's tables to a MegaDetector results file, which Timelapse, MegaDetector's own programs and others read.

In: Media, Frames and Detections rows. Out: JSON of format 1.6. Every category is written, people too, since category 2
is how users filter for privacy. The alternative, a table of our own, would be one more format for them to learn.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.errors import DataError
from wildray.mining.detectors.results_file import SCHEME, ListedFile, to_json

logger = logging.getLogger(__name__)

UNKNOWN_RATE = 1.0
"""Frames per second of a video of one frame whose file does not say: the format asks for a number above 0."""


def write_results(
    path: str | os.PathLike[str],
    *,
    media: pa.Table,
    frames: pa.Table,
    detections: pa.Table,
    info: Mapping[str, object],
    root: str | None = None,
) -> None:
    """Write a results file.

    Args:
        path: Where; an existing file is replaced, whole or not at all.
        media: Rows of ``schema.MEDIA``; one entry each.
        frames: Rows of ``schema.FRAMES`` of these media.
        detections: Rows of ``schema.DETECTIONS`` of these media; without a frame size the corners are relative.
        info: Entries of ``info``, such as ``detector`` and ``detection_completion_time``.
        root: Files below it get names relative to it; others keep their address.

    Raises:
        DataError: The file cannot be written.
    """
    frame_rows, box_rows, none = _rows_by_medium(frames), _rows_by_medium(detections), np.zeros(0, np.intp)
    files = []
    for medium in media.to_pylist():
        name = medium["media_id"]
        seen, found = frames.take(frame_rows.get(name, none)), detections.take(box_rows.get(name, none))
        files.append(_listed(medium, seen, found, root))
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(to_json(files, info), encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"The results file {target} cannot be written: {error.strerror or error}.") from None
    logger.info("%s: %d media, %d boxes", target, len(files), len(detections))


def _rows_by_medium(table: pa.Table) -> dict[str, npt.NDArray[np.intp]]:
    """Rows of each medium, by its id, in order of frame, then as they stand."""
    if len(table) == 0:
        return {}
    names = np.asarray(table["media_id"].to_pylist(), dtype=np.str_)
    order = np.lexsort((table["frame_index"].to_numpy(), names))
    values, starts = np.unique(names[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _listed(medium: Mapping[str, Any], frames: pa.Table, boxes: pa.Table, root: str | None) -> ListedFile:
    failed = medium["status"] != "done"
    indices = np.unique(frames["frame_index"].to_numpy()).astype(np.int32)
    corners = np.stack([boxes[f"{name}_px"].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    size = np.stack([boxes[name].fill_null(1).to_numpy() for name in ("width_px", "height_px")], axis=1)
    return ListedFile(
        file=_name(medium["uri"], root),
        failure=(medium["error"] or medium["status"]) if failed else None,
        frame_rate=_rate(medium, frames),
        frames=indices,
        frame_number=boxes["frame_index"].to_numpy().astype(np.int32),
        xyxy=np.clip(corners / np.tile(size, 2), 0, 1).astype(np.float32),
        score=boxes["score"].to_numpy(),
        category=np.asarray(boxes["category"].to_pylist(), dtype=np.str_),
    )


def _name(uri: str, root: str | None) -> str:
    if uri.startswith(SCHEME):
        return uri.removeprefix(SCHEME).partition("/")[2]
    if root is not None and PurePath(uri).is_relative_to(root):
        return PurePath(uri).relative_to(root).as_posix()
    return uri


def _rate(medium: Mapping[str, Any], frames: pa.Table) -> float | None:
    """Frames per second of a video, from its frames where the file does not say; None for stills."""
    if medium["kind"] == "still" or (medium["kind"] == "results" and medium["fps"] is None):
        return None
    if medium["fps"]:
        return float(medium["fps"])
    index, time_s = frames["frame_index"].to_numpy(), frames["time_s"].to_numpy()
    if len(index) < 2 or np.ptp(time_s) <= 0:
        return UNKNOWN_RATE
    return float(np.ptp(index) / np.ptp(time_s))

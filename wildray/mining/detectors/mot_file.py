"""MOT ground-truth files: which animal stood where in every frame, read with every value checked.

In: text of lines ``frame,id,x,y,w,h[,conf[,...]]`` (MOTChallenge: frames from 1, pixels of the top left corner and the
size), and beside it, if wanted, colours of the same boxes. Out: arrays, or a ``DataError`` that names the line. Lines
of a confidence of 0, which the format marks as not to be counted, are left out. The alternative, ``numpy.loadtxt``,
takes a frame of 1e300 and says nothing of the line that is wrong.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from wildray.errors import DataError

MAX_BYTES = 256 << 20
"""About eight million boxes."""
MAX_COLOUR_BYTES = 4 << 30
"""Of the colours' file once unpacked, which may be a thousand times what lies on disk."""
MAX_FRAME = 2_000_000
"""Last frame of a file: 22 hours at 25 frames a second. Every frame up to the last one is a row."""
MAX_SIDE_PX = 100_000.0
"""Corners and sides beyond this are a slip of the pen, or meant ill."""
MAX_SHOWN = 60
"""Characters of a wrong line that a message shows."""
ENDINGS = ("_gt_mot", "_mot_gt", "_gt", "_mot")
"""What follows a medium's name in the name of its ground-truth file."""
NUM_COLOURS = 54
"""Numbers that describe the colours of a box: see the column ``colour`` of the detections."""


@dataclass(frozen=True, eq=False)
class MotTruth:
    """The boxes of one ground-truth file, ordered by frame, identity and place.

    Attributes:
        name: Of the medium: the file's without its ending (of ``NAME/gt/gt.txt`` it is ``NAME``).
        digest: 32 hex digits, of the bytes of the file and of the colours beside it.
        frame_index: (N,) int64 from 0.
        identity: (N,) int64.
        xyxy_px: (N, 4) float64 corners, half-open, in pixels; they may reach beyond the frame.
        colour: (N, 54) uint8, or None where no colours lie beside it.
        has_colour: (N,) bool, which of them are known.
        frame_size_px: Width and height that the colours' file states, or None.
    """

    name: str
    digest: str
    frame_index: npt.NDArray[np.int64]
    identity: npt.NDArray[np.int64]
    xyxy_px: npt.NDArray[np.float64]
    colour: npt.NDArray[np.uint8] | None
    has_colour: npt.NDArray[np.bool_]
    frame_size_px: tuple[int, int] | None

    @property
    def num_frames(self) -> int:
        """Frames up to the last one that shows an animal."""
        return int(self.frame_index.max()) + 1


def medium_name(path: Path) -> str:
    """Name of the medium that a ground-truth file tells of."""
    if path.stem == "gt" and path.parent.name == "gt":
        return path.parent.parent.name or "gt"
    return next((path.stem.removesuffix(end) for end in ENDINGS if path.stem.endswith(end)), path.stem) or path.stem


def read_mot(path: Path) -> MotTruth:
    """Read a ground-truth file, and the colours of its boxes where ``NAME.npz`` lies beside it.

    Raises:
        DataError: It cannot be read, holds no boxes, or a line is not of the format; the message names the line.
    """
    content = _bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no MOT ground-truth file: it is not text ({error}).") from None
    rows: dict[tuple[int, int], tuple[float, float, float, float]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = _row(path, number, line)
        if row is None:
            continue
        key, box = row
        if key in rows:
            _wrong(path, number, line, f"identity {key[1]} once in frame {key[0]}; an earlier line has it too")
        rows[key] = box
    if not rows:
        raise DataError(f"{path} holds no boxes. Expected lines of frame,id,x,y,w,h with frames from 1.")
    keys = sorted(rows)
    xywh = np.array([rows[key] for key in keys])
    frames = np.array([frame for frame, _ in keys], dtype=np.int64)
    digest = hashlib.blake2b(content, digest_size=16)
    name = medium_name(path)
    beside = path.with_name(f"{name}.npz")
    colour, known, size = None, np.zeros(len(keys), dtype=bool), None
    if beside.is_file():
        colour, known, size = _colours(beside, frames, xywh)
        digest.update(hashlib.blake2b(_bytes(beside), digest_size=16).digest())
    return MotTruth(
        name=name,
        digest=digest.hexdigest(),
        frame_index=frames - 1,
        identity=np.array([identity for _, identity in keys], dtype=np.int64),
        xyxy_px=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        colour=colour,
        has_colour=known,
        frame_size_px=size,
    )


def _bytes(path: Path) -> bytes:
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_BYTES:
            raise DataError(
                f"{path}: {num_bytes / 1e6:.0f} MB, expected at most {MAX_BYTES / 1e6:.0f} MB. Split it by video."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _row(path: Path, number: int, line: str) -> tuple[tuple[int, int], tuple[float, float, float, float]] | None:
    """(frame, identity) and box of a line; None where it is marked as not to be counted."""
    parts = line.split(",") if "," in line else line.split()
    if not 6 <= len(parts) <= 16:
        _wrong(path, number, line, "frame,id,x,y,w,h")
    try:
        values = [float(part) for part in parts[:7]]
    except ValueError:
        _wrong(path, number, line, "numbers: frame,id,x,y,w,h")
    if not all(math.isfinite(value) for value in values):
        _wrong(path, number, line, "finite numbers")
    frame, identity, x, y, width, height = values[:6]
    if frame != int(frame) or not 1 <= frame <= MAX_FRAME:
        _wrong(path, number, line, f"a whole frame number from 1 to {MAX_FRAME:,}")
    if identity != int(identity) or not 0 <= identity < 2**31:
        _wrong(
            path, number, line, "an identity, a whole number from 0; -1 stands in files of detections, which have none"
        )
    if not 0 < width <= MAX_SIDE_PX or not 0 < height <= MAX_SIDE_PX or max(abs(x), abs(y)) > MAX_SIDE_PX:
        _wrong(path, number, line, f"a box in pixels, with sides above 0 and at most {MAX_SIDE_PX:,.0f}")
    if len(values) > 6 and values[6] == 0:
        return None
    return (int(frame), int(identity)), (x, y, width, height)


def _wrong(path: Path, number: int, line: str, expected: str) -> NoReturn:
    shown = repr(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}...")
    raise DataError(f"{path} is no MOT ground-truth file: line {number} is {shown}, expected {expected}.")


def _colours(
    path: Path, frames: npt.NDArray[np.int64], xywh: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], tuple[int, int] | None]:
    """(N, 54) colours of the boxes of equal frame and place, (N,) whether there is one, and the frame's size."""
    expected = "expected arrays frame (M,), xywh (M, 4) and rgb54 (M, 54)"
    try:
        with zipfile.ZipFile(path) as packed:
            num_bytes = sum(member.file_size for member in packed.infolist())
        if num_bytes > MAX_COLOUR_BYTES:
            raise ValueError(f"{num_bytes / 1e9:.1f} GB once unpacked, more than {MAX_COLOUR_BYTES / 1e9:.1f} GB")
        with np.load(path, allow_pickle=False) as stored:
            of_frame, places, colours = (np.asarray(stored[name]) for name in ("frame", "xywh", "rgb54"))
            size = np.asarray(stored["size"]) if "size" in stored.files else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"The colours {path} cannot be read ({error}): {expected}.") from None
    num = len(of_frame) if of_frame.ndim == 1 else -1
    numeric = all(np.issubdtype(array.dtype, np.number) for array in (of_frame, places, colours))
    if not numeric or places.shape != (num, 4) or colours.shape != (num, NUM_COLOURS):
        shapes = f"frame {of_frame.shape}, xywh {places.shape}, rgb54 {colours.shape}"
        raise DataError(f"The colours {path} hold {shapes}: {expected}.")
    rows = {(int(frame), *place): row for row, (frame, place) in enumerate(zip(of_frame, _pixels(places), strict=True))}
    found = [rows.get((int(frame), *place), -1) for frame, place in zip(frames, _pixels(xywh), strict=True)]
    row = np.array(found, dtype=np.int64)
    known = row >= 0
    if not known.any():
        raise DataError(f"The colours {path} are of other boxes: none has the frame and place of a box of the truth.")
    rounded = np.clip(np.rint(np.nan_to_num(colours)), 0, 255).astype(np.uint8)[row]
    rounded[~known] = 0
    whole = size is not None and size.shape == (2,) and (size > 0).all() and (size <= MAX_SIDE_PX).all()
    return rounded, known, (int(size[0]), int(size[1])) if whole and size is not None else None


def _pixels(xywh: npt.NDArray[np.generic]) -> list[tuple[float, ...]]:
    return [tuple(place) for place in np.asarray(xywh, dtype=np.float64).round(2).tolist()]

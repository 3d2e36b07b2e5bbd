"""The wildlife-datasets metadata table: read, checked, explained.

In: a CSV of the re-identification community's columns (``image_id``, ``identity``, ``path``; optional ``bbox``
[x, y, w, h] in pixels, ``encounter``, ``orientation``, ``species``, ``camera_id`` ...). Out: rows of text, with the
absolute path and the box of each image. Every column stays text: pandas' guessing would turn the individual "007"
into 7 and the encounter "124" into 124.0 as soon as one cell is empty.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from wildray.errors import DataError, nearest

REQUIRED = ("image_id", "identity", "path")
"""Columns without which the table says nothing."""
UNKNOWN = "unknown"
"""The word of the format for an individual whose identity is not known; an empty cell means the same."""
MAX_SHOWN = 80
"""Characters of a wrong cell that a message shows."""
_NO_BOX = frozenset({"", "nan", "none", "null", "[]"})


@dataclass(frozen=True)
class Metadata:
    """A metadata table as it was written.

    Attributes:
        path: The file.
        content: Its bytes.
        columns: Names of the columns, in order.
        rows: A mapping of column to text per row; a missing value is "".
    """

    path: Path
    content: bytes
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    @property
    def folder(self) -> Path:
        """What the paths in the table are relative to."""
        return self.path.parent

    def of(self, identities: Collection[str]) -> Metadata:
        """The rows of some individuals, as a table of its own; DataError where there are none."""
        rows = tuple(row for row in self.rows if row["identity"] in identities)
        if not rows:
            raise DataError(f"{self.path} has no image of any of the {len(identities)} individuals that are wanted.")
        return replace(self, rows=rows, content=self.content + "\0".join(sorted(identities)).encode())

    def image_path(self, row: Mapping[str, str]) -> Path:
        """Absolute path of a row's image (links are followed: they are the user's own, the table may not be)."""
        return self.folder / row["path"]


def read_metadata(path: Path) -> Metadata:
    """Read and check a metadata table; touches no image.

    Args:
        path: CSV file in UTF-8, comma-separated, with a header line.

    Raises:
        DataError: It cannot be read, is no CSV, lacks a required column, holds no row, has an image_id twice, or a path
            that leaves its folder.
    """
    content = _read(path)
    columns, rows = _parse(path, content)
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DataError(_missing_columns(path, columns, missing))
    if not rows:
        raise DataError(f"{path} has a header and no rows, expected a row per image.")
    counts = Counter(row["image_id"] for row in rows if row["image_id"])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{path} has {len(twice)} image_ids more than once, such as {twice[0]!r}. "
            "Each row needs its own: number the crops of one image, for example."
        )
    for line, row in enumerate(rows, start=2):
        _check_inside(path, line, row["path"])
    return Metadata(path=path.absolute(), content=content, columns=columns, rows=rows)


def parse_bbox(text: str) -> tuple[float, float, float, float] | None:
    """The box of a ``bbox`` cell as corners.

    Args:
        text: ``[x, y, w, h]`` in pixels as JSON; "", nan, null, none and [] mean no box.

    Returns:
        (x1, y1, x2, y2) in pixels, half-open, or None for no box.

    Raises:
        DataError: It is not four finite numbers, or width or height are not positive.
    """
    if text.strip().lower() in _NO_BOX:
        return None
    try:
        values = json.loads(text)
        if isinstance(values, str):  # a JSON string that holds a list: quoted twice by some exporters
            values = json.loads(values)
        x, y, width, height = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise DataError(f"bbox: got {text[:MAX_SHOWN]!r}, expected [x, y, width, height] in pixels") from None
    if not all(math.isfinite(value) for value in (x, y, width, height)) or width <= 0 or height <= 0:
        raise DataError(f"bbox: got {text[:MAX_SHOWN]!r}, expected finite numbers and a width and height above 0")
    return x, y, x + width, y + height


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, expected a metadata CSV, such as {path}/metadata.csv.") from None
    except OSError as error:
        raise DataError(
            f"The metadata {path} cannot be read: {error.strerror}. Give the path of a CSV with the columns "
            f"{', '.join(REQUIRED)}."
        ) from None
    if not content.strip():
        raise DataError(f"{path} is empty, expected a CSV with the columns {', '.join(REQUIRED)}.")
    return content


def _parse(path: Path, content: bytes) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start}): save it as CSV UTF-8, or convert it with iconv."
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is no text file, expected a CSV with the columns {', '.join(REQUIRED)}.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = tuple(name.strip() for name in next(reader))
        if len(set(header)) < len(header):
            raise DataError(f"{path} names a column twice: {', '.join(header)}.")
        rows = []
        for cells in reader:
            if not cells:  # a blank line
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path} line {reader.line_num}: got {len(cells)} cells, expected {len(header)} as in the header. "
                    "Put double quotes around values that hold a comma."
                )
            rows.append({name: cell.strip() for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not CSV: {error}.") from None
    return header, tuple(rows)


def _missing_columns(path: Path, columns: tuple[str, ...], missing: list[str]) -> str:
    message = f"{path} has no column {', '.join(repr(name) for name in missing)}"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        mark = "a semicolon" if ";" in columns[0] else "a tab"
        return f"{message}: its cells seem to be separated by {mark}; save it with commas."
    near = nearest(missing[0], columns)
    return f"{message}; it has {', '.join(columns)}. {near if near.startswith('Did') else ''}".rstrip()


def _check_inside(path: Path, line: int, relative: str) -> None:
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in posix.parts or ".." in windows.parts:
        raise DataError(
            f"{path} row {line}: the path {relative!r} leads out of the folder of the metadata. "
            "Paths are relative to it and may not hold '..': move the metadata above the images."
        )

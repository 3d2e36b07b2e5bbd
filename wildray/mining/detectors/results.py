"""Results that were computed elsewhere: MegaDetector JSON as a detector, with or without the media at hand.

In: a results file, and the media found so far. Out: which media it speaks of, their frames and boxes. A medium that is
not at hand has the address ``results:<digest>/<file>``, so that what depends on its address depends on the results
file's bytes and the file's name. A results file may be anybody's: names in it open what lies in its own folder and
below, and elsewhere only what the user named too. The alternative, to refuse boxes without pixels, would shut out
mining and statistics, which need none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from wildray.errors import DataError
from wildray.mining.boxes import Boxes
from wildray.mining.detectors.results_file import MAX_BYTES, SCHEME, ListedFile, Reader
from wildray.mining.inputs import MediaItem, camera_of, kind_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Results:
    """The boxes of a results file.

    Attributes:
        path: Absolute path of the results file.
        digest: 32 hex digits, of its bytes.
        detector: What it says of the detector; empty where it says nothing.
        files: What it says of each still and video, by name with forward slashes.
        frame_size_px: Width and height of frames that are not at hand; None where unknown.
        camera_is_name: Whether a medium's camera is in its name: the folders in it, or else the whole.
        paths: Where there are several files, all of them.
    """

    path: Path
    digest: str
    detector: str
    files: Mapping[str, ListedFile]
    frame_size_px: tuple[int, int] | None = None
    camera_is_name: bool = False
    paths: tuple[Path, ...] = ()

    def items(self, at_hand: Sequence[MediaItem] = ()) -> list[MediaItem]:
        """The media it speaks of, in its order.

        Args:
            at_hand: Media found elsewhere than beside the results file; those it does not speak of are left out.

        Returns:
            One item per still and video: of the file at hand where there is one (among ``at_hand``, where it says, or
            beside the results file), and of the address ``results:<digest>/<file>`` otherwise.

        Raises:
            DataError: Two files at hand could both be the one that is meant.
        """
        given: dict[str, MediaItem] = {}
        for item in at_hand:
            name = self._name_of(item.uri)
            if name is None:
                logger.warning("%s: %s says nothing of it; left out", item.uri, self.path.name)
            elif given.setdefault(name, item).uri != item.uri:
                raise DataError(
                    f"Two files could be {name!r} of {self.path}: {given[name].uri} and {item.uri}. "
                    "Name only one of the folders."
                )
        outside = [name for name in self.files if name not in given and self._beside(name) is None]
        if outside:
            logger.warning(
                "%s names %d files outside its folder, such as %r; they are not opened. If they are yours, name their "
                "folder beside the results file.", self.path, len(outside), outside[0]
            )  # fmt: skip
        return [given[name] if name in given else self._item(name) for name in self.files]

    def _beside(self, name: str) -> str | None:
        """Where a file of that name lies by the results file; None where that would be outside its folder."""
        path = os.path.normpath(self._folder / name)  # an absolute name stays as it is
        return path if PurePath(path).is_relative_to(self._folder) else None

    @property
    def _folder(self) -> PurePath:
        return PurePath(os.path.normpath(self.path.parent))

    def entry(self, uri: str) -> ListedFile | None:
        """What it says of a medium; None where nothing."""
        name = self._name_of(uri)
        return None if name is None else self.files[name]

    def is_absent(self, uri: str) -> bool:
        """Whether the address is that of a medium which is not at hand."""
        return uri.startswith(SCHEME)

    def media_row(self, item: MediaItem) -> dict[str, Any]:
        """The facts of a medium that is not at hand, as columns of ``schema.MEDIA`` but clock, id, duplicates."""
        listed = self._listed(item.uri)
        width_px, height_px = self.frame_size_px or (None, None)
        return {
            "uri": item.uri,
            "kind": "results",
            "camera_id": item.camera_id,
            "fps": listed.frame_rate,
            "num_frames": listed.num_frames if listed.is_video else 1,
            "duration_s": listed.num_frames / listed.frame_rate if listed.num_frames and listed.frame_rate else None,
            "width_px": width_px,
            "height_px": height_px,
            "num_bytes": None,
            "status": "done" if listed.failure is None else "unreadable",
            "error": listed.failure,
        }

    def frames_of(self, uri: str) -> tuple[int, ...]:
        """The frames of a medium that were looked at, ascending; a still's is 0."""
        return tuple(self._listed(uri).frames.tolist())

    def boxes_of(self, uri: str, frame_index: int, *, frame_size_px: tuple[int, int] | None = None) -> Boxes:
        """The boxes of one frame.

        Args:
            uri: A medium that it speaks of.
            frame_index: Place of the frame in presentation order.
            frame_size_px: Width and height of the frame; None: the boxes stay relative, 0 to 1.
        """
        listed = self._listed(uri)
        return _scaled(listed, np.flatnonzero(listed.frame_number == frame_index), frame_size_px)

    def frames_at(
        self, uri: str, *, frame_size_px: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, float, Boxes, list[bytes | None]]]:
        """Every frame looked at: its number, time in seconds (by its frame rate), and its boxes as ``boxes_of``.

        The last is the colours of each box, 54 bytes, or None where they are not known.
        """
        listed = self._listed(uri)
        order = np.argsort(listed.frame_number, kind="stable")
        first = np.searchsorted(listed.frame_number[order], listed.frames, side="left")
        after = np.searchsorted(listed.frame_number[order], listed.frames, side="right")
        for frame, begin, end in zip(listed.frames.tolist(), first, after, strict=True):
            time_s = frame / listed.frame_rate if listed.frame_rate is not None else 0.0
            yield frame, time_s, _scaled(listed, order[begin:end], frame_size_px), _colours(listed, order[begin:end])

    def _listed(self, uri: str) -> ListedFile:
        listed = self.entry(uri)
        if listed is None:
            raise DataError(f"{self.path} says nothing of {uri}. Give the results file that was computed from it.")
        return listed

    def _name_of(self, uri: str) -> str | None:
        """The name under which it speaks of a medium: the whole, the path beside it, or else the longest end."""
        if uri.startswith(SCHEME):
            name = uri.removeprefix(f"{SCHEME}{self.digest}/")
            return name if name in self.files else None
        plain = uri.replace("\\", "/")
        if plain in self.files:
            return plain
        beside = os.path.relpath(uri, self.path.parent)
        if beside in self.files:
            return beside
        parts = PurePath(plain).parts
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return next((end for end in ends if end in self.files), None)

    def _item(self, name: str) -> MediaItem:
        beside = self._beside(name)
        path = beside or os.path.normpath(self._folder / name)
        kind = "video" if self.files[name].is_video or kind_of(name) == "video" else "still"
        camera = camera_of(path, str(self._folder if beside else PurePath(path).parent))
        if self.camera_is_name:
            camera = name.rpartition("/")[0] or name
        uri = beside if beside and os.path.isfile(beside) else f"{SCHEME}{self.digest}/{name}"
        return MediaItem(uri, "video" if kind == "video" else "still", camera)


def read_results(path: str | os.PathLike[str], *, frame_size: str | None = None) -> Results:
    """Read a MegaDetector results file.

    Args:
        path: JSON of format 1.x.
        frame_size: ``WIDTHxHEIGHT`` in pixels of frames that are not at hand.

    Raises:
        DataError: It cannot be read or is not of the format; the message says where it goes wrong.
    """
    begun = time.monotonic()
    where = Path(path).expanduser().absolute()
    try:
        num_bytes = where.stat().st_size
        if num_bytes > MAX_BYTES:
            raise DataError(
                f"{where}: {num_bytes / 1e9:.1f} GB, expected a results file of at most {MAX_BYTES / 1e9:.1f} GB. "
                "Split it by folder."
            )
        content = where.read_bytes()
    except OSError as error:
        raise DataError(f"The results file {where} cannot be read: {error.strerror or error}.") from None
    reader = Reader(where)
    info, listed = reader.read(content)
    files = {file.file.replace("\\", "/").removeprefix("./"): file for file in listed}
    if len(files) < len(listed):
        raise DataError(f"{where}: two entries of 'images' name one file, once with / and once with \\. Remove one.")
    width, _, height = (frame_size or "").partition("x")
    detector = info.get("detector")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if reader.num_without_area:
        logger.warning("%s: %d boxes without area left out", where, reader.num_without_area)
    num_boxes = sum(len(file.score) for file in listed)
    logger.info("%s: %d media, %d boxes in %.1f s", where, len(files), num_boxes, time.monotonic() - begun)
    size = (int(width), int(height)) if frame_size else None
    return Results(where, digest, detector if isinstance(detector, str) else "", files, size)


def _colours(listed: ListedFile, rows: Any) -> list[bytes | None]:
    if listed.colour is None or listed.has_colour is None:
        return [None] * len(rows)
    known = listed.has_colour[rows]
    return [colour.tobytes() if has else None for colour, has in zip(listed.colour[rows], known, strict=True)]


def _scaled(listed: ListedFile, rows: Any, frame_size_px: tuple[int, int] | None) -> Boxes:
    boxes = Boxes(listed.xyxy[rows], listed.score[rows], listed.category[rows])
    if frame_size_px is None:
        return boxes
    return dataclasses.replace(boxes, xyxy_px=boxes.xyxy_px * np.array([*frame_size_px, *frame_size_px], np.float32))

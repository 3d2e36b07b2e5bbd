"""The media of a collection: which files, of which cameras, captured when.

In: files, folders, globs, ``file://`` addresses and manifests as the user wrote them. Out: media items in a fixed
order, and Media rows (``schema.MEDIA``) with the facts of each file. What is wrong with one file becomes the status of
its row. The alternative, an error, would let one bad file of ten thousand end the stage.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.errors import MediaError
from wildray.mining.clock import captured, clock_flag
from wildray.mining.inputs import PLAYLIST_SUFFIXES, MediaItem, find_media
from wildray.mining.sandbox import FrameSource

__all__ = ["MediaItem", "check_file", "find_media", "identify", "media_id", "media_id_of_name", "probe"]

logger = logging.getLogger(__name__)

_HASHED_BYTES = 1 << 20
_THREADS = 8
_AT_ONCE = 256
"""Media that a thread identifies in one go: a task for each of a million would take more memory than the ids."""

_PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<MPD", b"<smil", b"<asx", b"[Reference]", b"<playlist")


def media_id(path: str) -> str:
    """32 hex digits that depend on a file's size, first and last MiB.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "big"))
        digest.update(file.read(_HASHED_BYTES))
        if size > _HASHED_BYTES:
            file.seek(max(_HASHED_BYTES, size - _HASHED_BYTES))
            digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()


def media_id_of_name(uri: str) -> str:
    """32 hex digits for a medium whose bytes cannot be read: they depend on its address alone."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def identify(uris: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Ids of media, (N,) of 32 hex digits: of the bytes where those can be read, of the address elsewhere."""
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(_identified, (uris[first : first + _AT_ONCE] for first in range(0, len(uris), _AT_ONCE)))
        return np.concatenate([np.empty(0, "S32"), *parts])


def _identified(uris: Sequence[str]) -> npt.NDArray[np.bytes_]:
    ids = np.empty(len(uris), "S32")
    for index, uri in enumerate(uris):
        try:
            ids[index] = media_id(uri) if os.path.getsize(uri) > 0 else media_id_of_name(uri)
        except OSError:
            logger.debug("%s cannot be read", uri)
            ids[index] = media_id_of_name(uri)
    return ids


def check_file(path: str, *, max_file_bytes: float) -> None:
    """Refuse what no decoder should see.

    Args:
        path: Local path.
        max_file_bytes: Larger files are refused.

    Raises:
        MediaError: ``missing``, ``empty`` (0 bytes), ``too_large``, ``refused`` (playlists, by name or content) or
            ``unreadable`` (no plain file, no permission).
    """
    try:
        if not os.path.exists(path):
            raise MediaError(f"{path}: no such file.", "missing")
        if not os.path.isfile(path):
            raise MediaError(f"{path}: not a plain file.")
        size = os.path.getsize(path)
        if size == 0:
            raise MediaError(f"{path}: a file of 0 bytes.", "empty")
        if size > max_file_bytes:
            raise MediaError(
                f"{path}: {size / 1e9:.2f} GB, more than detect.max_file_gb = {max_file_bytes / 1e9:g}.", "too_large"
            )
        with open(path, "rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}.") from None
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    lowered = start.lower()
    listed = any(lowered.startswith(word.lower()) for word in _PLAYLIST_STARTS)
    if lowered.startswith(b"<?xml"):
        listed = any(word.lower() in lowered for word in _PLAYLIST_STARTS if word.startswith(b"<"))
    if listed or Path(path).suffix.lower() in PLAYLIST_SUFFIXES:
        raise MediaError(
            f"{path}: a playlist, which names other files or addresses. Give the video files themselves.", "refused"
        )


def probe(
    item: MediaItem, *, source: FrameSource, time_zone: str = "UTC", max_file_bytes: float = 64e9
) -> dict[str, Any]:
    """The Media row of one file, without looking at its frames.

    Args:
        item: The file.
        source: Where it is opened.
        time_zone: IANA name of the zone of clocks that do not say theirs.
        max_file_bytes: Larger files get the status ``too_large``.

    Returns:
        A row of ``schema.MEDIA``. ``status`` is ``done`` where the file could be opened; else ``error`` says why not.
        The clock is judged by itself: ``clock.flag_clocks`` over all rows sees those that run backwards.
    """
    row: dict[str, Any] = {
        "media_id": media_id_of_name(item.uri),
        "uri": item.uri,
        "kind": item.kind,
        "camera_id": item.camera_id,
        "fps": None,
        "num_frames": None,
        "duration_s": None,
        "width_px": None,
        "height_px": None,
        "num_bytes": None,
        "num_duplicates": 0,
        "status": "done",
        "error": None,
    }
    tags: dict[str, str] = {}
    try:
        _check_name(item.uri)
        check_file(item.uri, max_file_bytes=max_file_bytes)
        row["num_bytes"] = os.path.getsize(item.uri)
        row["media_id"] = media_id(item.uri)
        facts = _checked(source.probe(item.uri, item.kind), item.uri)
        tags = facts.pop("tags")
        row.update(facts)
    except MediaError as error:
        row.update(status=error.status, error=str(error))
    except OSError as error:
        row.update(status="unreadable", error=f"{item.uri}: {error.strerror or error}.")
    capture = captured(tags, given=item.captured_at, time_zone=time_zone)
    row.update(captured_at=capture.at, captured_at_text=capture.text, captured_at_zone=capture.zone)
    row["clock_flag"] = clock_flag(capture.at)
    return {name: _as_text(value) if isinstance(value, str) else value for name, value in row.items()}


_FACTS: dict[str, tuple[type, ...]] = {
    "fps": (int, float, type(None)),
    "num_frames": (int, type(None)),
    "duration_s": (int, float, type(None)),
    "width_px": (int, type(None)),
    "height_px": (int, type(None)),
    "tags": (dict,),
}


def _checked(facts: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """The facts as far as they are of a Media row: whoever breaks a decoder may have written them."""
    wrong = {name: facts.get(name) for name, kinds in _FACTS.items() if not isinstance(facts.get(name), kinds)}
    wrong |= {name: value for name, value in facts.items() if isinstance(value, int | float) and not abs(value) < 2**53}
    wrong |= {name: facts[name] for name in ("width_px", "height_px") if not wrong and (facts[name] or 0) >= 2**31}
    if wrong or not all(isinstance(value, str) for value in facts["tags"].values()):
        raise MediaError(f"{uri}: the decoder gave facts that are none ({str(wrong)[:80]}).", "crashed")
    return {name: facts[name] for name in _FACTS}


def _check_name(uri: str) -> None:
    """Refuse names that no table can hold: on Linux a file's name is any bytes."""
    written = _as_text(uri)
    if written != uri:
        raise MediaError(
            f"{written}: its name is not UTF-8. Rename the file or folder, then run detect again.", "refused"
        )


def _as_text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()

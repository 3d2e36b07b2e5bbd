"""What the user named, as a list of media items.

In: files, folders, globs, ``file://`` addresses, manifests (CSV or Parquet). Out: one item per file, each once, in a
fixed order, with the camera that the manifest or the folder says. Links to folders are not followed and hidden files
passed over (cards written to by macOS are full of ``._`` doubles). The alternative, a camera per innermost folder,
would merge the ``100EKTAM`` folders that every camera of a maker has.
"""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from wildray.errors import ConfigError, DataError
from wildray.mining.clock import natural_key, parse_time, zone_of
from wildray.mining.manifest import MANIFEST_SUFFIXES, read_manifest
from wildray.mining.video import Kind

VIDEO_SUFFIXES = frozenset(
    (
        ".avi",
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".mkv",
        ".webm",
        ".asf",
        ".wmv",
        ".mpg",
        ".mpeg",
        ".mts",
        ".m2ts",
        ".ts",
        ".3gp",
        ".flv",
        ".mjpg",
        ".mjpeg",
        ".dv",
        ".ogv",
    )
)
STILL_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".mpo"))
PLAYLIST_SUFFIXES = frozenset(
    (".m3u8", ".m3u", ".pls", ".mpd", ".ffconcat", ".xspf", ".asx", ".wax", ".wvx", ".smil", ".sdp")
)

_CARD_FOLDER = re.compile(r"DCIM|[1-9]\d\d(?=\d*[A-Z_])[0-9A-Z_]{5}")
"""Folders that cameras make themselves (Design rule for Camera File system): counters, not places."""


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One file of a collection.

    Attributes:
        uri: Absolute local path.
        kind: ``video`` or ``still``.
        camera_id: The manifest's word, else the folder.
        captured_at: The manifest's words, if any.
    """

    uri: str
    kind: Kind
    camera_id: str
    captured_at: str | None = None


def find_media(inputs: Sequence[str], *, time_zone: str = "UTC") -> list[MediaItem]:
    """List the media that the inputs name.

    Args:
        inputs: Files, folders (searched through), globs (``**`` too), ``file://`` addresses, manifests with the column
            ``uri`` and, if wanted, ``camera_id`` and ``captured_at``; relative paths in them count from their folder.
        time_zone: IANA name of the zone of times without one; only checked here.

    Returns:
        Items ordered by camera, then path with numbers in numerical order; each path once, as first named. Files that a
        manifest lists are there even where they do not exist.

    Raises:
        ConfigError: Nothing was named, an input does not exist or is of an unknown kind, an address is not local.
        DataError: A folder or glob without media, a manifest that is unreadable or lacks a column, or has a bad time.
    """
    zone_of(time_zone)
    if not inputs:
        raise ConfigError("No media were named. Give files, folders, globs or a manifest (CSV or Parquet).")
    direct: list[str] = []
    items: list[MediaItem] = []
    for text in inputs:
        path = _local_path(text)
        suffix = _suffix(path)
        if os.path.isdir(path):
            items += _from_folder(path, named=text)
        elif os.path.exists(path) and suffix in MANIFEST_SUFFIXES:
            items += _from_manifest(path, time_zone=time_zone)
        elif os.path.exists(path):
            if kind_of(path) is None:
                raise ConfigError(f"{text}: got a file of the unknown kind {suffix!r}. {_KNOWN}")
            direct.append(path)
        elif glob.has_magic(path):
            items += _from_glob(path, named=text)
        else:
            raise ConfigError(
                f"{text}: no such file or folder. Check the spelling; quote globs that are to be expanded here."
            )
    items += _from_files(direct)
    unique: dict[str, MediaItem] = {}
    for item in items:
        unique.setdefault(item.uri, item)
    of_camera = functools.cache(natural_key)  # one key for all files of a camera
    return sorted(unique.values(), key=lambda item: (of_camera(item.camera_id), natural_key(item.uri)))


_KNOWN = (
    f"Known: {' '.join(sorted(VIDEO_SUFFIXES))} {' '.join(sorted(STILL_SUFFIXES))}, manifests "
    f"{' '.join(sorted(MANIFEST_SUFFIXES))}."
)


def kind_of(path: str) -> Kind | None:
    """``video`` or ``still`` by the name; playlists count as videos, and are refused when opened; None otherwise."""
    suffix = _suffix(path)
    if suffix in STILL_SUFFIXES:
        return "still"
    return "video" if suffix in VIDEO_SUFFIXES or suffix in PLAYLIST_SUFFIXES else None


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def camera_of(path: str, root: str) -> str:
    """The camera of a file: its folder from the root on, without the folders that cameras make themselves.

    Args:
        path: Absolute path of the file.
        root: Absolute path of a folder above it.

    Returns:
        Such as ``site1/camA``; for files of the root itself the root's own name, or the nearest above it that a person
        gave.
    """
    folder = PurePath(path).parent
    parts = list(folder.relative_to(root).parts)
    while parts and _CARD_FOLDER.fullmatch(parts[-1].upper()):
        parts.pop()
    if parts:
        return "/".join(parts)
    names = [name for name in PurePath(root).parts[1:] if not _CARD_FOLDER.fullmatch(name.upper())]
    return names[-1] if names else "camera"


def _local_path(text: str) -> str:
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", text)
    if scheme is None:
        return os.path.abspath(os.path.expanduser(text))
    if scheme[1].lower() != "file":
        raise ConfigError(
            f"{text}: media are read from local paths and file:// addresses. Mount or copy the {scheme[1]} place first."
        )
    address = urlsplit(text)
    if address.netloc not in ("", "localhost"):
        raise ConfigError(f"{text}: got the host {address.netloc!r}, expected file:///PATH on this machine.")
    return os.path.abspath(unquote(address.path))


def _from_folder(root: str, *, named: str) -> list[MediaItem]:
    items = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "$")))
        for name in sorted(names):
            kind = kind_of(name)
            if kind is not None and not name.startswith("."):
                path = os.path.join(folder, name)
                items.append(MediaItem(path, kind, camera_of(path, root)))
    if not items:
        raise DataError(f"{named}: no media in this folder or below. {_KNOWN}")
    return items


def _from_glob(pattern: str, *, named: str) -> list[MediaItem]:
    fixed = []
    for part in PurePath(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    root = str(PurePath(*fixed))
    items = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        kind = kind_of(path)
        if kind is not None and os.path.isfile(path):
            items.append(MediaItem(path, kind, camera_of(path, root)))
    if not items:
        raise DataError(f"{named}: no media match. {_KNOWN}")
    return items


def _from_files(paths: Iterable[str]) -> list[MediaItem]:
    """Files named one by one: the camera is the folder's name, with as much above it as tells equal names apart."""
    listed = list(paths)
    owner: dict[str, set[str]] = {}
    for path in listed:
        folder = os.path.dirname(path)
        owner.setdefault(camera_of(path, folder), set()).add(_placed_folder(folder))
    items = []
    for path in listed:
        name = camera_of(path, os.path.dirname(path))
        if len(owner[name]) > 1:
            name = camera_of(path, os.path.commonpath(sorted(owner[name])))
        kind = kind_of(path)
        assert kind is not None
        items.append(MediaItem(path, kind, name))
    return items


def _placed_folder(folder: str) -> str:
    while _CARD_FOLDER.fullmatch(os.path.basename(folder).upper()):
        folder = os.path.dirname(folder)
    return folder


def _from_manifest(path: str, *, time_zone: str) -> list[MediaItem]:
    folder = os.path.dirname(path)
    items = []
    cameras: dict[str, str] = {}  # one string for all files of a camera
    for number, row in enumerate(read_manifest(path), start=1):
        uri, camera, time = (row.get(name, "").strip() for name in ("uri", "camera_id", "captured_at"))
        if not uri:
            raise DataError(f"{path}: row {number} has no uri.")
        local = _local_path(uri if "://" in uri else os.path.join(folder, os.path.expanduser(uri)))
        kind = kind_of(local)
        if kind is None:
            raise DataError(f"{path}: row {number}: {uri!r} is of an unknown kind. {_KNOWN}")
        if time and parse_time(time, time_zone=time_zone) is None:
            raise DataError(
                f"{path}: row {number}: captured_at is {time!r}, expected such as 2024-05-01T06:30:00+02:00 "
                "(without the zone, detect.time_zone applies)."
            )
        if not camera:
            below = PurePath(local).is_relative_to(folder)
            camera = camera_of(local, folder if below else os.path.dirname(local))
        items.append(MediaItem(local, kind, cameras.setdefault(camera, camera), time or None))
    if not items:
        raise DataError(f"{path}: the manifest has no rows.")
    return items

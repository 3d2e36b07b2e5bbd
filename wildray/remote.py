"""Object storage as if it were a folder: s3://, gs:// and whatever else fsspec has a file system for.

In: a URI. Out: a path with pathlib's calls (universal_pathlib's), local copies of objects that libraries want as files,
and the storage's errors in words. An object is put whole or not at all, so that publishing needs no rename, and created
only where there is none, which is what a lease needs. Mounting a bucket as a folder would need no code here, but tears
files that are being written and knows no exclusive creation.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from wildray.errors import StoreError

MAX_ATTEMPTS = 10
"""Of a request that the storage does not answer or answers with its own failure; about a minute, by back-off."""
CACHE_BYTES = 20 * 1024**3
"""What local copies of objects may take; the ones used longest ago go first. WILDRAY_CACHE_GB says otherwise."""
EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs")}
"""Scheme to the library that fsspec takes for it, and to the extra of wildray that installs it."""
_STORAGE_MODULES = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "fsspec"}


def is_remote(uri: str | os.PathLike[str]) -> bool:
    """Whether a URI names object storage and no folder."""
    return "://" in str(uri) and not str(uri).startswith("file://")


def remote_path(uri: str) -> Path:
    """A place in object storage; it has pathlib's calls, though it is no ``pathlib.Path``.

    Raises:
        StoreError: The scheme is unknown, or the library that speaks it is not installed.
    """
    import fsspec
    from upath import UPath

    scheme = uri.partition("://")[0]
    if scheme not in fsspec.available_protocols():
        raise StoreError(f"Got {uri}, whose {scheme}:// is unknown; expected a folder, s3://BUCKET/... or gs://...")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        library, extra = EXTRAS.get(scheme, (f"fsspec's library for {scheme}", ""))
        hint = f"pip install 'wildray[{extra}]'" if extra else "install it"
        raise StoreError(f"{uri} needs {library}, which is not installed: {hint}.") from None
    return cast(Path, UPath(uri, **_options(scheme)))


def _options(scheme: str) -> dict[str, Any]:
    if scheme != "s3":
        return {"use_listings_cache": False} if scheme in EXTRAS else {}
    retries = {"mode": "standard", "max_attempts": MAX_ATTEMPTS}
    return {
        "use_listings_cache": False,  # other processes write
        "config_kwargs": {"retries": retries, "connect_timeout": 10, "read_timeout": 60},
    }


def is_storage_error(error: BaseException) -> bool:
    """Whether object storage, or the way to it, failed; its libraries have errors that are no OSError."""
    return type(error).__module__.partition(".")[0] in _STORAGE_MODULES


def in_words(error: BaseException) -> str:
    """What the storage said."""
    return " ".join(str(error).split()) or type(error).__name__


def put(source: Path, target: Path) -> None:
    """Put a local file where it belongs in object storage; readers see all of it or what was there before."""
    remote: Any = target
    remote.fs.put_file(str(source), remote.path)


def put_new(path: Path, content: bytes) -> None:
    """Create an object; FileExistsError where there is one."""
    remote: Any = path
    remote.fs.pipe_file(remote.path, content, mode="create")


def read_all(paths: list[Path]) -> list[bytes]:
    """Bytes of many files, side by side where they are remote."""
    if not paths or isinstance(paths[0], Path):
        return [path.read_bytes() for path in paths]
    remote: Any = paths[0]
    found = remote.fs.cat([path.path for path in cast(list[Any], paths)])
    return [found[remote.fs._strip_protocol(path.path)] for path in cast(list[Any], paths)]


def children(path: Path) -> list[Path]:
    """What a folder holds, in order of name; nothing where there is none."""
    try:
        return sorted(path.iterdir(), key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):  # object storage has no empty folders
        return []


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    if not isinstance(path, Path):
        remote: Any = path
        with contextlib.suppress(FileNotFoundError):
            remote.fs.rm(remote.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def seekable(path: Path) -> Iterator[BinaryIO]:
    """A file to be read here and there: a local one as it lies, a remote one in memory."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            yield file
    else:
        yield io.BytesIO(path.read_bytes())


def local_copy(path: Path) -> Path:
    """A file of this machine with the same bytes: the file itself, or a copy in the cache, made once per content.

    Raises:
        OSError: There is no such file, or no room for the copy.
    """
    if isinstance(path, Path):
        return path
    remote: Any = path
    facts = remote.fs.info(remote.path)
    version = next((str(facts[key]) for key in ("ETag", "etag", "generation", "mtime") if facts.get(key)), "")
    key = hashlib.blake2b(f"{path}\x1f{version}\x1f{facts['size']}".encode(), digest_size=16).hexdigest()
    copy = cache_folder() / key / path.name
    if copy.is_file():
        os.utime(copy)
        return copy
    copy.parent.parent.mkdir(parents=True, exist_ok=True)
    _make_room(copy.parent.parent, int(facts["size"]))
    copy.parent.mkdir(exist_ok=True)
    temporary = copy.with_name(f".{uuid.uuid4().hex[:8]}")
    try:
        remote.fs.get_file(remote.path, str(temporary))
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    return copy


def cache_folder() -> Path:
    """Where local copies of objects lie: ``objects`` in WILDRAY_CACHE, by default ~/.cache/wildray."""
    return Path(os.environ.get("WILDRAY_CACHE") or "~/.cache/wildray").expanduser().absolute() / "objects"


def _make_room(folder: Path, num_bytes: int) -> None:
    """Remove copies that were used longest ago until another fits; open ones stay readable to who has them open."""
    limit = int(float(os.environ.get("WILDRAY_CACHE_GB") or CACHE_BYTES / 1024**3) * 1024**3)
    found = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):
            facts = path.stat()
            found.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in found) + num_bytes
    for _, size, path in sorted(found):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another copy is on its way there
            path.parent.rmdir()
        total -= size

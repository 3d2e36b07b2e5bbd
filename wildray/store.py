"""Where things lie, and how they get there whole: the store.

In: a folder, or a place in object storage (s3://, gs://). Out: places for every artefact, files that are written under
temporary names and published whole, and collections of chunks (``wildray.collection``). A lease keeps two writers
apart.

A database would give transactions too, but not on s3:// and not to hundreds of readers without a server; a listing of
Parquet files would show half a chunk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wildray.collection import BEGUN, Collection
from wildray.errors import ConfigError, StageError, StoreError, nearest
from wildray.lease import held
from wildray.refusals import explained, parsed
from wildray.remote import is_remote, put, read_all, remote_path

MADE_BY = {"detections": "wildray detect MEDIA", "pairs": "wildray mine"}
"""The command that makes a stage's collections."""
MARK = ".wildray"
"""An object of a store in object storage that holds nothing else yet."""


def check_run_name(name: str) -> None:
    """Refuse, before anything is started, a name that cannot be a folder's.

    Args:
        name: Of a run: up to 100 letters, digits, dots, hyphens and underscores, not a dot or hyphen first.

    Raises:
        ConfigError: The name is another.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot be the name of a run: take 1 to 100 letters, digits, dots, hyphens and underscores, the "
            f"first of them no dot or hyphen."
        )


@dataclass(frozen=True)
class Store:
    """A store in a folder or in object storage. Small, picklable, and cheap to make: it opens nothing.

    Attributes:
        root: Absolute path of the folder, or URI.
    """

    root: str

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, create: bool = False) -> Store:
        """The store at a folder or in object storage.

        Args:
            uri: Folder, absolute or relative to the working directory; ``file://``, ``s3://`` and ``gs://`` too.
            create: Make the folder where there is none, and check that it can be written.

        Raises:
            StoreError: There is no such folder (without ``create``), it is a file, or it cannot be written.
        """
        text = os.fspath(uri).removeprefix("file://")
        root = remote_path(text.rstrip("/")) if is_remote(text) else Path(text).expanduser().absolute()
        with explained(root, "Looking for the store"):
            found, is_folder = root.exists(), root.is_dir()
        if found and not is_folder:
            raise StoreError(f"The store {root} is a file, expected a folder.")
        if not is_folder and not create:
            raise StoreError(f"There is no store at {root}. 'wildray detect MEDIA --store {uri}' makes one.")
        if create:
            with explained(root, "Making the store"):
                if isinstance(root, Path):
                    root.mkdir(parents=True, exist_ok=True)
                    probe = root / f".write-{uuid.uuid4().hex}"
                    probe.touch()
                    probe.unlink()
                else:  # has no empty folders; its mkdir would make a bucket of a mistyped name
                    (root / MARK).write_bytes(b"")
        return cls(str(root))

    @property
    def is_remote(self) -> bool:
        """Whether it is in object storage: what lies there is read through ``wildray.remote``, or its path's calls."""
        return is_remote(self.root)

    def path(self, *parts: str) -> Path:
        """Absolute path of a place in the store; refuses parts that would leave it."""
        inner = os.path.normpath("/".join(parts)) if parts else "."
        if inner.startswith(("..", "/")) or any(".." in part.split("/") for part in parts):
            raise StoreError(f"{'/'.join(parts)!r} would lie outside the store {self.root}.")
        return remote_path(self.root).joinpath(*parts) if self.is_remote else Path(self.root, *parts)

    def publish(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a file under a temporary name, beside its place or on this machine's disk, then move it there whole.

        Args:
            path: Where the file is to lie; a file that lies there is replaced.
            write: Called with the temporary path, of this machine.

        Raises:
            StoreError: The file system or object storage refuses; nothing is left behind.
        """
        if self.is_remote:
            with tempfile.TemporaryDirectory(prefix="wildray-") as folder, explained(path, "Writing"):
                local = Path(folder, path.name)
                write(local)
                put(local, path)
            return
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
        try:
            with explained(path, "Writing"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def write_table(self, table: pa.Table, *parts: str) -> Path:
        """Publish a table as Parquet; returns its path."""
        path = self.path(*parts)
        self.publish(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
        return path

    def write_text(self, text: str, *parts: str) -> Path:
        """Publish a text file; returns its path."""
        path = self.path(*parts)
        self.publish(path, lambda temporary: _write_text(temporary, text))
        return path

    def read_json(self, *parts: str) -> Any:
        """What a JSON file of the store holds; StoreError where it is missing or torn."""
        path = self.path(*parts)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror or error}).") from None
        return parsed(path, content)

    def read_table(self, path: Path, *, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the store.

        Args:
            path: Of the file.
            columns: The columns wanted as far as the file has them, or all.

        Raises:
            OSError: There is no such file, or it cannot be reached.
            pyarrow.ArrowException: It is no Parquet file.
        """
        source = pa.BufferReader(path.read_bytes()) if self.is_remote else path
        with pq.ParquetFile(source) as file:
            return file.read(columns=columns)

    def file_digest(self, *parts: str) -> str | None:
        """16 hex digits of a file's bytes, or None where there is none."""
        path = self.path(*parts)
        if not path.is_file():
            return None
        with explained(path, "Reading"), path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()

    def collection(self, stage: str, digest: str) -> Collection:
        """The chunks of one stage under one digest of settings."""
        return Collection(self, stage, digest)

    def newest(self, stage: str) -> str | None:
        """Digest of the collection of a stage that was worked on last, or None."""
        found = self.collections(stage)
        return found[-1] if found else None

    def choose(self, stage: str, digest: str | None, *, option: str) -> str:
        """Digest of the collection that was asked for, else of the one that was worked on last.

        Args:
            stage: ``detections`` or ``pairs``.
            digest: What was asked for; None: the newest.
            option: What asked for it, for the message.

        Raises:
            StageError: There is none yet.
            ConfigError: There is none of that digest.
        """
        known = self.collections(stage)
        if not known:
            raise StageError(f"The store {self.root} has no {stage} yet: run '{MADE_BY[stage]}' first.")
        if digest is not None and digest not in known:
            raise ConfigError(f"{option}: the store has no {stage} {digest!r}. {nearest(digest, known)}")
        return digest or known[-1]

    def collections(self, stage: str) -> list[str]:
        """Digests of a stage's collections, the one that was worked on last at the end."""
        paths = sorted(self.path(stage).glob("*/collection.json"))
        records = [parsed(path, content) for path, content in zip(paths, read_all(paths), strict=True)]
        # object storage keeps whole seconds of when it was written, too few to tell two apart
        begun = [
            (record.get(BEGUN) if isinstance(record, dict) else None) or path.stat().st_mtime_ns
            for path, record in zip(paths, records, strict=True)
        ]
        return [path.parent.name for _, path in sorted(zip(begun, paths, strict=True), key=lambda one: one[0])]

    def lease(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a name against other writers for as long as the block runs; StoreError where another writer has it."""
        path = self.path(".leases", f"{name}.json")
        with explained(path, "Taking the lease"):
            path.parent.mkdir(parents=True, exist_ok=True)
        return held(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)

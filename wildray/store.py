"""Where things lie, and how they get there whole: the store.

In: a folder, or a place in object storage (s3://, gs://). Out: places for every artefact, and *collections*: sets of
chunks that are planned, written under temporary names, published whole and recorded as done last. Readers follow the
records, never a listing, so a stage that is killed at any moment leaves either a whole chunk or none. A lease keeps two
writers apart.

A database would give transactions too, but not on s3:// and not to hundreds of readers without a server; a listing of
Parquet files would show half a chunk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wildray.errors import ConfigError, StoreError
from wildray.lease import held
from wildray.remote import children, in_words, is_remote, is_storage_error, put, read_all, remote_path

MARK = ".wildray"
"""An object of a store in object storage that holds nothing else yet."""
BEGUN = "begun_at_ns"
"""In a collection's settings: Unix time at which it was last worked on."""


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn a refusal of the operating system, or of object storage, into what the user can do about it."""
    try:
        yield
    except OSError as error:
        if not isinstance(path, Path) and error.errno != errno.ENOSPC:  # of this machine's disk, then
            raise _remote_failure(path, doing, error) from error
        hint = {
            28: "the disk is full: free some space, then run the same command again; what was finished is kept",
            13: "permission is denied: choose a --store that you may write to",
            30: "the file system is read-only: choose a --store that you may write to",
        }.get(error.errno or 0, "check that the --store is a folder that you may write to")
        raise StoreError(f"{doing} {path} failed ({error.strerror or error}): {hint}.") from error
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise _remote_failure(path, doing, error) from error


def _remote_failure(path: Path, doing: str, error: BaseException) -> StoreError:
    return StoreError(
        f"{doing} {path} failed ({in_words(error)}): check that the bucket is there, that its credentials are in the "
        f"environment of every node, and that it can be reached; then run the same command again, what was finished is "
        f"kept."
    )


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
        return _parsed(path, content)

    def read_table(self, path: Path, *, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the store.

        Args:
            path: Of the file.
            columns: The columns wanted, or all.

        Raises:
            OSError: There is no such file, or it cannot be reached.
            pyarrow.ArrowException: It is no Parquet file, or lacks a column.
        """
        source = pa.BufferReader(path.read_bytes()) if self.is_remote else path
        return pq.read_table(source, columns=columns, partitioning=None)

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

    def collections(self, stage: str) -> list[str]:
        """Digests of a stage's collections, the one that was worked on last at the end."""
        paths = sorted(self.path(stage).glob("*/collection.json"))
        records = [_parsed(path, content) for path, content in zip(paths, read_all(paths), strict=True)]
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


@dataclass(frozen=True)
class Collection:
    """The chunks of one stage under one digest, and the record of which are done.

    ``<stage>/<digest>/collection.json`` holds the settings; ``.chunks/<chunk>.plan.json`` what a chunk is to hold, or
    ``.chunks/<part>.plans``, a Parquet table, what a thousand are to; ``.chunks/<chunk>.done.json``,
    written last, what a chunk does hold.
    """

    store: Store
    stage: str
    digest: str

    def settings(self) -> Any:
        """The settings the collection was begun with."""
        settings = self.store.read_json(self.stage, self.digest, "collection.json")
        if isinstance(settings, dict):
            settings.pop(BEGUN, None)
        return settings

    def begin(self, settings: Mapping[str, object]) -> None:
        """Record the settings (and that this collection is the newest)."""
        text = json.dumps({**settings, BEGUN: time.time_ns()}, indent=1, sort_keys=True, default=str)
        self.store.write_text(text, self.stage, self.digest, "collection.json")

    def plan(self, chunks: Mapping[str, Mapping[str, object]], *, covers: Iterable[str] = ()) -> None:
        """Persist what a set of chunks is to hold, all of it or nothing.

        Args:
            chunks: Content by chunk id.
            covers: What the plan takes care of (media ids), which ``covered`` gives back.
        """
        for chunk, content in chunks.items():
            self.store.write_text(json.dumps(content, sort_keys=True), *self._place, f"{chunk}.plan.json")
        record = {"chunks": sorted(chunks), "covers": sorted(covers)}
        self.store.write_text(json.dumps(record), *self._place, f"{min(chunks)}.planned.json")

    def plan_rows(self, parts: Iterable[pa.Table], *, covers: str) -> None:
        """Persist what a set of chunks is to hold, as rows of tables, all of it or nothing.

        A file per chunk would make the plan of a large collection as slow to write as it is to carry out.

        Args:
            parts: Tables with a column ``chunk``; all rows of a chunk stand in one. Each becomes one file.
            covers: The column of what the plan takes care of, which ``covered`` gives back.
        """
        chunks_of: dict[str, list[str]] = {}
        for table in parts:
            chunks = pc.unique(table["chunk"]).to_pylist()
            part = f"{min(chunks)}-{uuid.uuid4().hex[:8]}"  # readers may keep a part: no name is given twice
            self.store.write_table(table, *self._place, f"{part}.plans")
            chunks_of[part] = chunks
        if chunks_of:
            record = {"parts": chunks_of, "covers_column": covers}
            first = min(min(chunks) for chunks in chunks_of.values())
            self.store.write_text(json.dumps(record), *self._place, f"{first}.planned.json")

    def done(self, chunk: str, content: Mapping[str, object]) -> None:
        """Record that a chunk is published: the last act of its writer."""
        self.store.write_text(json.dumps(content, sort_keys=True), *self._place, f"{chunk}.done.json")

    def planned(self) -> list[str]:
        """Ids of the planned chunks, in order."""
        return list(self.parts())

    def parts(self) -> dict[str, str | None]:
        """The planned chunks in order, and the part of a plan by rows that each stands in, or None."""
        found: dict[str, str | None] = {}
        for record in self._records(".planned.json").values():
            found |= dict.fromkeys(record.get("chunks", ()))
            found |= {chunk: part for part, chunks in record.get("parts", {}).items() for chunk in chunks}
        return dict(sorted(found.items()))

    def plan_of(self, chunk: str) -> Any:
        """What a planned chunk is to hold."""
        return self.store.read_json(*self._place, f"{chunk}.plan.json")

    def plan_part(self, part: str, *, columns: list[str] | None = None) -> pa.Table:
        """The rows of a part of a plan, or some of their columns."""
        path = self.store.path(*self._place, f"{part}.plans")
        try:
            return self.store.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"The plan {path} cannot be read ({error}). Remove the folder {path.parent} and run the stage again."
            ) from None

    def covered(self) -> set[str]:
        """Everything that the plans take care of."""
        return set(self.covering().to_pylist())

    def covering(self) -> pa.ChunkedArray:
        """The same as a column of strings: of millions a tenth of the memory."""
        found: list[pa.Array] = []
        for record in self._records(".planned.json").values():
            found.append(pa.array(record.get("covers", []), pa.string()))
            for part in record.get("parts", ()):
                column = record["covers_column"]
                found += self.plan_part(part, columns=[column])[column].chunks
        return pa.chunked_array(found, pa.string())

    def is_finished(self, chunk: str) -> bool:
        """Whether a chunk is recorded as done."""
        return self.store.path(*self._place, f"{chunk}.done.json").exists()

    def finished(self) -> dict[str, Any]:
        """Finished chunks by id, in order of id, as their writers recorded them."""
        return self._records(".done.json")

    @property
    def _place(self) -> tuple[str, str, str]:
        return (self.stage, self.digest, ".chunks")

    def _records(self, suffix: str) -> dict[str, Any]:
        folder = self.store.path(*self._place)
        with explained(folder, "Reading"):
            paths = [path for path in children(folder) if path.name.endswith(suffix) and not path.name.startswith(".")]
            contents = read_all(paths)
        records = {}
        for path, content in zip(paths, contents, strict=True):
            record = _parsed(path, content)
            if not isinstance(record, dict):
                raise StoreError(f"{path} is no record: it was altered. Remove it and run the stage again.")
            records[path.name.removesuffix(suffix)] = record
        return records

    def write(self, stage: str, chunk: str, table: pa.Table) -> None:
        """Publish a chunk's table; its writer's ``done`` makes it visible."""
        self.store.write_table(table, stage, self.digest, f"{chunk}.parquet")

    def read(
        self, stage: str, schema: pa.Schema, *, columns: list[str] | None = None, chunks: Iterable[str] | None = None
    ) -> pa.Table:
        """The rows of the finished chunks.

        Args:
            stage: Which of the collection's tables: media, frames, detections, pairs ...
            schema: What the table's columns are.
            columns: The columns wanted, or all.
            chunks: The chunks wanted, or all that are finished, in order.
        """
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        names = list(self.finished()) if chunks is None else list(chunks)
        tables = [wanted.empty_table()]
        for name in names:
            path = self.store.path(stage, self.digest, f"{name}.parquet")
            try:
                tables.append(self.store.read_table(path, columns=columns).cast(wanted))
            except (OSError, pa.ArrowException) as error:
                raise StoreError(
                    f"{path} cannot be read ({error}). "
                    f"Remove {self.stage}/{self.digest}/.chunks/{name}.done.json and run the stage again."
                ) from None
        return pa.concat_tables(tables)


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise StoreError(f"{path} is not JSON: it was altered. Remove it and run the stage again.") from None


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)

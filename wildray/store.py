"""Where things lie, and how they get there whole: the store.

In: a folder or URI. Out: places for every artefact, and *collections*: sets of chunks that are planned, written under
temporary names, published whole and recorded as done last. Readers follow the records, never a listing, so a stage
that is killed at any moment leaves either a whole chunk or none. A lease keeps two writers apart.

A database would give transactions too, but not on s3:// and not to hundreds of readers without a server; a listing of
Parquet files would show half a chunk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wildray.errors import ConfigError, StoreError
from wildray.lease import held


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's refusal into what the user can do about it."""
    try:
        yield
    except OSError as error:
        hint = {
            28: "the disk is full: free some space, then run the same command again; what was finished is kept",
            13: "permission is denied: choose a --store that you may write to",
            30: "the file system is read-only: choose a --store that you may write to",
        }.get(error.errno or 0, "check that the --store is a folder that you may write to")
        raise StoreError(f"{doing} {path} failed ({error.strerror or error}): {hint}.") from error


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
    """A store in a folder. Small, picklable, and cheap to make: it opens nothing.

    Attributes:
        root: Absolute path of the folder.
    """

    root: str

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, create: bool = False) -> Store:
        """The store at a folder.

        Args:
            uri: Folder, absolute or relative to the working directory; ``file://`` is understood.
            create: Make the folder where there is none, and check that it can be written.

        Raises:
            StoreError: There is no such folder (without ``create``), it is a file, or it cannot be written.
        """
        text = os.fspath(uri).removeprefix("file://")
        if "://" in text:
            scheme = text.partition("://")[0]
            raise StoreError(
                f"The store {text} is on {scheme}://, expected a folder: mount the bucket, or use a shared folder."
            )
        root = Path(text).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise StoreError(f"The store {root} is a file, expected a folder.")
        if not root.is_dir() and not create:
            raise StoreError(f"There is no store at {root}. 'wildray detect MEDIA --store {uri}' makes one.")
        if create:
            with explained(root, "Making the store"):
                root.mkdir(parents=True, exist_ok=True)
                probe = root / f".write-{uuid.uuid4().hex}"
                probe.touch()
                probe.unlink()
        return cls(str(root))

    def path(self, *parts: str) -> Path:
        """Absolute path of a place in the store; refuses parts that would leave it."""
        path = Path(self.root, *parts)
        if ".." in parts or not str(os.path.normpath(path)).startswith(self.root):
            raise StoreError(f"{'/'.join(parts)!r} would lie outside the store {self.root}.")
        return path

    def publish(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a file under a temporary name beside its place, then rename it there.

        Args:
            path: Where the file is to lie; a file that lies there is replaced.
            write: Called with the temporary path.

        Raises:
            StoreError: The file system refuses; nothing is left behind.
        """
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
            return json.loads(path.read_text())
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}).") from None
        except ValueError:
            raise StoreError(f"{path} is not JSON: it was altered. Remove it and run the stage again.") from None

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
        records = sorted(self.path(stage).glob("*/collection.json"), key=lambda path: (path.stat().st_mtime_ns, path))
        return records[-1].parent.name if records else None

    def lease(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a name against other writers for as long as the block runs; StoreError where another writer has it."""
        path = self.path(".leases", f"{name}.json")
        with explained(path, "Taking the lease"):
            path.parent.mkdir(parents=True, exist_ok=True)
        return held(path)


@dataclass(frozen=True)
class Collection:
    """The chunks of one stage under one digest, and the record of which are done.

    ``<stage>/<digest>/collection.json`` holds the settings; ``.chunks/<chunk>.plan.json`` what a chunk is to hold, and
    ``.chunks/<chunk>.done.json``, written last, what it does hold.
    """

    store: Store
    stage: str
    digest: str

    def settings(self) -> Any:
        """The settings the collection was begun with."""
        return self.store.read_json(self.stage, self.digest, "collection.json")

    def begin(self, settings: Mapping[str, object]) -> None:
        """Record the settings (and that this collection is the newest)."""
        self.store.write_text(
            json.dumps(settings, indent=1, sort_keys=True, default=str), self.stage, self.digest, "collection.json"
        )

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

    def done(self, chunk: str, content: Mapping[str, object]) -> None:
        """Record that a chunk is published: the last act of its writer."""
        self.store.write_text(json.dumps(content, sort_keys=True), *self._place, f"{chunk}.done.json")

    def planned(self) -> list[str]:
        """Ids of the planned chunks, in order."""
        return sorted(chunk for record in self._records(".planned.json").values() for chunk in record["chunks"])

    def plan_of(self, chunk: str) -> Any:
        """What a planned chunk is to hold."""
        return self.store.read_json(*self._place, f"{chunk}.plan.json")

    def covered(self) -> set[str]:
        """Everything that the plans take care of."""
        return {item for record in self._records(".planned.json").values() for item in record["covers"]}

    def finished(self) -> dict[str, Any]:
        """Finished chunks by id, in order of id, as their writers recorded them."""
        return self._records(".done.json")

    @property
    def _place(self) -> tuple[str, str, str]:
        return (self.stage, self.digest, ".chunks")

    def _records(self, suffix: str) -> dict[str, Any]:
        folder = self.store.path(*self._place)
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        wanted = [name for name in names if name.endswith(suffix) and not name.startswith(".")]
        records = {name.removesuffix(suffix): self.store.read_json(*self._place, name) for name in wanted}
        for name, record in records.items():
            if not isinstance(record, dict):
                path = self.store.path(*self._place, f"{name}{suffix}")
                raise StoreError(f"{path} is no record: it was altered. Remove it and run the stage again.")
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
                tables.append(pq.read_table(path, columns=columns, partitioning=None).cast(wanted))
            except (OSError, pa.ArrowException) as error:
                raise StoreError(
                    f"{path} cannot be read ({error}). "
                    f"Remove {self.stage}/{self.digest}/.chunks/{name}.done.json and run the stage again."
                ) from None
        return pa.concat_tables(tables)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)

"""Collections: sets of chunks that are planned, published whole, and recorded as done last.

In: a store, a stage, a digest of settings. Out: plans, records and tables under them. Readers follow the records, never
a listing, so that a stage that is killed at any moment leaves either a whole chunk or none.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import StoreError
from wildray.refusals import explained, parsed
from wildray.remote import children, read_all

if TYPE_CHECKING:
    from wildray.store import Store

BEGUN = "begun_at_ns"
"""In a collection's settings: Unix time at which it was last worked on."""


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

    def plan_rows(
        self,
        parts: Iterable[pa.Table],
        *,
        covers: str,
        record: str | None = None,
        note: Mapping[str, object] | None = None,
    ) -> int:
        """Persist what a set of chunks is to hold, as rows of tables, all of it or nothing.

        A file per chunk would make the plan of a large collection as slow to write as it is to carry out.

        Args:
            parts: Tables with a column ``chunk``; all rows of a chunk stand in one. Each becomes one file.
            covers: The column of what the plan takes care of, which ``covered`` gives back.
            record: Name of its record, which no other plan has; default the first chunk's.
            note: What ``notes`` gives back of it; with a note a plan without parts is recorded too.

        Returns:
            Number of chunks.
        """
        chunks_of: dict[str, list[str]] = {}
        for table in parts:
            chunks = pc.unique(table["chunk"]).to_pylist()
            part = f"{min(chunks)}-{uuid.uuid4().hex[:8]}"  # readers may keep a part: no name is given twice
            self.store.write_table(table, *self._place, f"{part}.plans")
            chunks_of[part] = chunks
        if chunks_of or note is not None:
            content = {"parts": chunks_of, "covers_column": covers} | ({"note": dict(note)} if note else {})
            name = record or min(min(chunks) for chunks in chunks_of.values())
            self.store.write_text(json.dumps(content), *self._place, f"{name}.planned.json")
        return sum(len(chunks) for chunks in chunks_of.values())

    def notes(self) -> list[Any]:
        """What was noted with plans."""
        return [record["note"] for record in self._records(".planned.json").values() if "note" in record]

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
            record = parsed(path, content)
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

        Returns:
            Nullable columns that an earlier version did not write yet are null.
        """
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        names = list(self.finished()) if chunks is None else list(chunks)
        tables = [wanted.empty_table()]
        for name in names:
            path = self.store.path(stage, self.digest, f"{name}.parquet")
            try:
                tables.append(_completed(self.store.read_table(path, columns=columns), wanted).cast(wanted))
            except (OSError, pa.ArrowException) as error:
                raise StoreError(
                    f"{path} cannot be read ({error}). "
                    f"Remove {self.stage}/{self.digest}/.chunks/{name}.done.json and run the stage again."
                ) from None
        return pa.concat_tables(tables)


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the nullable columns of a schema that it lacks; ArrowInvalid where it lacks others."""
    missing = [field for field in schema if field.name not in table.column_names]
    if any(not field.nullable for field in missing):
        raise pa.ArrowInvalid(f"it lacks the columns {', '.join(field.name for field in missing)}")
    for field in missing:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names) if missing else table

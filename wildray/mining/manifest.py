"""Manifests: tables of media that somebody wrote, CSV or Parquet, read as text.

In: a path. Out: a mapping of column to text per row. A Parquet file of a kilobyte can hold a column of terabytes, so
what it announces is bounded before anything is read, and it is read a piece at a time. The alternative, pandas, would
read every column, and turn the camera "007" into 7.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from wildray.errors import DataError

MANIFEST_SUFFIXES = frozenset((".csv", ".parquet"))
COLUMNS = ("uri", "camera_id", "captured_at")
"""What is read; other columns are passed over."""
MAX_ROWS = 5_000_000
"""Rows of a Parquet manifest, which may be a few kilobytes for all of them: 2 GB of memory."""
MAX_BYTES = 1 << 30
"""Size of the three columns of a Parquet manifest: 200 bytes for each of ``MAX_ROWS``."""
MAX_CELL_CHARS = 32_768
"""Longest path that an operating system takes (Windows; Linux takes 4,096 bytes)."""
BATCH_ROWS = 4096


def read_manifest(path: str) -> Iterator[dict[str, str]]:
    """The rows of a manifest, some in memory at a time.

    Args:
        path: CSV in UTF-8 with a header, or Parquet.

    Yields:
        A mapping per row of at least those of ``COLUMNS`` that are there.

    Raises:
        DataError: It cannot be read, has no column ``uri``, or holds more than any list of media would.
    """
    rows = _parquet_rows(path) if path.lower().endswith(".parquet") else _csv_rows(path)
    try:
        for number, row in enumerate(rows, start=1):
            for name in COLUMNS:
                _check_cell(path, number, name, row.get(name, ""))
            yield row
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not readable as a manifest ({error}). Expected a UTF-8 CSV or Parquet table."
        ) from None


def _check_columns(path: str, columns: Sequence[str]) -> None:
    if "uri" not in columns:
        raise DataError(
            f"{path}: the manifest has the columns {', '.join(columns[:20]) or 'none'}; expected uri, and if wanted "
            "camera_id and captured_at."
        )


def _csv_rows(path: str) -> Iterator[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        _check_columns(path, columns)
        for row in reader:
            yield {name: value or "" for name, value in row.items() if name is not None}


def _parquet_rows(path: str) -> Iterator[dict[str, str]]:
    facts = pq.read_metadata(path)
    schema = facts.schema.to_arrow_schema()
    wanted = [name for name in COLUMNS if name in schema.names]
    for name in wanted:
        if pa.types.is_nested(schema.field(name).type):
            raise DataError(f"{path}: the column {name} holds {schema.field(name).type}, expected text or times.")
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    announced = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in wanted)
    _check_size(path, num_rows=facts.num_rows, num_bytes=announced)
    _check_columns(path, schema.names)
    num_rows = num_bytes = 0
    # Words that repeat stay words of a dictionary: a long one that is repeated a million times is in memory once.
    with pq.ParquetFile(path, read_dictionary=wanted) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            rows = list(_rows(path, batch))
            num_rows += len(rows)
            num_bytes += sum(len(text) for row in rows for text in row.values())
            _check_size(path, num_rows=num_rows, num_bytes=num_bytes)
            yield from rows


def _check_size(path: str, *, num_rows: int, num_bytes: int) -> None:
    if num_rows > MAX_ROWS or num_bytes > MAX_BYTES:
        raise DataError(
            f"{path}: the manifest holds {num_rows} rows or more, {num_bytes / 1e9:.1f} GB in {', '.join(COLUMNS)}; "
            f"expected at most {MAX_ROWS} rows and {MAX_BYTES / 1e9:.1f} GB. Split it."
        )


def _rows(path: str, batch: pa.RecordBatch) -> Iterator[dict[str, str]]:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        words = column.dictionary if pa.types.is_dictionary(column.type) else column
        if words.nbytes > BATCH_ROWS * MAX_CELL_CHARS:
            raise _too_long(path, name)
        if pa.types.is_string(words.type) or pa.types.is_large_string(words.type):
            longest = max((len(word) for word in words.to_pylist() if word is not None), default=0)
            if longest > MAX_CELL_CHARS:
                raise _too_long(path, name)
    for row in batch.to_pylist():
        yield {name: _as_text(value) for name, value in row.items()}


def _check_cell(path: str, number: int, name: str, text: str) -> None:
    if len(text) > MAX_CELL_CHARS:
        raise _too_long(path, name)
    if "\0" in text:
        raise DataError(f"{path}: row {number}: {name} is {text[:80]!r}, expected text without null characters.")


def _too_long(path: str, name: str) -> DataError:
    return DataError(
        f"{path}: the column {name} holds a text of more than {MAX_CELL_CHARS} characters, expected paths, names and "
        "times. Is the file damaged?"
    )


def _as_text(value: object) -> str:
    """A cell as the CSV form would have it; instants keep their zone."""
    isoformat = getattr(value, "isoformat", None)
    return "" if value is None else str(isoformat() if isoformat else value)

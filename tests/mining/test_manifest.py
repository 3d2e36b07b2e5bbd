"""A manifest may be anybody's: what it holds is bounded, and what it names is opened as media or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wildray.errors import DataError
from wildray.mining import manifest
from wildray.mining.inputs import find_media
from wildray.mining.manifest import read_manifest
from wildray.mining.media import probe
from wildray.mining.sandbox import FrameSource


def repeated(word, num_rows):
    indices = pa.array(np.zeros(num_rows, np.int32))
    return pa.table({"uri": pa.DictionaryArray.from_arrays(indices, pa.array([word]))})


def test_a_few_kilobytes_of_parquet_do_not_become_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_ROWS", 100_000)
    monkeypatch.setattr(manifest, "MAX_BYTES", 150 << 20)
    tables = {
        "one long word": (pa.table({"uri": ["a.avi"], "camera_id": ["x" * (20 << 20)]}), "more than 32768 characters"),
        "a word again and again": (repeated("a" * 30_000 + ".avi", 90_000), "0.2 GB in uri.* Split it"),
        "rows without end": (repeated("a.avi", 100_001), "holds 100001 rows or more"),
    }
    for number, (table, message) in enumerate(tables.values()):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 100_000
        with pytest.raises(DataError, match=message):
            list(read_manifest(str(path)))


def test_columns_that_nobody_asked_for_are_not_read(tmp_path):
    table = pa.table({"uri": ["a.avi"], "notes": ["x" * (20 << 20)], "camera_id": ["7"]})
    pq.write_table(table, tmp_path / "m.parquet", compression="zstd")
    assert list(read_manifest(str(tmp_path / "m.parquet"))) == [{"uri": "a.avi", "camera_id": "7"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["a.avi"]], "column uri holds list<.*expected text or times"),
        ([{"a": 1}], "column uri holds struct<.*expected text or times"),
        (["a\0.avi"], r"row 1: uri is 'a\\x00.avi', expected text without null characters"),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path, values, message):
    pq.write_table(pa.table({"uri": values}), tmp_path / "m.parquet")
    with pytest.raises(DataError, match=message):
        list(read_manifest(str(tmp_path / "m.parquet")))


@pytest.mark.parametrize("cell", ["a\0.avi", "x" * 40_000])
def test_cells_that_are_no_path_are_refused(tmp_path, cell):
    (tmp_path / "m.csv").write_text(f"uri\n{cell}\n")
    with pytest.raises(DataError, match=r"m\.csv: (row 1: uri|the column uri)"):
        find_media([str(tmp_path / "m.csv")])


def test_what_a_manifest_names_outside_is_decoded_or_refused_and_never_quoted(tmp_path):
    """A manifest is a list of arguments, over several disks too: its entries are opened, by the decoder alone."""
    folder = tmp_path / "given"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_text("SECRET of mine\n")
    (folder / "m.csv").write_text(f"uri\n../secret.jpg\n{tmp_path / 'secret.jpg'}\n")
    (item,) = find_media([str(folder / "m.csv")])
    with FrameSource() as source:
        row = probe(item, source=source)
    assert row["status"] == "unreadable"
    assert "SECRET" not in str(row)
    for name in ("../../etc/passwd", "/etc/passwd"):
        (folder / "m.csv").write_text(f"uri\n{name}\n")
        with pytest.raises(DataError, match="is of an unknown kind"):
            find_media([str(folder / "m.csv")])
    (folder / "m.csv").write_text("uri\nhttp://192.0.2.1/a.mp4\n")
    with pytest.raises(Exception, match="local paths"):
        find_media([str(folder / "m.csv")])

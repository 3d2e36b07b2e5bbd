"""Chunks of a plan: every medium once, in order, bounded by footage, in a bounded number of files."""

import re
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wildray.config import Config
from wildray.mining import chunks
from wildray.mining.chunks import PLAN, plan_chunks, windows
from wildray.mining.clock import natural_key
from wildray.schema import MEDIA
from wildray.store import Store

CONFIG = Config.load(overrides={"detect.chunk": "100s"}).detect
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def medium(number, *, camera="a", minute=0, duration_s=30.0, kind="video", **given):
    return {
        "media_id": f"{number:032x}",
        "uri": f"/{camera}/IMG_{number}.mp4",
        "kind": kind,
        "camera_id": camera,
        "captured_at": None if minute is None else NOON + timedelta(minutes=minute),
        "clock_flag": "none",
        "duration_s": duration_s,
        "num_duplicates": 0,
        "status": "done",
    } | given


def planned(rows, *, first=0):
    parts = list(plan_chunks(pa.Table.from_pylist(rows, schema=MEDIA), CONFIG, first=first))
    return parts, pa.concat_tables([PLAN.empty_table(), *parts])


def groups(table):
    found = {}
    for row in table.to_pylist():
        found.setdefault(row["chunk"], []).append(int(row["media_id"], 16))
    return list(found.values())


def test_media_are_grouped_by_camera_and_time_up_to_the_footage_of_a_chunk():
    rows = [
        medium(4, camera="b", minute=1),
        medium(1, minute=2),
        medium(3, minute=None),
        medium(2, minute=3, duration_s=500.0),
        medium(5, camera="b", minute=0),
    ]
    _, table = planned(rows)
    # a: 30 s; then 500 s, more than a chunk, alone; then the one without a clock and camera b, 90 s
    assert groups(table) == [[1], [2], [3, 5, 4]]
    assert (
        table.drop_columns(["chunk", "clock_flag"])
        .sort_by("media_id")
        .equals(pa.Table.from_pylist(rows, schema=MEDIA).drop_columns(["clock_flag"]).sort_by("media_id"))
    )
    names = pc.unique(table["chunk"]).to_pylist()
    assert [name[:7] for name in names] == ["000000-", "000001-", "000002-"]
    assert planned(rows[::-1])[1].equals(table), "the order of the media makes no difference"
    assert pc.unique(planned(rows, first=7)[1]["chunk"])[0].as_py() == "000007" + names[0][6:]


def test_stills_and_media_without_duration_count_for_half_a_second():
    rows = [medium(n, minute=n, kind="still" if n % 2 else "video", duration_s=None) for n in range(250)]
    assert [len(group) for group in groups(planned(rows)[1])] == [200, 50]


def test_clocks_are_judged_by_the_other_files_of_the_camera():
    rows = [medium(1, minute=5), medium(2, minute=0), medium(3, minute=None), medium(4, camera="b", minute=0)]
    flags = {int(row["media_id"], 16): row["clock_flag"] for row in planned(rows)[1].to_pylist()}
    assert flags == {1: "ok", 2: "backwards", 3: "none", 4: "ok"}


def test_files_of_a_plan_are_few_whatever_it_holds(monkeypatch):
    rows = [medium(n, minute=n) for n in range(100)]
    monkeypatch.setattr(chunks, "PART_CHUNKS", 5)
    parts, table = planned(rows)
    assert [len(pc.unique(part["chunk"])) for part in parts] == [5] * 6 + [4]
    monkeypatch.setattr(chunks, "PART_ROWS", 7)
    parts, again = planned(rows)
    assert [part.num_rows for part in parts] == [6] * 16 + [4], "whole chunks of three only"
    assert again.equals(table)
    monkeypatch.setattr(chunks, "MAX_CHUNKS", 10)
    assert [len(group) for group in groups(planned(rows)[1])] == [10] * 10, "chunks get longer instead of more"
    assert len(groups(planned([medium(n, minute=n, duration_s=600.0) for n in range(100)])[1])) == 10
    forever = [medium(1000 + n, camera="b", duration_s=1e12) for n in range(3)]
    assert len(groups(planned([*rows, *forever])[1])) in range(8, 14), "one that claims to last for ever does not count"


def test_no_media_make_no_plan():
    assert planned([])[0] == []


def test_a_file_that_cannot_be_used_has_no_windows():
    assert windows(medium(1, duration_s=700.0), 600.0) == [(0.0, 600.0), (600.0, None)]
    assert windows(medium(1, status="missing"), 600.0) == []


def test_a_plan_by_rows_is_there_whole_or_not_at_all(tmp_path):
    collection = Store.open(tmp_path / "store", create=True).collection("detections", "d")

    def dies(parts):
        yield parts[0]
        raise KeyboardInterrupt

    parts, table = planned([medium(n, minute=n) for n in range(9)])
    with pytest.raises(KeyboardInterrupt):
        collection.plan_rows(dies(parts), covers="media_id")
    assert collection.planned() == []
    assert len(collection.covering()) == 0
    collection.plan_rows(parts, covers="media_id")
    collection.plan({"000099-old": {"media": []}}, covers=["of an older version"])
    names = pc.unique(table["chunk"]).to_pylist()
    assert collection.planned() == [*names, "000099-old"]
    assert collection.covered() == {*table["media_id"].to_pylist(), "of an older version"}
    parts_of = collection.parts()
    assert parts_of["000099-old"] is None
    assert collection.plan_part(parts_of[names[0]]).equals(table)


def listed(text):
    """A key of a list of parts, the plain way: numbers by length and digits."""
    parts = re.split(r"(\d+)", text)
    numbers = [part.lstrip("0") for part in parts]
    return [(len(numbers[i]), numbers[i]) if i % 2 else (-1, part) for i, part in enumerate(parts)]


NAMES = st.text("aAbB._/-019é\u0663", max_size=12)


@given(NAMES, NAMES)
def test_the_natural_order_is_that_of_the_parts(one, other):
    assert (natural_key(one) < natural_key(other)) == (listed(one) < listed(other))
    assert (natural_key(one) == natural_key(other)) == (listed(one) == listed(other))

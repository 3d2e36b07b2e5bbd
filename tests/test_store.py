import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from wildray import lease
from wildray.errors import StoreError
from wildray.schema import FRAMES
from wildray.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def frames(*indices):
    rows = [
        dict(media_id="m", frame_index=i, time_s=i / 2, sampling_pass=0, num_boxes=0, infrared=False) for i in indices
    ]
    return pa.Table.from_pylist(rows, schema=FRAMES)


def test_readers_follow_the_record_never_the_listing(store):
    collection = store.collection("detections", "d1")
    collection.begin({})
    collection.write("frames", "000000-a", frames(0))
    assert collection.read("frames", FRAMES).num_rows == 0, "a chunk that is not recorded is seen"
    collection.done("000000-a", {"n": 1})
    assert collection.read("frames", FRAMES)["frame_index"].to_pylist() == [0]
    collection.write("frames", "000000-a", frames(5))
    assert collection.read("frames", FRAMES)["frame_index"].to_pylist() == [5], "writing again replaces"


def test_a_plan_is_there_whole_or_not_at_all(store, monkeypatch):
    collection = store.collection("detections", "d1")
    real = Store.write_text

    def dies_at_the_end(self, text, *parts):
        if parts[-1].endswith(".planned.json"):
            raise KeyboardInterrupt
        return real(self, text, *parts)

    monkeypatch.setattr(Store, "write_text", dies_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        collection.plan({"000000-a": {"x": 1}, "000001-b": {"x": 2}}, covers=["m1"])
    monkeypatch.undo()
    assert collection.planned() == []
    assert collection.covered() == set()
    collection.plan({"000000-a": {"x": 1}, "000001-b": {"x": 2}}, covers=["m1", "m2"])
    assert collection.planned() == ["000000-a", "000001-b"]
    assert collection.covered() == {"m1", "m2"}
    assert collection.plan_of("000001-b") == {"x": 2}


def test_a_write_that_fails_leaves_nothing_behind(store):
    path = store.path("reports", "x.txt")

    def broken(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="disk is full"):
        store.publish(path, broken)
    assert [p for p in Path(store.root).rglob("*") if p.is_file()] == []


def test_places_outside_the_store_are_refused(store):
    for parts in (("..", "x"), ("/etc/passwd",), ("models", "../../x")):
        with pytest.raises(StoreError, match="outside"):
            store.path(*parts)


def test_a_store_that_cannot_be_had_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "file", create=True)
    with pytest.raises(StoreError, match="no store at"):
        Store.open(tmp_path / "missing")
    with pytest.raises(StoreError, match="writ"):
        Store.open("/proc/wildray", create=True)
    with pytest.raises(StoreError, match="s4://"):
        Store.open("s4://bucket/store")


def test_two_writers_are_kept_apart_and_the_lease_is_given_back(store):
    with store.lease("detections-d"):
        code = f"from wildray.store import Store\nwith Store.open({store.root!r}).lease('detections-d'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert other.returncode != 0
        assert f"process {os.getpid()}" in other.stderr
    with store.lease("detections-d"):
        pass


def test_the_lease_of_a_killed_process_is_taken_over_at_once(store):
    code = (
        f"import time\nfrom wildray.store import Store\n"
        f"with Store.open({store.root!r}).lease('x'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        other.kill()
        other.wait()
    with store.lease("x"):
        pass


def test_the_lease_of_another_machine_stands_until_it_is_stale(store):
    path = store.path(".leases", "x.1.json")
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "1", "token": "t"}))
    with pytest.raises(StoreError, match="elsewhere"), store.lease("x"):
        pass
    long_ago = time.time() - lease.STALE_S - 1
    os.utime(path, (long_ago, long_ago))
    with store.lease("x"):
        pass


def test_a_torn_record_says_what_to_do(store):
    store.write_text("{", "detections", "d", "collection.json")
    with pytest.raises(StoreError, match="altered"):
        store.collection("detections", "d").settings()


def test_the_newest_collection_is_the_one_begun_last(store):
    assert store.newest("pairs") is None
    for digest in ("b", "a"):
        store.collection("pairs", digest).begin({})
        time.sleep(0.01)
    assert store.newest("pairs") == "a"

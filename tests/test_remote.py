"""A store in object storage: everything that a folder gives, from a real S3 API on this machine."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from object_storage import BUCKET, FaultyProxy, server  # noqa: F401

from wildray import lease, remote
from wildray.errors import BusyError, StoreError
from wildray.packs import PackReader, PackWriter, encode_jpeg, forget_packs
from wildray.schema import PAIRS
from wildray.store import Store

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store(server, request, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WILDRAY_CACHE", str(tmp_path / "cache"))
    return Store.open(f"s3://{BUCKET}/{request.node.name}", create=True)


def test_files_are_published_whole_and_read_again(store):
    store.write_text('{"a": 1}', "models", "run", "result.json")
    assert store.read_json("models", "run", "result.json") == {"a": 1}
    path = store.path("models", "run", "result.json")
    assert path.is_file()
    assert store.path("models", "run").is_dir()
    assert str(path) == f"{store.root}/models/run/result.json"

    def torn(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="disk is full"):
        store.publish(path, torn)
    assert store.read_json("models", "run", "result.json") == {"a": 1}
    with pytest.raises(StoreError, match="cannot be read"):
        store.read_json("models", "run", "missing.json")
    with pytest.raises(StoreError, match="outside the store"):
        store.path("models", "../../other")


def test_there_must_be_a_store_unless_one_is_made(server):  # noqa: F811
    with pytest.raises(StoreError, match="There is no store"):
        Store.open(f"s3://{BUCKET}/nothing-here")
    with pytest.raises(StoreError, match="bucket is there"):
        Store.open("s3://no-such-bucket/store", create=True)
    with pytest.raises(StoreError, match="unknown"):
        Store.open("s4://bucket/store")


def test_chunks_show_once_they_are_done_and_the_newest_collection_is_known_within_a_second(store):
    rows = pa.table([pa.array(["0"] * 3).cast(field.type) for field in PAIRS], schema=PAIRS)
    for digest in ("b", "a", "b"):
        collection = store.collection("pairs", digest)
        collection.begin({"min_iou": 0.2})
        collection.plan({"chunk-0": {"n": 3}, "chunk-1": {"n": 3}}, covers=["x"])
        collection.write("pairs", "chunk-0", rows)
    assert (store.newest("pairs"), store.collections("pairs")) == ("b", ["a", "b"])
    assert collection.settings() == {"min_iou": 0.2}
    assert collection.read("pairs", PAIRS).num_rows == 0
    collection.done("chunk-0", {"num_pairs": 3})
    assert collection.read("pairs", PAIRS).num_rows == 3
    assert (collection.planned(), collection.covered()) == (["chunk-0", "chunk-1"], {"x"})
    assert collection.finished() == {"chunk-0": {"num_pairs": 3}}


def test_packs_are_read_from_a_local_copy_made_once_per_content(store, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype("uint8")
    for round_ in range(2):
        writer = PackWriter(store, ("crops", "d"), "chunk-0")
        writer.add(7, encode_jpeg(image[: 40 - round_]))
        assert writer.close() == ["chunk-0-000"]
        forget_packs()
        for _ in range(2):
            assert PackReader(store, ("crops", "d")).image("chunk-0-000", 0).shape == (40 - round_, 30, 3)
            forget_packs()
        assert len(list((tmp_path / "cache" / "objects").iterdir())) == round_ + 1


def test_copies_used_longest_ago_make_room(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WILDRAY_CACHE_GB", str(2500 / 1024**3))
    for name in "abc":
        store.write_text(name * 1000, "models", f"{name}.json")
        copy = remote.local_copy(store.path("models", f"{name}.json"))
        os.utime(copy, (time.time() - 100 + ord(name), time.time() - 100 + ord(name)))
    kept = sorted(path.read_text()[0] for path in (tmp_path / "cache" / "objects").glob("*/*"))
    assert kept == ["b", "c"]


def test_one_of_many_takes_a_lease(store):
    taken, refused, other = [], [], threading.Barrier(6)

    def take():
        other.wait()
        try:
            with store.lease("x"):
                taken.append(1)
                time.sleep(2)
        except (BusyError, StoreError) as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) <= 1
    assert len(taken) + len(refused) == 6
    with store.lease("x"):
        assert len(remote.children(store.path(".leases"))) == 1
    assert remote.children(store.path(".leases")) == []


def test_the_lease_of_a_killed_process_is_taken_over(store):
    code = (
        "import time\nfrom wildray.store import Store\n"
        f"with Store.open({store.root!r}).lease('x'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(BusyError, match=f"process {process.pid}"), store.lease("x"):
            pass
        process.kill()
        process.wait()
    with store.lease("x"):
        pass


def test_a_lease_of_another_machine_is_renewed_and_stands_until_it_is_stale(store, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 4.0)
    path = store.path(".leases", "x.json")
    with store.lease("x"):
        time.sleep(4)  # renewed every second
        (file,) = remote.children(store.path(".leases"))
        holder, age_s = lease._holder(file)
        assert holder["pid"] == os.getpid()
        assert age_s < 3
    file = path.with_name("x.3.json")
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "1", "token": "t"}))
    with pytest.raises(BusyError, match="elsewhere"), store.lease("x"):
        pass
    time.sleep(4)
    with store.lease("x"):
        assert [found.name for found in remote.children(store.path(".leases"))] == ["x.4.json"]


def test_a_storage_that_does_not_answer_for_a_while_is_waited_for(store, server):  # noqa: F811
    store.write_text("1", "a.json")
    server.pause()
    threading.Timer(5, server.go_on).start()
    begun = time.monotonic()
    store.write_text("2", "a.json")
    assert time.monotonic() - begun > 4
    assert store.read_json("a.json") == 2


def test_a_storage_that_fails_for_a_while_is_asked_again(store, server, monkeypatch):  # noqa: F811
    proxy = FaultyProxy(server.url)
    code = (
        "import sys\nfrom wildray.store import Store\nstore = Store(sys.argv[1])\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "with store.lease('x'):\n"
        "    for number in range(5):\n        store.write_text(str(number), 'models', f'{number}.json')\n"
        "print(sum(store.read_json('models', f'{number}.json') for number in range(5)))"
    )
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.url}
    words = [sys.executable, "-c", code, store.root]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        process.stdout.readline()
        proxy.failing.set()
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(8)
        proxy.failing.clear()
        assert process.stdout.readline().strip() == "10"
    assert process.returncode == 0
    assert proxy.num_refused > 1
    proxy.close()

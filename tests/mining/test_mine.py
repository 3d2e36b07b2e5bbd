from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray
from mining_rows import Clip, add_chunk, detections_table, make_store

from wildray.cli.cluster import connect
from wildray.config import Config
from wildray.errors import ConfigError, DataError, StageError
from wildray.mining import mine as stage
from wildray.mining.mine import MineResult, mine, sequence_gap_s
from wildray.mining.naming import pairs_digest
from wildray.schema import EMBEDDINGS, PAIRS, STATIC
from wildray.store import Store


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


def config(**values: object) -> Config:
    return Config.load(None, {name.replace("__", "."): value for name, value in values.items()})


def clips(camera: str, count: int, *, seed: int = 0, first: int = 0) -> list[Clip]:
    """Clips an hour apart, each with a few animals on the move and a stump that is always there."""
    rng = np.random.default_rng((seed, first))
    made = []
    for number in range(first, first + count):
        walks = list(zip(rng.uniform(0, 900, 3), rng.uniform(300, 900, 3), rng.uniform(-6, 6, 3), strict=True))
        boxes: list[list[tuple[float, ...]]] = [
            [(300.0, 200.0, 340.0, 240.0), *((x + dx * i, y, x + dx * i + 60, y + 60) for x, y, dx in walks)]
            for i in range(12)
        ]
        made.append(Clip(f"{camera}-{number}", boxes, camera=camera, at_s=number * 3600.0, every=5))
    return made


def chunks() -> list[list[Clip]]:
    a, b, c = clips("a", 8), clips("b", 8, seed=1), clips("c", 8, seed=2)
    return [a[:5], a[5:] + b[:2], b[2:], c]


def rows(store: Store, result: MineResult) -> tuple[object, object]:
    collection = store.collection("pairs", result.digest)
    return collection.read("pairs", PAIRS), collection.read("static", STATIC)


def test_pairs_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARD_ROWS", 300)
    tables, results = [], []
    for workers in (1, 2):
        store = make_store(tmp_path / str(workers), chunks())
        results.append(mine(config(scale__workers=workers), store))
        tables.append(rows(store, results[-1]))
    pairs, static = tables[0]
    assert pairs.equals(tables[1][0])
    assert static.equals(tables[1][1])
    assert results[0].digest == results[1].digest
    result = results[0]
    assert result.num_pairs == pairs.num_rows > 200
    assert result.num_sequences == 24
    assert result.num_detections == static.num_rows == 24 * 12 * 4
    assert result.num_static == pc.sum(static["static"]).as_py() == 24 * 12
    assert results[1].uri == str(store.path("pairs", result.digest))
    assert {path.parent.name for path in store.path("static").glob("*/*.parquet")} == {result.digest}


def test_a_shard_holds_whole_cameras_and_reads_only_their_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_ROWS", 300)
    store = make_store(tmp_path, chunks())
    collection = store.collection("pairs", mine(config(), store).digest)
    names = [f"{number:06d}-aaaaaaaa" for number in range(4)]
    plans = [collection.plan_of(shard)["chunks"] for shard in collection.planned()]
    assert plans == [names[:2], names[1:3], names[3:]]


def test_a_set_that_is_there_is_reused_and_new_media_make_another(tmp_path: Path) -> None:
    store = make_store(tmp_path, [clips("a", 3)])
    first = mine(config(), store)
    written = {path: path.stat().st_mtime_ns for path in Path(first.uri).glob("*.parquet")}
    again = mine(config(), store)
    assert again.reused
    assert not first.reused
    assert (again.digest, again.num_pairs) == (first.digest, first.num_pairs)
    assert {path: path.stat().st_mtime_ns for path in Path(first.uri).glob("*.parquet")} == written
    add_chunk(store.collection("detections", "d0"), "000001-bbbbbbbb", clips("a", 2, first=3))
    more = mine(config(), store)
    assert more.digest != first.digest
    assert not more.reused
    assert more.num_pairs > first.num_pairs
    assert store.newest("pairs") == more.digest


def test_a_set_that_is_reused_is_the_newest(tmp_path: Path) -> None:
    store = make_store(tmp_path, [clips("a", 2)])
    first = mine(config(), store)
    mine(config(mine__min_iou=0.5), store)
    assert store.newest("pairs") != first.digest
    mine(config(), store)
    assert store.newest("pairs") == first.digest


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARD_ROWS", 300)
    store = make_store(tmp_path, chunks())
    whole = mine(config(), store)
    pairs, static = rows(store, whole)
    collection = store.collection("pairs", whole.digest)
    killed = collection.planned()[1]
    # as a kill leaves it: one table published, the other not, no record
    store.path("pairs", whole.digest, ".chunks", f"{killed}.done.json").unlink()
    store.path("pairs", whole.digest, f"{killed}.parquet").unlink()
    kept = store.path("pairs", whole.digest, f"{collection.planned()[0]}.parquet")
    before = kept.stat().st_mtime_ns
    resumed = mine(config(), store)
    assert not resumed.reused
    assert rows(store, resumed)[0].equals(pairs)
    assert rows(store, resumed)[1].equals(static)
    assert kept.stat().st_mtime_ns == before


def add_vectors(store: Store, made: list[list[Clip]]) -> None:
    """Embeddings of every box, by its place in its frame: as embed writes them, a shard for each chunk."""
    collection = store.collection("embeddings", "e0")
    collection.begin({"source": "detections/d0", "dim": 4})
    for number, part in enumerate(made):
        ids = detections_table(part)["detection_id"].to_pylist()
        place = [ordinal for clip in part for boxes in clip.boxes for ordinal in range(len(boxes))]
        rows = [{"id": str(one), "vector": np.eye(4, dtype=np.float32)[n]} for one, n in zip(ids, place, strict=True)]
        collection.write("embeddings", f"{number:06d}-aaaaaaaa", pa.Table.from_pylist(rows, schema=EMBEDDINGS))
        collection.done(f"{number:06d}-aaaaaaaa", {"num": len(rows)})


def test_a_second_round_is_a_set_of_its_own_whatever_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, results = [], []
    for most in (300, 50_000):
        monkeypatch.setattr(stage, "SHARD_ROWS_EMBEDDED", most)
        store = make_store(tmp_path / str(most), chunks())
        first = mine(config(), store)
        add_vectors(store, chunks())
        results.append(mine(config(mine__embeddings="e0"), store))
        tables.append(rows(store, results[-1]))
        assert results[-1].digest != first.digest
        assert mine(config(mine__embeddings="e0"), store).reused
    assert results[0].num_pairs > 200
    assert tables[0][0].equals(tables[1][0])
    assert store.collection("pairs", results[0].digest).settings()["mine"]["embeddings"] == "e0"
    with pytest.raises(ConfigError, match="the store has no embeddings 'e1'"):
        mine(config(mine__embeddings="e1"), store)


def test_the_name_of_a_set_follows_what_the_pairs_depend_on() -> None:
    finished = {"000000-a": {"num_detections": 5}}

    def name(detections: str = "d0", chunks: object = None, **values: object) -> str:
        return pairs_digest(config(**values).mine, detections, finished if chunks is None else chunks)

    assert name() == name(mine__interval="2000ms") == name(mine__detections="d0", scale__workers=2)
    different = [
        name(),
        name("d1"),
        name(chunks={**finished, "000001-b": {"num_detections": 5}}),
        name(chunks={"000000-a": {"num_detections": 6}}),
        name(mine__interval="3s"),
        name(mine__linker="direct"),
        name(mine__min_margin=0.2),
        name(mine__static_span="1h"),
    ]
    assert len(set(different)) == len(different)
    assert name(mine__linker="direct") == name(mine__linker="direct", mine__min_margin=0.2)


def test_the_sequence_gap_follows_the_interval_unless_it_is_set() -> None:
    assert sequence_gap_s(config(mine__interval="2s").mine) == 60
    assert sequence_gap_s(config(mine__interval="5min").mine) == 450
    assert sequence_gap_s(config(mine__interval="5min", mine__sequence_gap="10s").mine) == 10
    assert sequence_gap_s(config(mine__interval="9000frames").mine) == 60


def test_the_detections_are_chosen_by_name_and_the_newest_by_default(tmp_path: Path) -> None:
    store = make_store(tmp_path, [clips("a", 1)], digest="aaaa1111")
    make_store(tmp_path, [clips("b", 2)], digest="bbbb2222")
    assert mine(config(), store).detections == "bbbb2222"
    chosen = mine(config(mine__detections="aaaa1111"), store)
    assert (chosen.detections, chosen.num_sequences) == ("aaaa1111", 1)
    with pytest.raises(ConfigError, match="Did you mean 'aaaa1111'"):
        mine(config(mine__detections="aaaa1112"), store)


def test_without_detections_it_says_what_to_run(tmp_path: Path) -> None:
    store = Store.open(tmp_path, create=True)
    with pytest.raises(StageError, match="wildray detect"):
        mine(config(), store)
    store.collection("detections", "d0").begin({})
    with pytest.raises(StageError, match="wildray detect"):
        mine(config(), store)


def test_media_without_boxes_give_no_pairs_and_no_error(tmp_path: Path) -> None:
    store = make_store(tmp_path, [[Clip("a", [[], [], []])]])
    result = mine(config(), store)
    assert (result.num_pairs, result.num_static, result.num_sequences) == (0, 0, 1)
    assert mine(config(), store).reused


def test_an_error_in_a_task_reaches_the_caller_as_it_is(tmp_path: Path) -> None:
    store = make_store(tmp_path, [clips("a", 1)])
    other = make_store(tmp_path / "other", [[Clip("a-0", [[]])]])
    other.path("frames", "d0", "000000-aaaaaaaa.parquet").replace(store.path("frames", "d0", "000000-aaaaaaaa.parquet"))
    with pytest.raises(DataError, match="run detect again"):
        mine(config(), store)
    assert not list(store.path("pairs").glob("*/*.parquet"))

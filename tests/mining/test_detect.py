"""The stage detect on small encoded clips: every file ends as done or as a row with its reason, whatever happens."""

import json
import shutil

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from wildray.config import Config
from wildray.errors import DataError, StageError, StoreError
from wildray.mining import detect as stage
from wildray.mining import scan
from wildray.mining.detect import detect
from wildray.mining.failures import failures
from wildray.mining.media import media_id
from wildray.mining.mine import mine
from wildray.mining.purge import purge
from wildray.packs import PackReader
from wildray.schema import DETECTIONS, FRAMES, MEDIA
from wildray.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")

MOTION = {"detect.detector": "motion", "detect.base_interval": "0.5s", "detect.chunk": "6s"}


def write_video(path, images, *, fps, key_every=None):
    """Encode (H, W, 3) u8 RGB images as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if key_every is not None:
            stream.gop_size = key_every
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def walker(path, *, seed=0, num_frames=40):
    """A grey scene with noise through which a bright square walks; 10 frames a second, 4 s."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(60, 120, (90, 160, 1), dtype=np.int16).repeat(3, axis=2)
    images = []
    for number in range(num_frames):
        image = scene + rng.integers(-2, 3, scene.shape)
        left = 5 + 3 * number
        image[30:60, left : left + 30] = 230
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return write_video(path, images, fps=10)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    for camera, seeds in {"cam a": (1, 2), "cämera b": (3,)}.items():
        (folder / camera).mkdir()
        for seed in seeds:
            walker(folder / camera / f"clip {seed}.mp4", seed=seed)
    return folder


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def run(store, *media, **settings):
    return detect(Config.load(None, {**MOTION, **settings}), store, [str(path) for path in media])


def tables(store, digest):
    collection = store.collection("detections", digest)
    schemas = {"media": MEDIA, "frames": FRAMES, "detections": DETECTIONS}
    keys = {"media": ["media_id"], "frames": ["media_id", "frame_index"], "detections": ["detection_id"]}
    return {
        name: collection.read(name, schema).sort_by([(key, "ascending") for key in keys[name]])
        for name, schema in schemas.items()
    }


def test_what_moves_is_found_cropped_and_addressed(store, footage):
    result = run(store, footage)
    assert (result.num_media, result.num_done, result.num_new) == (3, 3, 3)
    assert result.num_frames == 3 * 8, "a frame every 0.5 s of 4 s"
    found = tables(store, result.digest)["detections"]
    assert found.num_rows >= 3 * 6
    assert set(found["camera_id"].to_pylist()) == {"cam a", "cämera b"}
    reader = PackReader(store, ("crops", result.digest))
    for row in found.to_pylist():
        left = 5 + 3 * row["frame_index"]
        assert row["x1_px"] < left + 15 < row["x2_px"], row
        assert reader.image(row["crop_pack"], row["crop_row"]).mean() > 120, "the crop shows the bright square"
        behind = reader.background(row["crop_pack"], row["crop_row"])
        assert 85 < behind.mean() < 95, "the scene behind it, without the square"
        assert row["motion"] > 0.3
        assert np.mean(row["colour"][::2]) > 120, "the means are of the bright square"


def test_one_and_two_workers_give_the_same_columns(tmp_path, footage):
    results = []
    for workers in (1, 2):
        store = Store.open(tmp_path / f"store{workers}", create=True)
        digest = run(store, footage, **{"scale.workers": workers}).digest
        results.append(tables(store, digest))
    for name in results[0]:
        assert results[0][name].equals(results[1][name]), name


def test_only_new_media_are_looked_at(store, footage, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(footage, folder)
    first = run(store, folder)
    before = store.collection("detections", first.digest).finished()
    again = run(store, folder)
    assert (again.num_new, again.num_frames) == (0, first.num_frames)
    walker(folder / "cam a" / "new.mp4", seed=9)
    shutil.copy(folder / "cam a" / "new.mp4", folder / "cam a" / "copy of new.mp4")
    third = run(store, folder)
    assert (third.num_new, third.num_media) == (1, 4), "a copy is the same medium"
    after = store.collection("detections", first.digest).finished()
    assert {chunk: after[chunk] for chunk in before} == before
    assert len(after) == len(before) + 1


def test_every_bad_file_ends_as_a_row_with_its_reason(store, footage, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(footage, folder)
    whole = (folder / "cam a" / "clip 1.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "nothing.mp4").write_bytes(b"")
    (folder / "list.m3u8").write_text("#EXTM3U\nhttp://127.0.0.1/x.ts\n")
    (folder / "disguised.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    write_video(folder / "dot.mp4", [np.zeros((2, 2, 3), np.uint8)] * 3, fps=10)
    cv2.imwrite(str(folder / "still.jpg"), np.full((40, 60, 3), 90, np.uint8))
    result = run(store, folder, **{"detect.max_failed": 0.9})
    rows = {row["uri"].rpartition("/")[2]: row for row in tables(store, result.digest)["media"].to_pylist()}
    expected = {
        "truncated.mp4": "unreadable",
        "text.mp4": "unreadable",
        "nothing.mp4": "empty",
        "list.m3u8": "refused",
        "disguised.mp4": "refused",
        "dot.mp4": "done",
        "still.jpg": "done",
    }
    assert {name: rows[name]["status"] for name in expected} == expected
    for name, status in expected.items():
        assert (rows[name]["error"] is None) == (status == "done"), rows[name]
    assert result.num_media == 3 + len(expected)
    assert result.num_failed == 5


def test_too_many_failures_fail_the_stage_and_keep_the_rest(store, footage, tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    (tmp_path / "b.mp4").write_text("no video either")
    with pytest.raises(StageError, match="2 of 3 media") as caught:
        run(store, tmp_path / "a.mp4", tmp_path / "b.mp4", footage / "cam a" / "clip 1.mp4")
    assert "a.mp4" in str(caught.value)
    assert run(store, footage / "cam a" / "clip 1.mp4").num_new == 0, "the good one was kept"


def test_a_store_of_an_earlier_version_goes_on(store, footage):
    """Plans and records as they were before plans by rows: a JSON file for each chunk, no word of what failed."""
    (footage.parent / "broken.mp4").write_text("no video")
    media = (*sorted(footage.rglob("*.mp4")), footage.parent / "broken.mp4")
    digest = run(store, *media, **{"detect.chunk": "4s"}).digest
    expected = tables(store, digest)
    collection = store.collection("detections", digest)
    plan = pa.concat_tables([collection.plan_part(part) for part in dict.fromkeys(collection.parts().values())])
    finished = collection.finished()
    shutil.rmtree(store.path("detections", digest, ".chunks"))
    contents = {chunk: {"media": [], "windows": []} for chunk in finished}
    for row in plan.to_pylist():
        at = row["captured_at"] and row["captured_at"].isoformat()
        content = contents[row.pop("chunk")]
        content["media"].append({**row, "captured_at": at})
        content["windows"].append([[0.0, None]])
    collection.plan(contents, covers=plan["media_id"].to_pylist())
    chunks = sorted(finished)
    for chunk in chunks[1:]:  # one was not finished when the newer version came
        record = finished[chunk]
        ids = collection.read("media", MEDIA, chunks=[chunk])["media_id"].to_pylist()
        old = {name: record[name] for name in ("cameras", "num_frames", "num_detections", "packs")}
        collection.done(chunk, {**old, "media": ids, "num_done": len(ids) - len(record["failed"])})
    again = run(store, *media, **{"detect.chunk": "4s"})
    assert (again.num_media, again.num_failed, again.num_new) == (4, 1, 0)
    assert sorted(collection.finished()) == chunks
    found = tables(store, digest)
    for name in expected:
        assert found[name].equals(expected[name]), name


def test_boxes_of_before_colours_were_kept_are_read_beside_newer_ones(store, footage, tmp_path):
    digest = run(store, footage).digest
    collection = store.collection("detections", digest)
    for chunk in collection.finished():
        table = pq.read_table(store.path("detections", digest, f"{chunk}.parquet"))
        collection.write("detections", chunk, table.drop_columns(["colour"]))
    old = collection.read("detections", DETECTIONS)
    assert old["colour"].null_count == old.num_rows > 0
    assert collection.read("detections", DETECTIONS, columns=["colour"]).num_rows == old.num_rows
    assert run(store, footage, walker(tmp_path / "new.mp4", seed=9)).num_new == 1
    assert 0 < collection.read("detections", DETECTIONS)["colour"].null_count == old.num_rows
    assert mine(Config.load(None, {"mine.interval": "0.5s", "mine.remove_static": False}), store).num_pairs > 0
    purge(store, [str(footage / "cam a" / "clip 1.mp4")])
    collection.write("frames", chunk, pa.table({"media_id": ["m"]}))
    with pytest.raises(StoreError, match="lacks the columns frame_index"):
        collection.read("frames", FRAMES)


def test_tasks_of_several_chunks_give_the_same_and_do_none_twice(store, footage, tmp_path, monkeypatch):
    expected = tables(store, run(store, footage, **{"detect.chunk": "1s"}).digest)
    monkeypatch.setattr(stage, "MOST_BLOCKS", 1)
    monkeypatch.setattr(stage, "BLOCKS_PER_WORKER", 1)
    other = Store.open(tmp_path / "other", create=True)
    digest = run(other, footage, **{"detect.chunk": "1s"}).digest
    for name, table in tables(other, digest).items():
        assert table.equals(expected[name]), name
    collection = other.collection("detections", digest)
    kept, lost = sorted(collection.finished())[:2]
    path = other.path("detections", digest, f"{kept}.parquet")
    written = path.stat().st_mtime_ns
    other.path("detections", digest, ".chunks", f"{lost}.done.json").unlink()
    run(other, footage, **{"detect.chunk": "1s"})
    assert lost in collection.finished()
    assert path.stat().st_mtime_ns == written


def test_many_media_are_identified_by_tasks_to_the_same_end(store, footage, tmp_path, monkeypatch):
    media = [*footage.rglob("*.mp4"), tmp_path / "copy.mp4", tmp_path / "nothing.mp4"]
    shutil.copy(footage / "cam a" / "clip 1.mp4", tmp_path / "copy.mp4")
    (tmp_path / "nothing.mp4").write_bytes(b"")
    media.append(tmp_path / "no \udcff text.mp4")  # a file's name is any bytes
    shutil.copy(footage / "cam a" / "clip 2.mp4", media[-1])
    media.append(tmp_path / "other \udcff.mp4")
    media[-1].write_text("no video")
    first = run(store, *media)
    assert (first.num_media, first.num_failed) == (5, 2)
    for name, value in {"IDENTIFIED_HERE": 0, "SCAN_BATCH": 1, "TASKS_PER_CPU": 10, "SCAN_ROUND": 3}.items():
        monkeypatch.setattr(scan, name, value)
    assert run(store, *media).num_new == 0
    other = Store.open(tmp_path / "other", create=True)
    assert tables(other, run(other, *media).digest)["media"].equals(tables(store, first.digest)["media"])


def test_only_failures_among_the_media_of_the_call_count(store, footage, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_text(f"no video {name}")
    good = footage / "cam a" / "clip 1.mp4"
    settings = {"detect.max_failed": 1.0}
    assert run(store, *tmp_path.glob("*.mp4"), good, **settings).num_failed == 3
    later = run(store, tmp_path / "b.mp4", good, **settings)
    assert (later.num_media, later.num_done, later.num_failed) == (2, 1, 1)
    collection = store.collection("detections", later.digest)
    ids = np.array([media_id(str(tmp_path / name)).encode() for name in ("a.mp4", "c.mp4")])
    count, shown = failures(collection, collection.finished(), ids, most=1)
    assert count == 2
    assert [(row["status"], row["media_id"].encode() in ids) for row in shown] == [("unreadable", True)]


def test_two_detects_of_one_collection_are_kept_apart(store, footage):
    digest = run(store, footage / "cam a").digest
    with store.lease(f"detections-{digest}"), pytest.raises(StoreError, match="is writing"):
        run(store, footage)


def md_json(path, entries, **video):
    categories = {"1": "animal", "2": "person", "3": "vehicle"}
    content = {"info": {"format_version": "1.6"}, "detection_categories": categories, "images": entries}
    path.write_text(json.dumps(content))
    return path


def boxes(frames, category="1"):
    return [{"category": category, "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4], "frame_number": f} for f in frames]


def test_results_computed_elsewhere_with_the_media_at_hand(store, footage, tmp_path):
    found = boxes((0, 10)) + boxes((10,), "2")
    entry = {"file": "clip 3.mp4", "frame_rate": 10.0, "frames_processed": [0, 10, 20], "detections": found}
    shutil.copy(footage / "cämera b" / "clip 3.mp4", tmp_path)
    result = run(store, md_json(tmp_path / "md.json", [entry]))
    got = tables(store, result.digest)
    assert got["frames"]["frame_index"].to_pylist() == [0, 10, 20], "the results' frames, not the base interval"
    assert got["frames"]["time_s"].to_pylist() == pytest.approx([0.0, 1.0, 2.0])
    rows = got["detections"].to_pylist()
    assert sorted((r["frame_index"], r["category"]) for r in rows) == [(0, "animal"), (10, "animal"), (10, "person")]
    assert [r["x1_px"] for r in rows] == pytest.approx([16.0] * 3)
    for row in rows:
        assert (row["crop_pack"] is None) == (row["category"] == "person"), "people are never cropped"
        assert row["motion"] is not None


@pytest.mark.parametrize(("size", "expected"), [(None, 0.1), ("200x100", 20.0)])
def test_results_computed_elsewhere_without_the_media(store, tmp_path, size, expected):
    entry = {"file": "cam/gone.mp4", "frame_rate": 10.0, "frames_processed": [0, 10], "detections": boxes((10,))}
    still = {"file": "cam/still.jpg", "detections": None, "failure": "Failure image access"}
    settings = {"detect.frame_size": size, "detect.max_failed": 1.0}
    result = run(store, md_json(tmp_path / "md.json", [entry, still]), **settings)
    got = tables(store, result.digest)
    (row,) = got["detections"].to_pylist()
    assert row["x1_px"] == pytest.approx(expected)
    assert (row["time_s"], row["crop_pack"], row["camera_id"]) == (1.0, None, "cam")
    assert row["width_px"] == (200 if size else None)
    assert pc.sum(got["frames"]["num_boxes"]).as_py() == 1
    assert sorted(got["media"]["status"].to_pylist()) == ["done", "unreadable"]


def test_a_results_file_that_is_none_says_where(store, tmp_path):
    path = tmp_path / "md.json"
    for text in ("{", "[]", '{"images": 3}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"md\.json"):
            run(store, path)


def test_purged_media_leave_no_crop_and_are_not_cropped_again(store, footage):
    first = run(store, footage)
    path = footage / "cam a" / "clip 1.mp4"
    outcome = purge(store, [str(path)])
    assert outcome.num_media == 1
    assert outcome.num_crops > 0
    second = run(store, footage, **{"detect.crop_padding": 0.2})
    for digest in (first.digest, second.digest):
        got = tables(store, digest)
        (medium,) = [row["media_id"] for row in got["media"].to_pylist() if row["uri"] == str(path)]
        reader = PackReader(store, ("crops", digest))
        for row in got["detections"].to_pylist():
            assert (row["crop_pack"] is None) == (row["media_id"] == medium)
            if row["crop_pack"]:
                assert reader.image(row["crop_pack"], row["crop_row"]).size
    for path in store.path("crops").rglob("*.arrow"):
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        assert all(
            bool(crop) == (behind is not None) for _, crop, behind in zip(*table.to_pydict().values(), strict=True)
        )
    kept = sum(len(b) for p in store.path("crops").rglob("*.arrow") for b in [p.read_bytes()])
    assert kept > 0
    with pytest.raises(DataError, match="holds no medium"):
        purge(store, ["nobody.mp4"])

"""The dense pass on encoded clips: frames between those of the base pass, only where animals meet, each only once."""

import json
import shutil

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest
from test_detect import tables, write_video

from wildray.config import Config
from wildray.mining import company, dense
from wildray.mining.dense import plan_again
from wildray.mining.detect import detect
from wildray.mining.mine import mine
from wildray.mining.purge import purge
from wildray.packs import PackReader
from wildray.schema import FRAMES, MEDIA
from wildray.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")

BASE = {"detect.detector": "motion", "detect.base_interval": "1s", "detect.chunk": "13s"}
DENSE = {**BASE, "detect.dense_interval": "0.2s", "detect.dense_near": 0.3, "detect.dense_budget": 100}
FPS = 10


def meeting(path, *, seed=0, alone=False, num_frames=80, key_every=None):
    """Two bright squares of 30 px walk towards each other, are 3 px apart after 4 s, and part; 8 s.

    In no other whole second is the gap between them below 0.3 of their side.
    """
    rng = np.random.default_rng(seed)
    scene = rng.integers(60, 120, (90, 240, 1), dtype=np.int16).repeat(3, axis=2)
    images = []
    for number in range(num_frames):
        image = scene + rng.integers(-2, 3, scene.shape)
        away = 2 * abs(number - 40)
        image[30:60, 85 - away if away < 80 else 5 :][:, :30] = 230
        if not alone:
            image[30:60, 118 + away :][:, :30] = 230
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return write_video(path, images, fps=FPS, key_every=key_every)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    for camera, seeds in {"a": (1, 2), "b": (3,)}.items():
        (folder / camera).mkdir()
        for seed in seeds:
            meeting(folder / camera / f"clip {seed}.mp4", seed=seed)
    meeting(folder / "b" / "alone.mp4", seed=4, alone=True)
    return folder


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def run(store, *media, settings=DENSE, **more):
    return detect(Config.load(None, {**settings, **more}), store, [str(path) for path in media])


def assert_same(ours, theirs, *, but=()):
    for name, table in theirs.items():
        assert (
            ours[name]
            .drop_columns([c for c in but if c in table.column_names])
            .equals(table.drop_columns([c for c in but if c in table.column_names]))
        ), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory, footage, ray_session):
    store = Store.open(tmp_path_factory.mktemp("whole") / "store", create=True)
    result = run(store, footage)
    return store, result, tables(store, result.digest)


def test_frames_are_added_where_animals_meet_and_nowhere_else(whole, footage, store):
    _, result, found = whole
    assert run(store, footage, settings=BASE).digest == result.digest, "the dense pass does not rename the collection"
    base = tables(store, result.digest)
    assert_same({"media": found["media"]}, {"media": base["media"]})
    added = found["frames"].filter(pc.equal(found["frames"]["sampling_pass"], 1))
    kept = found["frames"].filter(pc.equal(found["frames"]["sampling_pass"], 0))
    assert kept.equals(base["frames"]), "frames of the base pass are not touched"
    assert result.num_dense_frames == added.num_rows
    assert result.num_frames == found["frames"].num_rows == base["frames"].num_rows + added.num_rows
    alone = next(row["media_id"] for row in found["media"].to_pylist() if row["uri"].endswith("alone.mp4"))
    assert alone not in added["media_id"].to_pylist()
    assert len(added["media_id"].unique()) == 3
    for medium in added["media_id"].unique():
        times = added.filter(pc.equal(added["media_id"], medium))["time_s"].to_numpy()
        expected = [time for second in (3, 4) for time in second + 0.2 * np.arange(1, 5)]
        np.testing.assert_allclose(times, expected, atol=1e-6)
    keys = list(zip(*(found["frames"][name].to_pylist() for name in ("media_id", "frame_index")), strict=True))
    assert len(set(keys)) == len(keys)
    in_both = pc.is_in(found["detections"]["detection_id"], base["detections"]["detection_id"])
    assert found["detections"].filter(in_both).equals(base["detections"])


def test_boxes_of_the_dense_pass_are_as_those_of_the_base_pass(whole):
    store, result, found = whole
    boxes = found["detections"].to_pylist()
    passes = {(f["media_id"], f["frame_index"]): f["sampling_pass"] for f in found["frames"].to_pylist()}
    added = [row for row in boxes if passes[row["media_id"], row["frame_index"]] == 1]
    assert len(added) >= 2 * 3 * 6
    reader = PackReader(store, ("crops", result.digest))
    for row in added:
        assert row["motion"] > 0.3
        assert np.mean(row["colour"][::2]) > 120
        assert reader.image(row["crop_pack"], row["crop_row"]).mean() > 120
        behind = reader.background(row["crop_pack"], row["crop_row"])
        assert 80 < behind.mean() < 100, "the scene without the squares, which in its span stand there all the time"


def test_one_and_two_workers_and_earlier_and_later_passes_give_the_same(whole, footage, store, tmp_path):
    _, result, found = whole
    one = Store.open(tmp_path / "one", create=True)
    assert run(one, footage, **{"scale.workers": 1}).digest == result.digest
    assert_same(tables(one, result.digest), found)
    first = run(store, footage, settings=BASE)
    assert first.num_dense_frames == 0
    before = store.collection("detections", first.digest).finished()
    later = run(store, footage)
    assert (later.num_new, later.num_dense_frames) == (0, result.num_dense_frames)
    after = store.collection("detections", first.digest).finished()
    assert {chunk: after[chunk] for chunk in before} == before
    assert_same(tables(store, first.digest), found)
    assert run(store, footage).num_frames == later.num_frames
    assert store.collection("detections", first.digest).finished() == after, "a third call finds nothing to do"


class KilledError(BaseException):
    """Ends a stage as a kill would."""


@pytest.mark.parametrize("at", ["before the plan", "after the plan", "between two chunks"])
def test_killed_and_resumed_is_as_uninterrupted(whole, footage, store, monkeypatch, at):
    _, result, found = whole
    real = Store.write_text

    def dies(self, text, *parts):
        if "-dense-" not in parts[-1] or at == "between two chunks":
            return real(self, text, *parts)
        if at == "after the plan":
            real(self, text, *parts)
        raise KilledError

    monkeypatch.setattr(Store, "write_text", dies)
    if at == "between two chunks":
        run(store, footage)
        collection = store.collection("detections", result.digest)
        last = max(chunk for chunk, record in collection.finished().items() if "again" in record)
        store.path("detections", result.digest, ".chunks", f"{last}.done.json").unlink()
        for place in ("frames", "detections", "media"):
            store.path(place, result.digest, f"{last}.parquet").unlink()
    else:
        with pytest.raises(KilledError):
            run(store, footage)
    monkeypatch.undo()
    assert run(store, footage).num_dense_frames == result.num_dense_frames
    assert_same(tables(store, result.digest), found)


def test_new_media_get_their_own_dense_pass(whole, footage, store):
    _, result, found = whole
    run(store, footage / "a")
    before = store.collection("detections", result.digest).finished()
    assert run(store, footage).num_dense_frames == result.num_dense_frames
    after = store.collection("detections", result.digest).finished()
    assert {chunk: after[chunk] for chunk in before} == before
    assert_same(tables(store, result.digest), found, but=["crop_pack", "crop_row"])


def test_media_of_other_calls_wait_for_theirs_and_other_settings_add_frames(footage, store):
    run(store, footage / "a", footage / "b", settings=BASE, **{"detect.chunk": "1s"})
    one = footage / "a" / "clip 1.mp4"
    per_clip = 8
    first = run(store, one, **{"detect.chunk": "1s"})
    assert first.num_dense_frames == per_clip
    finer = run(store, one, **{"detect.dense_interval": "0.1s"})
    assert finer.num_dense_frames == 2 * 9, "all frames between 3 s and 5 s, those that were there included"
    frames = tables(store, first.digest)["frames"]
    keys = list(zip(*(frames[name].to_pylist() for name in ("media_id", "frame_index")), strict=True))
    assert len(set(keys)) == len(keys) == finer.num_frames
    everywhere = run(store, footage, **{"detect.dense_where": "animals"})
    assert everywhere.num_dense_frames > 3 * 2 * per_clip


def test_the_budget_is_kept(footage, store):
    small = run(store, footage, **{"detect.dense_budget": 0.4})
    assert small.num_dense_frames == 12, "three spans of four frames: the most of 0.4 a second in four clips of 8 s"
    assert run(store, footage, **{"detect.dense_budget": 0.0}).num_dense_frames == small.num_dense_frames
    assert run(store, footage).num_dense_frames > small.num_dense_frames


def test_key_frames_first_then_exact_ones(store, tmp_path):
    clip = meeting(tmp_path / "clip.mp4", key_every=12)
    result = run(store, clip, **{"detect.sampling": "keyframe", "detect.dense_near": 0.7})
    frames = tables(store, result.digest)["frames"]
    base = frames.filter(pc.equal(frames["sampling_pass"], 0))["frame_index"].to_pylist()
    assert all(index % 12 == 0 for index in base)
    assert 36 in base
    added = frames.filter(pc.equal(frames["sampling_pass"], 1))["frame_index"].to_pylist()
    assert added == [index for index in range(24, 48, 2) if index not in base], "on both sides of that key frame"


def test_small_looks_and_chunks_give_the_same(whole, footage, store, monkeypatch):
    _, result, found = whole
    monkeypatch.setattr(company, "LOOK_FRAMES", 5)
    monkeypatch.setattr(dense, "LOOK_FRAMES", 5)
    run(store, footage)
    records = store.collection("detections", result.digest).finished().values()
    assert sum("again" in record for record in records) == 3 * 2, "two spans of a second in each of three clips"
    assert_same(tables(store, result.digest), found, but=["crop_pack", "crop_row"])


def test_results_files_and_stills_have_no_dense_pass(store, tmp_path):
    cv2.imwrite(str(tmp_path / "still.jpg"), np.full((40, 60, 3), 90, np.uint8))
    assert run(store, tmp_path / "still.jpg", **{"detect.dense_where": "animals"}).num_dense_frames == 0
    boxes = [{"category": "1", "conf": 0.9, "bbox": [left, 0.1, 0.2, 0.2], "frame_number": 0} for left in (0.1, 0.3)]
    listed = {"file": "a.mp4", "frame_rate": 10.0, "frames_processed": [0, 10, 20], "detections": boxes}
    content = {"info": {"format_version": "1.5"}, "detection_categories": {"1": "animal"}, "images": [listed]}
    (tmp_path / "results.json").write_text(json.dumps(content))
    result = run(store, tmp_path / "results.json")
    assert (result.num_frames, result.num_detections, result.num_dense_frames) == (3, 2, 0)


def test_mine_uses_the_dense_frames_and_takes_no_stale_pairs(footage, store):
    run(store, footage, settings=BASE)
    config = Config.load(None, {"mine.interval": "0.2s", "mine.remove_static": False, "mine.min_margin": 0.0})
    before = mine(config, store)
    digest = run(store, footage).digest
    after = mine(config, store)
    assert after.digest != before.digest
    assert after.num_pairs > before.num_pairs + 3 * 10
    assert after.num_detections == tables(store, digest)["detections"].num_rows


def test_what_was_purged_gets_no_crop_from_the_dense_pass(footage, store):
    one = footage / "a" / "clip 1.mp4"
    run(store, one, settings=BASE)
    purge(store, [str(one)])
    result = run(store, one)
    assert result.num_dense_frames > 0
    found = tables(store, result.digest)["detections"]
    assert found["crop_pack"].null_count == found["colour"].null_count == found.num_rows


def test_a_file_that_is_gone_is_named_and_no_failure(footage, store, tmp_path, caplog):
    shutil.copytree(footage, tmp_path / "media")
    run(store, tmp_path / "media", settings=BASE)
    gone = tmp_path / "media" / "a" / "clip 1.mp4"
    config = Config.load(None, DENSE)
    collection = store.collection("detections", store.newest("detections"))
    media_ids = np.array(collection.read("media", MEDIA)["media_id"].to_pylist(), "S32")
    assert plan_again(config.detect, collection, collection.finished(), media_ids) > 0, "planned before the file goes"
    gone.unlink()
    with caplog.at_level("WARNING", logger="wildray"):
        result = run(store, tmp_path / "media" / "a" / "clip 2.mp4", tmp_path / "media" / "b")
    assert "1 media could not be looked at a second time" in caplog.text
    assert result.num_failed == 0
    assert result.num_dense_frames == 2 * 8
    assert collection.read("frames", FRAMES).num_rows == result.num_frames

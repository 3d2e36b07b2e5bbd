"""Killed at any moment and run again, a stage ends with the rows of an uninterrupted run."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from test_detect import walker

from wildray.schema import DETECTIONS, FRAMES, MEDIA, PAIRS, STATIC
from wildray.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DENSE = ["--detect.dense-interval", "0.2s", "--detect.dense-where", "animals"]
DETECT = ["--detect.detector", "motion", "--detect.chunk", "4s", "--scale.workers", "2", *DENSE]
MINE = ["--mine.interval", "0.5s", "--mine.remove-static", "false"]


def wildray(*arguments):
    command = [sys.executable, "-m", "wildray", *map(str, arguments), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def to_the_end(*arguments):
    process = wildray(*arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def killed_after(seconds, *arguments):
    """Whether it was still at work when its whole process group was killed."""
    process = wildray(*arguments)
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    for seed in range(12):
        (folder / f"cam{seed % 3}").mkdir(exist_ok=True)
        walker(folder / f"cam{seed % 3}" / f"{seed:02d}.mp4", seed=seed)
    return folder


def tables(store, stage, digest, schemas):
    collection = Store.open(store).collection(stage, digest)
    return {name: collection.read(name, schema) for name, (schema, key) in schemas.items()}


def assert_equal(ours, theirs, schemas):
    for name, (_, keys) in schemas.items():
        order = [(key, "ascending") for key in keys]
        assert ours[name].sort_by(order).equals(theirs[name].sort_by(order)), name


def visible(folder):
    return sorted(path.name for path in folder.rglob("*.parquet") if not path.name.startswith("."))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, footage):
    store = tmp_path_factory.mktemp("whole") / "store"
    begun = time.monotonic()
    found = to_the_end("detect", footage, "--store", store, *DETECT)
    assert found["num_dense_frames"] > 50
    return store, found["digest"], time.monotonic() - begun


def test_detect(tmp_path, footage, uninterrupted):
    whole, digest, seconds = uninterrupted
    rng = random.Random(1)
    store = tmp_path / "store"
    for third in range(3):
        killed_after(seconds * (third + rng.random()) / 3, "detect", footage, "--store", store, *DETECT)
    again = to_the_end("detect", footage, "--store", store, *DETECT)
    assert again["digest"] == digest
    schemas = {
        "media": (MEDIA, ["media_id"]),
        "frames": (FRAMES, ["media_id", "frame_index"]),
        "detections": (DETECTIONS, ["detection_id"]),
    }
    assert_equal(tables(store, "detections", digest, schemas), tables(whole, "detections", digest, schemas), schemas)
    assert visible(store / "detections") == visible(whole / "detections")


def test_mine(tmp_path, uninterrupted):
    whole, _, _ = uninterrupted
    begun = time.monotonic()
    mined = to_the_end("mine", "--store", whole, *MINE)
    seconds = time.monotonic() - begun
    schemas = {"pairs": (PAIRS, ["anchor_id", "positive_id"]), "static": (STATIC, ["detection_id"])}
    expected = tables(whole, "pairs", mined["digest"], schemas)
    assert mined["num_pairs"] > 20
    rng = random.Random(2)
    subprocess.run(["cp", "-r", whole, tmp_path / "store"], check=True)
    subprocess.run(["rm", "-rf", tmp_path / "store" / "pairs", tmp_path / "store" / "static"], check=True)
    for third in range(3):
        killed_after(seconds * (third + rng.random()) / 3, "mine", "--store", tmp_path / "store", *MINE)
    again = to_the_end("mine", "--store", tmp_path / "store", *MINE)
    assert again["digest"] == mined["digest"]
    assert_equal(tables(tmp_path / "store", "pairs", mined["digest"], schemas), expected, schemas)

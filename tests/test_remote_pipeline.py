"""The whole flow with its store in object storage, killed on the way: equal to that in a folder; slow."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from object_storage import BUCKET, server  # noqa: F401
from reserves import simulated
from safetensors.numpy import load

from wildray.schema import DETECTIONS, FRAMES, MEDIA, PAIRS
from wildray.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NETWORK = ["--backbone.name", "test_resnet", "--backbone.image-size", "48", "--train.precision", "fp32"]
TRAINING = ["--train.epochs", "6", "--train.batch-size", "16", "--train.checkpoint-steps", "3"]


@pytest.fixture(scope="module")
def reserve(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("reserve") / "r", videos=6, labelled=12)


def stages(reserve):
    data = ["--data", str(reserve / "labelled" / "metadata.csv")]
    detector = ["--detect.detector", "motion", "--detect.chunk", "30s"]
    return {
        "detect": ["detect", str(reserve / "media"), *detector],
        "mine": ["mine"],
        "pretrain": ["pretrain", "--run", "a", *NETWORK, *TRAINING, *data],
        "evaluate": ["evaluate", "--run", "a", *data],
        "report": ["report", "--run", "a"],
    }


def start(words, root, **options):
    return subprocess.Popen([sys.executable, "-m", "wildray", *words, "--store", root, "--json"], **options)


def run(words, root) -> dict:
    process = start(words, root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate()
    assert process.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


def kill(words, root, seen, seconds) -> None:
    """Start a stage and kill it some time after the store shows that it has begun its work."""
    process = start(words, root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not seen():
        time.sleep(0.1)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows(root) -> dict[str, list]:
    store = Store.open(root)
    found = {}
    for stage, tables in {
        "detections": {"media": MEDIA, "frames": FRAMES, "detections": DETECTIONS},
        "pairs": {"pairs": PAIRS},
    }.items():
        (digest,) = store.collections(stage)
        for name, schema in tables.items():
            table = store.collection(stage, digest).read(name, schema)
            found[name] = sorted(map(repr, table.to_pylist()))
    return found


def test_killed_in_detect_and_in_pretrain_it_ends_as_in_a_folder(server, reserve, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WILDRAY_CACHE", str(tmp_path / "cache"))
    folder, bucket = str(tmp_path / "folder"), f"s3://{BUCKET}/pipeline"
    store = Store(bucket)
    rng = random.Random(int(os.environ.get("WILDRAY_TEST_SEED", "0")))
    words = stages(reserve)
    expected = {name: run(words[name], folder) for name in ("detect", "mine", "pretrain", "evaluate")}
    kill(words["detect"], bucket, lambda: store.path("detections").is_dir(), rng.uniform(0, 4))
    run(words["detect"], bucket)
    run(words["mine"], bucket)
    kill(words["pretrain"], bucket, lambda: store.path("models", "a", "checkpoints").is_dir(), rng.uniform(0, 2))
    assert not store.path("models", "a", "result.json").is_file()
    found = {name: run(words[name], bucket) for name in ("pretrain", "evaluate", "report")}
    assert rows(bucket) == rows(folder)
    assert found["pretrain"]["loss"] == expected["pretrain"]["loss"]
    assert found["evaluate"]["mAP"] == expected["evaluate"]["mAP"]
    one, other = (
        load(Store(root).path("models", "a", "backbone.safetensors").read_bytes()) for root in (folder, bucket)
    )
    assert all((one[name] == other[name]).all() for name in one.keys() | other.keys())
    assert store.path("reports", "a.html").is_file()

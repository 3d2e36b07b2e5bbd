"""A real cluster of several nodes on this machine: the same results as on one, authentication, growth, a killed job."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import torch
from local import LocalCluster
from node_counts import NodeCounts
from reserves import simulated
from safetensors.torch import load_file

from wildray.cli.main import parse_words
from wildray.cli.submission import package, prepare
from wildray.schema import DETECTIONS, PAIRS
from wildray.store import Store

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "detect.detector": "motion",
    "detect.chunk": "20s",
    "mine.interval": "0.5s",
    "backbone.name": "test_resnet",
    "backbone.image-size": "48",
    "train.precision": "fp32",
    "train.epochs": "3",
    "train.batch-size": "16",
    "eval.exclude": "encounter",
    "scale.workers": "2",
    "scale.cpus-per-worker": "1",
}


@pytest.fixture(scope="module")
def reserve(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("reserve") / "r", videos=4, labelled=6)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(workers=2, labels={"wildray/work": "decode"}) as running:
        yield running


def pipeline(reserve, store):
    """The words of the pipeline, as any of the ways to run it takes them."""
    options = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    data = str(reserve / "labelled" / "metadata.csv")
    return ["pipeline", str(reserve / "media"), "--store", str(store), "--run", "a", "--data", data, *options]


def wildray(cluster, *words, status=0, **more):
    """A command that talks to the cluster; its JSON, and what it logged."""
    done = subprocess.run(
        [sys.executable, "-m", "wildray", *words, "--json"],
        env=cluster.environ() | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, **more,
    )  # fmt: skip
    assert done.returncode == status, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def on_one_node(reserve, tmp_path_factory):
    """The store that the same command makes on one node."""
    store = tmp_path_factory.mktemp("one") / "s"
    alone = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "wildray", *pipeline(reserve, store)]
    subprocess.run(command, env=alone | {"PYTHONPATH": str(ROOT)}, check=True)
    return store


def rows(store, stage, name, schema, key):
    opened = Store.open(store)
    (digest,) = opened.collections(stage)
    return opened.collection(stage, digest).read(name, schema).sort_by([(k, "ascending") for k in key])


def assert_same(store, other):
    """Equal detections and pairs, equal weights bit by bit."""
    for stage, schema, key in (
        ("detections", DETECTIONS, ["detection_id"]),
        ("pairs", PAIRS, ["anchor_id", "positive_id"]),
    ):
        ours, theirs = rows(store, stage, stage, schema, key), rows(other, stage, stage, schema, key)
        assert ours.num_rows > 20
        assert ours.equals(theirs), stage
    # tensors and not files, whose headers hold their facts in any order
    ours, theirs = (load_file(root / "models" / "a" / "backbone.safetensors") for root in (store, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_job_on_two_nodes_comes_to_what_one_node_does(cluster, reserve, on_one_node, tmp_path):
    """By Ray's own ``ray job submit`` and the entry point in jobs/."""
    words = pipeline(reserve, tmp_path / "s")
    folder = tmp_path / "code"
    package(prepare(words, parse_words), "sent", folder)
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard]
    command += ["--working-dir", str(folder), "--", "python", "jobs/pipeline.py", *words[1:], "--json"]
    done = subprocess.run(command, env=cluster.environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    result = next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    assert list(result) == ["detect", "mine", "pretrain", "evaluate", "page", "seconds"]
    assert result["pretrain"]["workers"] == 2
    assert Path(result["page"]).is_file()
    assert_same(tmp_path / "s", on_one_node)


def test_without_the_token_every_door_is_shut(cluster, tmp_path):
    for token, status in ((None, 401), ("f" * 64, 403)):
        request = urllib.request.Request(f"{cluster.dashboard}/api/jobs/")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        print("dashboard:", caught.value.code, caught.value.read())
        assert caught.value.code == status
    wrong = tmp_path / "token"
    wrong.write_text("f" * 64)
    wrong.chmod(0o600)
    strange = cluster.environ() | {"RAY_AUTH_TOKEN_PATH": str(wrong), "PYTHONPATH": str(ROOT)}
    none = cluster.environ(token=False) | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    submit = [
        sys.executable,
        "-m",
        "wildray",
        "submit",
        "mine",
        "--store",
        str(tmp_path),
        "--address",
        cluster.dashboard,
    ]
    for environment, said in ((strange, "refuses the token"), (none, "The cluster's token is not there")):
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, check=False)
        print("jobs:", done.stderr)
        assert done.returncode == 2
        assert said in done.stderr
    connect = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR'); print(len(ray.nodes()))"
    for address in (cluster.address, cluster.client):
        for environment in (strange, cluster.environ()):
            # Ray gives a client's server half a minute to start, which a busy machine may not do the first time
            for _ in range(1 if environment is strange else 3):
                command = [sys.executable, "-c", connect, address]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=180, check=False
                )
                print(address, done.returncode, done.stdout, done.stderr[-300:])
                if done.returncode == 0:
                    break
            assert (done.returncode == 0) == (environment is not strange)
    assert done.stdout.strip() == "3"
    found, _ = wildray(
        cluster, "submit", "mine", "--store", str(tmp_path), "--address", cluster.dashboard, "--follow", status=1
    )
    assert found["status"] == "FAILED"  # it ran: there is nothing to mine in that folder
    assert oct(cluster.token_file.stat().st_mode & 0o777) == "0o600"


def test_the_doctor_lists_the_nodes(cluster, tmp_path):
    found, _ = wildray(cluster, "doctor", "--address", cluster.address, "--store", str(tmp_path))
    nodes = [check for check in found["checks"] if check["name"].startswith("node ")]
    assert sorted(check["found"].partition(",")[0] for check in nodes) == ["0 CPUs", "1 CPUs", "1 CPUs"]
    assert sum("wildray/work=decode" in check["found"] for check in nodes) == 2
    on_nodes = {check["name"]: check for check in found["checks"] if check["name"].endswith("on the nodes")}
    assert list(on_nodes) == [f"{name} on the nodes" for name in ("Python", "ray", "torch", "wildray", "store")]
    assert {check["status"] for check in on_nodes.values()} == {"ok"}
    assert list(tmp_path.iterdir()) == []


def driver_of(store):
    """The process that a job's command runs as, once its first chunk is done."""
    end_s = time.monotonic() + 180
    while time.monotonic() < end_s:
        begun = list(store.glob("detections/*/done/*")) or list(store.glob("detections/**/*.parquet"))
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if begun and words[1:4] == ["-m", "wildray", "pipeline"] and str(store) in words:
                return process
        time.sleep(0.1)
    raise AssertionError("the job's driver was not seen")


def test_a_job_whose_driver_is_killed_goes_on(cluster, reserve, on_one_node, tmp_path):
    store = tmp_path / "s"
    words = ["submit", *pipeline(reserve, store), "--address", cluster.dashboard]
    first, _ = wildray(cluster, *words)
    assert first["state"] == "submitted"
    attached, _ = wildray(cluster, *words)
    assert (attached["submission_id"], attached["state"]) == (first["submission_id"], "running")
    driver_of(store).send_signal(signal.SIGKILL)
    ended, _ = wildray(
        cluster, "submit", "--status", first["submission_id"], "--address", cluster.dashboard, "--follow", status=137
    )
    assert ended["status"] == "FAILED"
    second, _ = wildray(cluster, *words, "--follow")
    assert second["submission_id"] == f"{first['submission_id']}-2"
    assert second["result"]["detect"]["num_failed"] == 0
    assert_same(store, on_one_node)
    third, _ = wildray(cluster, *words)
    assert (third["submission_id"], third["state"]) == (second["submission_id"], "finished before")


def test_workers_come_with_work_and_go_when_it_is_done(reserve, on_one_node, tmp_path):
    """From no worker at all, by Ray's autoscaler; the last workers go while the job still evaluates."""
    with LocalCluster(autoscale=2, idle_s=3) as growing:
        counts = NodeCounts(growing.num_workers)
        counts.start()
        time.sleep(3)
        words = [*pipeline(reserve, tmp_path / "s"), "--scale.grows", "true", "--eval.num-bootstrap", "4000000"]
        found, log = wildray(growing, "submit", *words, "--address", growing.dashboard, "--follow")
        ended_s = counts.elapsed_s
        counts.stop()
    print(counts.counts, "job ended at", ended_s)
    assert found["status"] == "SUCCEEDED", log[-5000:]
    numbers = [number for _, number in counts.counts]
    assert numbers[0] == 0
    assert max(numbers) == 2
    assert numbers[-1] == 0
    assert counts.counts[-1][0] < ended_s
    assert_same(tmp_path / "s", on_one_node)

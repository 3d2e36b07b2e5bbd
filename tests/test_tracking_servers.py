"""Four trials log at once to a database file, to MLflow's server and to PostgreSQL, and nothing is missing; slow."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from wildray.config import TrackingConfig
from wildray.errors import ConfigError
from wildray.runlog import default_uri, open_in, prepare, tracking_client, uri_of
from wildray.tracking import ENVIRONMENT, shown, ui_command

NUM_TRIALS, NUM_STEPS, KEYS = 4, 40, ("loss", "mAP", "embedding_rank")


@pytest.fixture
def folder(tmp_path):
    """A place that another user may enter too: PostgreSQL does not run as root."""
    path = tmp_path
    while path != path.parent and path.owner() == Path.home().owner() and path != Path("/tmp"):
        path.chmod(0o755)
        path = path.parent
    return tmp_path


@pytest.fixture
def sqlite(tmp_path):
    prepare(default_uri(tmp_path))
    return default_uri(tmp_path)


@pytest.fixture
def server(tmp_path):
    port = free_port()
    arguments = ["--backend-store-uri", default_uri(tmp_path), "--artifacts-destination", str(tmp_path / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments, "--port", str(port), "--workers", "2"],
        env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    wait_for(lambda: urllib.request.urlopen(f"{uri}/health", timeout=2).status == 200)
    yield uri
    os.killpg(process.pid, 15)
    process.wait(30)


@pytest.fixture
def postgres(folder):
    """A server of its own, from what Debian's package postgresql installs."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'wildray[postgres]'")
    binaries, data, port = programs[-1].parent, folder / "pg", free_port()
    data.mkdir()
    user = {}
    if os.geteuid() == 0:
        shutil.chown(data, "postgres")
        user = {"user": "postgres", "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "cwd": folder, **user}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "wildray", "-A", "trust"], check=True, **quiet)
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-k", "", "-h", "127.0.0.1"],
        stderr=subprocess.DEVNULL, **quiet,
    )  # fmt: skip
    create = [binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "wildray", "tracking"]
    wait_for(lambda: subprocess.run(create, stderr=subprocess.DEVNULL, **quiet).returncode == 0)
    yield f"postgresql://wildray@127.0.0.1:{port}/tracking"
    process.send_signal(signal.SIGINT)  # its fast shutdown: the tests' connections are still open
    process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if ready():
                return
        time.sleep(0.2)
    raise TimeoutError("no server answered")


def trial(uri: str, root: str, number: int, barrier) -> None:
    """What the process of a trial does."""
    picture = Path(root) / f"{number}.png"
    picture.write_bytes(b"png")
    barrier.wait()
    with open_in(TrackingConfig(uri=uri, experiment="sweep"), root, f"trial-{number}", {"stage": "trial"}) as log:
        log.params({"mine": {"min_iou": number}})
        for step in range(NUM_STEPS):
            log.metrics(dict.fromkeys(KEYS, number + step / NUM_STEPS), step)
        log.artifact(picture, "figures")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", "server", "postgres"])
def test_four_trials_that_log_at_once_lose_nothing(kind, request, tmp_path):
    uri = request.getfixturevalue(kind)
    root = tmp_path / "store"
    root.mkdir()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(NUM_TRIALS)
    processes = [context.Process(target=trial, args=(uri, str(root), number, barrier)) for number in range(NUM_TRIALS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    client = tracking_client(uri)
    experiment = client.get_experiment_by_name("sweep")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [f"trial-{number}" for number in range(NUM_TRIALS)]
    counted = 0
    for number in range(NUM_TRIALS):
        run = runs[f"trial-{number}"]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"mine.min_iou": str(number)}
        for key in KEYS:
            history = client.get_metric_history(run.info.run_id, key)
            assert sorted((one.step, one.value) for one in history) == [
                (step, number + step / NUM_STEPS) for step in range(NUM_STEPS)
            ]
            counted += len(history)
        assert [one.path for one in client.list_artifacts(run.info.run_id, "figures")] == [f"figures/{number}.png"]
    assert counted == NUM_TRIALS * NUM_STEPS * len(KEYS)
    assert not list(root.rglob("*.jsonl")), "nothing was kept for later"


def test_passwords_are_neither_taken_nor_printed(monkeypatch, tmp_path):
    secret = "postgresql://ann:s3cret@db:5432/mlflow"
    assert shown(secret) == "postgresql://ann:***@db:5432/mlflow"
    assert shown("http://host:5000") == "http://host:5000"
    with pytest.raises(ConfigError, match=r"ann:\*\*\*@db") as caught:
        uri_of(TrackingConfig(uri=secret), tmp_path)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    assert uri_of(TrackingConfig(), tmp_path) == secret
    assert uri_of(TrackingConfig(uri="http://host:5000"), tmp_path) == "http://host:5000"


def test_a_database_without_its_driver_is_refused_before_anything_is_logged(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for scheme, driver in (
        ("postgresql", "psycopg"),
        ("postgresql+psycopg2", "psycopg2"),
        ("mysql+pymysql", "pymysql"),
    ):
        with pytest.raises(ConfigError, match=rf"needs {driver}, which is not installed: pip install"):
            uri_of(TrackingConfig(uri=f"{scheme}://ann@db/mlflow"), tmp_path)


@pytest.mark.slow
def test_the_ui_answers_to_its_own_name_only(tmp_path):
    """A page of another site whose name was made to lead here (DNS rebinding) still says its own name."""
    port = free_port()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(ui_command(tmp_path, port=port), env={**os.environ, **ENVIRONMENT}, **silent)
    try:
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200)
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
        assert urllib.request.urlopen(address, timeout=20).status == 200
        request = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 403
        listening = [at.laddr for at in psutil.net_connections("tcp") if at.status == psutil.CONN_LISTEN]
        assert {at.ip for at in listening if at.port == port} == {"127.0.0.1"}
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)

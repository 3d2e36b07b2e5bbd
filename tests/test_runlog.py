"""Runs are found again, logging failures end nothing, and what was kept is replayed."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wildray.errors import ConfigError
from wildray.runlog import RunLog, check_uri, default_uri, open_run, prepare, tracking_client, ui_command
from wildray.spool import spool_file
from wildray.tracking import MAX_VALUE_CHARS, clean_key, flatten, reason_of


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, made once: the migration takes seconds."""
    folder = tmp_path_factory.mktemp("template")
    prepare(default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, template: Path) -> Path:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return tmp_path


def client(store: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=default_uri(store))


def history(store: Path, run: RunLog, key: str) -> list[tuple[int, float]]:
    assert run.run_id is not None
    return [(item.step, item.value) for item in client(store).get_metric_history(run.run_id, key)]


def test_a_restart_goes_on_in_the_same_run(store: Path) -> None:
    first = open_run(default_uri(store), "reserve", 'it\'s "one"', {"stage": "pretrain"})
    first.params({"train": {"epochs": 3, "views": "temporal"}, "mine": {"categories": ("animal",)}})
    first.metrics({"loss": 2.0}, 0)
    first.metrics({"loss": 1.5}, 1)  # killed here: no close
    second = open_run(default_uri(store), "reserve", 'it\'s "one"', {"stage": "pretrain"})
    assert second.run_id == first.run_id
    second.params({"train": {"epochs": 5, "views": "temporal"}})
    second.metrics({"loss": 1.5}, 1)  # done again after the checkpoint
    second.metrics({"loss": 1.0}, 2)
    second.close()
    assert history(store, second, "loss") == [(0, 2.0), (1, 1.5), (2, 1.0)]
    run = client(store).get_run(second.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == 'it\'s "one"'
    assert run.data.params == {"train.epochs": "3", "train.views": "temporal", "mine.categories": '["animal"]'}
    assert run.data.tags["changed.train.epochs"] == "5"
    assert run.data.tags["stage"] == "pretrain"
    assert "changed.train.views" not in run.data.tags


def test_other_names_and_experiments_are_other_runs(store: Path) -> None:
    uri = default_uri(store)
    runs = [open_run(uri, experiment, name, {}) for experiment, name in (("a", "x"), ("a", "y"), ("b", "x"))]
    assert len({run.run_id for run in runs}) == 3


def test_artefacts_lie_in_the_store(store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    with open_run(default_uri(store), "reserve", "pictures", {}) as run:
        run.artifact(picture, "figures")
        run.artifact(tmp_path / "missing.png")
    copies = list((store / "mlartifacts").rglob("figures/picture.png"))
    assert [copy.read_bytes() for copy in copies] == [b"png"]


def test_a_run_ends_when_it_is_said_to_have_ended(store: Path) -> None:
    log = open_run(default_uri(store), "e", "late", {})
    log.close("FINISHED", at_s=1_700_000_000.5)
    assert client(store).get_run(log.run_id).info.end_time == 1_700_000_000_500


def test_the_status_says_how_the_block_ended(store: Path) -> None:
    for error, status in ((None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        run = open_run(default_uri(store), "reserve", f"ended-{status}", {})
        try:
            with run:
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert client(store).get_run(run.run_id).info.status == status


def test_numbers_that_are_none_are_dropped_with_one_line(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = open_run(default_uri(store), "reserve", "nan", {})
    for step in range(3):
        run.metrics({"loss": float("nan"), "mAP@5": 0.5}, step)
    assert history(store, run, "mAP_5") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert history(store, run, "loss") == []
    assert [record.message for record in caplog.records if "loss" in record.message] == [
        "The metric loss was nan at step 0 and is not logged."
    ]


def test_a_failure_ends_nothing_and_is_replayed(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    uri, picture = default_uri(store), store / "curve.png"
    picture.write_bytes(b"png")
    run = open_run(uri, "reserve", "broken", {})
    run.metrics({"loss": 3.0}, 0)

    def fails(*args: object, **kwargs: object) -> None:
        raise OSError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", fails)
        run.metrics({"loss": 2.0}, 1)
        run.params({"seed": 1})
        run.metrics({"loss": 1.0}, 2)
        run.artifact(picture)
        run.close("FINISHED")  # tries once more, and fails
    assert sum("Logging to" in record.message for record in caplog.records) == 2  # at the first failure and at close
    assert history(store, run, "loss") == [(0, 3.0)]
    again = open_run(uri, "reserve", "broken", {})
    assert again.run_id == run.run_id
    again.close()
    assert history(store, again, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert client(store).get_run(run.run_id).data.params == {"seed": "1"}
    assert list((store / "mlartifacts").rglob("curve.png"))
    assert list((store / "mlspool").iterdir()) == []


def test_an_error_of_the_database_is_one_line(
    store: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # handlers of earlier tests have closed streams
    run = open_run(default_uri(store), "reserve", "full", {})
    with sqlite3.connect(store / "mlflow.db") as database:  # an OperationalError, as of a full disk
        database.execute("DROP TABLE latest_metrics")
    run.metrics({"loss": 1.0}, 0)
    (told,) = [record.message for record in caplog.records if "Logging to" in record.message]
    assert "(sqlite3.OperationalError) no such table: latest_metrics" in told
    assert "Traceback" not in capfd.readouterr().err


def test_the_reason_is_what_is_wrong() -> None:
    first = "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)"
    full = "(sqlite3.OperationalError) database or disk is full"
    assert reason_of(OSError(f"{first}\n{full}\n[SQL: UPDATE runs]")) == full
    assert reason_of(OSError(first)) == first
    assert reason_of(OSError()) == "OSError"


def test_a_replay_that_stops_half_way_repeats_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = default_uri(store)
    spool = spool_file(uri, "reserve", "half", None)
    spool.parent.mkdir()
    entries = [{"do": "metrics", "values": {"loss": float(step)}, "step": step, "time_ms": step} for step in range(3)]
    spool.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"do": "metr')
    real, calls = RunLog._apply, []

    def fails_at_the_second(self: RunLog, client: Any, entry: Any) -> None:
        calls.append(entry)
        if len(calls) == 2:
            raise OSError("away")
        real(self, client, entry)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "_apply", fails_at_the_second)
        open_run(uri, "reserve", "half", {})
    assert [json.loads(line)["step"] for line in spool.read_text().splitlines()] == [1, 2]
    run = open_run(uri, "reserve", "half", {})
    assert history(store, run, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_database_out_of_reach_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    run = open_run(uri, "reserve", "away", {}, spool_folder=tmp_path / "kept")
    run.metrics({"loss": 1.0}, 0)
    run.close()
    assert run.run_id is None
    assert run.url is None
    assert next(record.levelno for record in caplog.records if "Logging to" in record.message) == logging.WARNING
    (kept,) = (tmp_path / "kept").iterdir()
    assert json.loads(kept.read_text())["values"] == {"loss": 1.0}


def test_without_a_uri_nothing_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run(None, "reserve", "silent", {}) as run:
        run.metrics({"loss": 1.0}, 0)
    assert list(tmp_path.iterdir()) == []


def _write(uri: str, number: int) -> None:
    prepare(uri)
    with open_run(uri, "many", f"writer-{number}", {}) as run:
        run.metrics({"loss": float(number)}, 0)
    os._exit(0 if run.run_id else 1)


@pytest.mark.slow
def test_four_writers_of_a_fresh_database(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(default_uri(tmp_path), number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    experiment = client(tmp_path).get_experiment_by_name("many")
    assert len(client(tmp_path).search_runs([experiment.experiment_id])) == 4


@pytest.mark.parametrize(
    "uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "sqlite:///mlflow.db", "sqlite:////tmp/a?b/mlflow.db"]
)
def test_uris_that_lose_writes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        open_run(uri, "reserve", "x", {})


def test_several_machines_need_a_server() -> None:
    check_uri("sqlite:////data/mlflow.db", num_nodes=1)
    check_uri("http://tracker:5000", num_nodes=8)
    with pytest.raises(ConfigError, match=r"mlflow server --backend-store-uri sqlite:////data/mlflow\.db"):
        check_uri("sqlite:////data/mlflow.db", num_nodes=2)
    with pytest.raises(ConfigError, match="mlflow server"):
        default_uri("s3://bucket/store")


@pytest.mark.parametrize(
    ("key", "cleaned"),
    [("cmc@5", "cmc_5"), ("a/../b", "a/b"), ("/x//y/", "x/y"), ("", "_"), ("ключ", "____"), ("k" * 300, "k" * 250)],
)
def test_names_that_mlflow_takes(key: str, cleaned: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert clean_key(key) == cleaned
    _validate_metric_name(clean_key(key))


def test_long_values_are_cut() -> None:
    ((key, value),) = flatten({"a": {"b": "x" * 7000}})
    assert key == "a.b"
    assert len(value) == MAX_VALUE_CHARS


def test_the_server_is_bound_to_this_machine(tmp_path: Path) -> None:
    command = ui_command(tmp_path)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--host"] == "127.0.0.1"
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert options["--allowed-hosts"] == "127.0.0.1:5000,localhost:5000"


def test_importing_it_is_cheap() -> None:
    code = "import sys, wildray.runlog; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_run_was_made_of_is_a_dataset_once(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):
        with open_run(uri, "e", "r", {}) as log:
            log.input("pairs", "a" * 16, uri="/store/pairs/a", context="training", facts={"num_pairs": 7, "mine": {}})
    (known,) = tracking_client(uri).get_run(log.run_id).inputs.dataset_inputs
    assert (known.dataset.name, known.dataset.digest) == ("pairs", "a" * 16)
    assert json.loads(known.dataset.profile)["num_pairs"] == 7
    assert [tag.value for tag in known.tags] == ["training"]

"""Whole sweeps through the command, on two cores and a reserve of a few videos; slow."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient
from reserves import simulated

from wildray.store import Store
from wildray.trials import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

BASE = {
    "detect": {"detector": "motion", "chunk": "60s"},
    "backbone": {"name": "test_resnet", "image_size": 48},
    "train": {"method": "simclr", "precision": "fp32"},
    "eval": {"exclude": ["encounter"]},
}
BUDGET = {"images": 480, "images_per_step": 16, "measurements": 3}


@pytest.fixture(scope="module")
def reserve(tmp_path_factory):
    """Footage and labelled images of a few animals."""
    return simulated(tmp_path_factory.mktemp("reserve") / "r", videos=6, labelled=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of the store, which sweeps share."""
    return tmp_path_factory.mktemp("store") / "s"


def sweep_file(folder: Path, reserve: Path, name: str, **parts) -> Path:
    content = {
        "media": [str(reserve / "media")],
        "data": str(reserve / "labelled" / "metadata.csv"),
        "base": BASE,
        "budget": BUDGET,
        **parts,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def command(path: Path, root: Path) -> list[str]:
    return [sys.executable, "-m", "wildray", "sweep", str(path), "--store", str(root), "--json"]


def run(path: Path, root: Path) -> dict:
    done = subprocess.run(command(path, root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def tracked(root: Path, name: str):
    """MLflow's runs of a sweep: the parent, and the children by name."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [one for one in runs if one.info.run_name == name]
    return client, parent, {one.info.run_name: one for one in runs if one is not parent}


def test_a_sweep_shares_halves_tests_and_is_tracked(tmp_path, reserve, root):
    search = {"mine.min_iou": [0.1, 0.5], "mine.interval": ["0.5s", "1s"]}
    path = sweep_file(tmp_path, reserve, "halved", search=search, scheduler={"kind": "asha", "reduction": 2})
    result = run(path, root)
    assert result["num_trials"] == result["num_finished"] + result["num_stopped"] == 4
    assert result["num_failed"] == 0
    store = Store.open(root)
    records = Ledger(store, "halved").all()
    assert len({record.pairs for record in records}) == 4
    assert len(list(store.path("pairs").glob("*/collection.json"))) == 4
    assert len(list(store.path("detections").glob("*/collection.json"))) == 1
    assert all(record.num_images == 160 * len(record.history) for record in records)
    best = result["best"]
    assert best["test"]["mAP_low"] <= best["test"]["mAP"] <= best["test"]["mAP_high"]
    assert Path(result["page"]).is_file()
    client, parent, children = tracked(root, "halved")
    assert parent.info.status == "FINISHED"
    assert set(children) == {record.trial for record in records}
    for record in records:
        one = children[record.trial]
        assert one.info.status == "FINISHED"
        assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
        steps = [metric.step for metric in client.get_metric_history(one.info.run_id, "mAP")]
        assert steps == [epoch["epoch"] for epoch in record.history]
        inputs = {one.tags[0].value: one.dataset for one in one.inputs.dataset_inputs}
        assert inputs["training"].digest == record.pairs
        validation = Ledger(store, "halved").read_sweep()["split"]["validation"]
        assert inputs["evaluation"].digest == validation["digest"]
        assert json.loads(inputs["evaluation"].profile)["num_identities"] == validation["num_identities"]
    assert client.get_model_version_by_alias("halved", "best").run_id == children[best["trial"]].info.run_id
    again = run(path, root)
    assert again["best"] == best
    assert [record.ended_at for record in Ledger(store, "halved").all()] == [record.ended_at for record in records]


def kill_a_training_worker(process: subprocess.Popen, *, within_s: float = 120.0) -> None:
    """SIGKILL of the first process that trains."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(name in " ".join(child.cmdline()) for name in ("TrainWorker", "ImplicitFunc")):
                    child.kill()
                    return
        time.sleep(0.2)
    pytest.fail("no worker was seen")


def test_a_killed_sweep_goes_on(tmp_path, reserve, root):
    path = sweep_file(tmp_path, reserve, "killed", search={"train.learning_rate": [0.001, 0.002, 0.003]})
    ledger = Ledger(Store.open(root, create=True), "killed")
    rng = random.Random(int(os.environ.get("WILDRAY_TEST_SEED", "0")))
    for num_begun in (1, 2):  # the third is left for the worker that is killed
        process = subprocess.Popen(command(path, root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and num_begun > sum(r.began_at is not None for r in ledger.all()):
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert sum(record.ended for record in ledger.all()) < 3
    process = subprocess.Popen(command(path, root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kill_a_training_worker(process)
    out, err = process.communicate()
    assert process.returncode == 0, err[-4000:]
    result = json.loads(out.splitlines()[-1])
    assert (result["num_trials"], result["num_finished"]) == (3, 3)
    client, _, children = tracked(root, "killed")
    assert len(children) == 3
    for one in children.values():
        assert one.info.status == "FINISHED"
        assert [metric.step for metric in client.get_metric_history(one.info.run_id, "loss")] == [1, 2, 3]


def test_a_broken_trial_is_a_row_with_its_reason(tmp_path, reserve, root):
    budget = {"images": 480, "measurements": 3}
    search = {"train.method": ["simclr", "dinov2"], "train.batch_size": [8, 100_000]}  # dinov2 wants a transformer
    path = sweep_file(tmp_path, reserve, "broken", search=search, budget=budget)
    planned = subprocess.run([*command(path, root), "--dry-run"], capture_output=True, text=True, check=True)
    assert json.loads(planned.stdout.splitlines()[-1])["num_impossible"] == 2
    result = run(path, root)
    assert (result["num_finished"], result["num_failed"]) == (1, 3)
    _, parent, children = tracked(root, "broken")
    for record in Ledger(Store.open(root), "broken").all():
        if record.settings == {"train.method": "simclr", "train.batch_size": 8}:
            continue
        reason = "no patch tokens" if record.settings["train.method"] == "dinov2" else "do not fill a batch of 100000"
        assert record.status == "failed"
        assert reason in record.reason
        run_of = children[record.trial]
        assert run_of.info.status == "FAILED"
        assert run_of.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert reason in run_of.data.tags["wildray.status"]


def test_a_population_exchanges_and_goes_on_when_killed(tmp_path, reserve, root):
    search = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "method.temperature": [0.1, 0.2, 0.4]}
    path = sweep_file(
        tmp_path, reserve, "evolved", search=search, algorithm={"kind": "random"},
        scheduler={"kind": "pbt", "interval": 2}, budget={**BUDGET, "measurements": 3, "trials": 3},
    )  # fmt: skip
    process = subprocess.Popen(command(path, root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(45)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run(path, root)
    assert (result["num_trials"], result["num_finished"], result["num_stopped"]) == (4, 3, 1)
    records = {record.trial: record for record in Ledger(Store.open(root), "evolved").all()}
    (branch,) = [record for record in records.values() if record.origin is not None]
    donor = records[branch.origin.donor]
    assert (branch.origin.epoch, branch.status) == (2, "finished")
    assert branch.history[:2] == donor.history[:2]
    assert branch.settings != donor.settings
    client, parent, children = tracked(root, "evolved")
    assert set(children) == set(records)
    for name, one in children.items():
        assert one.info.status == "FINISHED"
        assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
        steps = [metric.step for metric in client.get_metric_history(one.info.run_id, "mAP")]
        assert steps == [epoch["epoch"] for epoch in records[name].history]
    assert donor.trial in children[branch.trial].data.tags["donor"]


def test_optuna_supervised_and_seeds(tmp_path, reserve, root):
    search = {
        "train.method": ["arcface", "simclr"],
        "method.margin": {"uniform": [5, 50], "when": {"train.method": "arcface"}},
    }
    path = sweep_file(
        tmp_path, reserve, "optuna", search=search, algorithm={"kind": "optuna"}, seeds=[0, 1],
        budget={**BUDGET, "trials": 2}, split={"train": 0.4, "validation": 0.5},
    )  # fmt: skip
    result = run(path, root)
    assert result["num_trials"] == result["num_finished"] == 4
    records = Ledger(Store.open(root), "optuna").all()
    assert sorted(record.seed for record in records) == [0, 0, 1, 1]
    assert len({record.setting for record in records}) == 2
    _, parent, children = tracked(root, "optuna")
    settings = {name for name in children if name.startswith("optuna-setting-")}
    assert len(settings) == 2
    assert all(children[name].data.tags["mlflow.parentRunId"] == parent.info.run_id for name in settings)
    assert all("final/mAP_std" in children[name].data.metrics for name in settings)
    content = Ledger(Store.open(root), "optuna").read_sweep()
    assert list(content["untrained"]) == ["test_resnet/48"]
    assert content["split"]["train"]["num_identities"] > 1

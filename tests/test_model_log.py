"""Models are logged and registered once, whole and without pickles; a server that fails is a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from logged_model import CONFIG, NAME, TOLERANCE, Logged, logged_model, mlflow_servers

from wildray.config import Config
from wildray.errors import ConfigError, WeightsError
from wildray.learning.first_backbone import load_backbone
from wildray.model_log import log_model, register_model, requirements
from wildray.runlog import open_run


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    with logged_model(tmp_path_factory.mktemp("logged")) as made:
        yield made


def test_nothing_is_pickled(logged: Logged) -> None:
    folder = Path(logged.client.get_logged_model(logged.model.model_id).artifact_location.removeprefix("file://"))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("registered_model_meta", None)  # mlflow notes there, as it loads, under which name it did: text
    assert set(files) == {
        "MLmodel", "served_model.py", "artifacts/backbone.safetensors", "conda.yaml", "python_env.yaml",
        "requirements.txt", "input_example.json", "serving_input_example.json",
    }  # fmt: skip
    for name, content in files.items():
        assert not content.startswith((b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), f"{name} is pickled"
    assert files["artifacts/backbone.safetensors"] == logged.weights.read_bytes()
    assert files["requirements.txt"].decode().split() == requirements()


def test_what_the_model_says_of_itself(logged: Logged) -> None:
    facts = logged.load().metadata.metadata
    assert facts["run"] == "trial"
    assert (facts["backbone"], facts["image_size"], facts["crop_longest_px"]) == ("test_resnet", 32, 90)
    version = logged.client.get_model_version_by_alias(NAME, "best")
    assert version.run_id == logged.run_id
    assert [output.model_id for output in logged.client.get_run(logged.run_id).outputs.model_outputs] == [
        logged.model.model_id
    ]
    assert logged.client.get_run(logged.run_id).data.params == {}  # the run's own parameters are runlog's


def test_twice_makes_nothing_new(logged: Logged) -> None:
    assert logged.log() == logged.model
    assert register_model(logged.uri, logged.model, NAME) == 1
    assert len(logged.client.search_model_versions(f"name = '{NAME}'")) == 1
    assert len(logged.client.search_logged_models([logged.client.get_run(logged.run_id).info.experiment_id])) == 1


def test_an_upload_that_was_cut_off_is_finished(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    run = open_run(logged.uri, "cut-off", "trial", {})
    assert run.run_id is not None
    call = {"run_name": "trial", "detect": CONFIG.detect}

    def dies(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "finalize_logged_model", dies)
        with pytest.raises(KeyboardInterrupt):
            log_model(logged.uri, run.run_id, logged.weights, **call)
    model = log_model(logged.uri, run.run_id, logged.weights, **call)
    found = logged.client.search_logged_models([logged.client.get_run(run.run_id).info.experiment_id])
    assert [(item.model_id, str(item.status)) for item in found] == [(model and model.model_id, "READY")]
    assert len(logged.client.get_run(run.run_id).outputs.model_outputs) == 1


def test_another_backbone_is_another_version_and_takes_the_alias(logged: Logged, tmp_path: Path) -> None:
    weights = tmp_path / "backbone.safetensors"
    load_backbone(CONFIG.backbone, seed=4).save(weights)
    run = open_run(logged.uri, "reserve", "other", {})
    assert run.run_id is not None
    other = log_model(logged.uri, run.run_id, weights, run_name="other", detect=CONFIG.detect)
    assert other is not None
    assert register_model(logged.uri, other, "second", alias="best") == 1
    assert register_model(logged.uri, logged.model, "second", alias="best") == 2
    assert register_model(logged.uri, other, "second", alias="best") == 1  # the better one again
    assert int(logged.client.get_model_version_by_alias("second", "best").version) == 1
    longer = Config.load(overrides={"detect.crop_longest_px": 91})
    cut = logged.log(config=longer)
    assert cut is not None
    assert cut.key != logged.model.key  # the same weights see other pixels


def test_a_database_out_of_reach_is_a_warning(logged: Logged, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    away = f"sqlite:///{tmp_path}/file/mlflow.db"
    assert logged.log(away) is None
    assert register_model(away, logged.model, NAME) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "was not logged" in caplog.text
    assert "was not registered" in caplog.text


def test_mistakes_are_named(logged: Logged, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        logged.log("mlruns")
    with pytest.raises(ConfigError, match="cannot be named"):
        register_model(logged.uri, logged.model, "a/b")
    with pytest.raises(WeightsError, match="cannot be read"):
        log_model(logged.uri, logged.run_id, tmp_path / "none.safetensors", run_name="x", detect=CONFIG.detect)


@pytest.mark.slow
def test_a_model_goes_through_a_server(logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1")
    words += ("--artifacts-destination", str(tmp_path / "kept"))
    with mlflow_servers() as start:
        url = start(*words, allowed=True)
        run = open_run(url, "reserve", "trial", {})
        assert run.run_id is not None
        call = {"run_name": "trial", "detect": CONFIG.detect}
        models = [log_model(url, run.run_id, logged.weights, **call) for _ in range(2)]
        assert models[0] is not None
        assert models[0] == models[1]
        assert [register_model(url, models[0], NAME) for _ in range(2)] == [1, 1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        np.testing.assert_allclose(logged.load().predict(logged.request), logged.vectors, atol=TOLERANCE)
    assert list((tmp_path / "kept").rglob("backbone.safetensors"))

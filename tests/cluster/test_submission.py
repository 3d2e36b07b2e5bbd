"""What is submitted, decided without a cluster: words, paths, names, code; and what nodes say of themselves."""

import json
import os
import stat
from pathlib import Path

import local
import pytest

from wildray.cli import node_checks, submission
from wildray.cli.cluster import NEEDED_ENVIRONMENT, check_needed_environment, check_token, prepare_environment
from wildray.cli.main import main, parse_words
from wildray.cli.submission import environment_variables, package, prepare, split_words
from wildray.cli.submit import last_object, next_name
from wildray.errors import ConfigError


def submitted(*words):
    return prepare(list(words), parse_words)


def test_words_are_parted_in_any_order():
    words = ["--follow", "pretrain", "--run", "a", "--address", "http://h:1", "--store=s", "--code=installed", "--json"]
    own, stage = split_words(words)
    assert own == ["--follow", "--address", "http://h:1", "--code=installed"]
    assert stage == ["pretrain", "--run", "a", "--store=s", "--json"]
    assert split_words(["--help"]) == (["--help"], [])
    assert split_words(["mine", "--help"]) == ([], ["mine", "--help"])
    arguments = parse_words(["submit", *words])
    assert (arguments.follow, arguments.address, arguments.json) == (True, "http://h:1", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes the stage first"),
        (["detcet"], "detect"),
        (["demo"], "Known"),
        (["mine", "--mine.min-iuo", "1"], "--mine.min-iou"),
        (["mine", "--mine.min-iou", "7"], "less than or equal to 1"),
        (["detect"], "MEDIA"),
        (["pretrain", "--run", "../x"], "run"),
        (["mine", "--config", "/no/such.yaml"], "/no/such.yaml"),
        (["sweep", "/no/such.yaml"], "/no/such.yaml"),
    ],
)
def test_what_a_stage_does_not_take_is_found_before_anything_is_sent(words, message):
    with pytest.raises(ConfigError, match=message):
        submitted(*words)


def test_paths_become_absolute_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = submitted("detect", "footage", "/far/away", "s3://bucket/x", "--store", "work", "--detect.detector", "motion")
    assert job.words[:3] == (str(tmp_path / "footage"), "/far/away", "s3://bucket/x")
    assert job.words[3:] == ("--store", str(tmp_path / "work"), "--detect.detector", "motion")
    job = submitted("pretrain", "--run", "work", "--store=s3://b/s", "--data", "m.csv", "--train.labels", "0" * 16)
    assert job.words == (
        *("--run", "work", "--store", "s3://b/s", "--data", str(tmp_path / "m.csv"), "--train.labels", "0" * 16),
    )
    assert submitted("mine").words == ("--store", str(tmp_path / "wildray-store"))
    assert submitted("mine", "--store", "a b").entrypoint == f"python -m wildray mine --store '{tmp_path}/a b'"


def test_settings_files_travel(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("mine: {min_iou: 0.3}\n")
    job = submitted("mine", "--store", "/s", "--config", str(config))
    assert job.words == ("--store", "/s", "--config", "submitted/c.yaml")
    folder = tmp_path / "package"
    assert package(job, "installed", folder) == {"working_dir": str(folder)}
    assert (folder / "submitted" / "c.yaml").read_text() == config.read_text()
    config.write_text("train: {labels: known.csv}\n")
    with pytest.raises(ConfigError, match="relative path known"):
        submitted("mine", "--store", "/s", "--config", str(config))
    assert submitted("mine", "--config", str(config), "--train.labels", "/k.csv").stage == "mine"


def test_a_job_is_named_by_command_and_settings(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("mine: {min_iou: 0.3}\n")
    names = [
        submitted("mine", "--store", "/s").name,
        submitted("mine", "--store", "/t").name,
        submitted("mine", "--store", "/s", "--config", str(config)).name,
    ]
    config.write_text("mine: {min_iou: 0.4}\n")
    names.append(submitted("mine", "--store", "/s", "--config", str(config)).name)
    assert len(set(names)) == 4
    assert submitted("mine", "--store", "/s", "--json").name == submitted("mine", "--store=/s", "-q").name == names[0]
    assert names[0].startswith("wildray-mine-")


@pytest.mark.parametrize(
    ("states", "again", "expected"),
    [
        ({}, False, ("a", "submitted")),
        ({"b": "RUNNING"}, False, ("a", "submitted")),
        ({"a": "PENDING"}, False, ("a", "running")),
        ({"a": "RUNNING"}, True, ("a", "running")),
        ({"a": "SUCCEEDED"}, False, ("a", "finished before")),
        ({"a": "SUCCEEDED"}, True, ("a-2", "submitted")),
        ({"a": "FAILED"}, False, ("a-2", "submitted")),
        ({"a": "STOPPED", "a-2": "FAILED"}, False, ("a-3", "submitted")),
        ({"a": "FAILED", "a-2": "RUNNING"}, False, ("a-2", "running")),
        ({"a": "FAILED", "a-2": "SUCCEEDED"}, False, ("a-2", "finished before")),
    ],
)
def test_the_same_job_is_not_run_twice(states, again, expected):
    assert next_name(states, "a", again=again) == expected


def test_only_code_is_sent(tmp_path):
    found = package(submitted("mine", "--store", "/s"), "sent", tmp_path / "p")
    sent = [path.relative_to(tmp_path / "p") for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert found == {"working_dir": str(tmp_path / "p")}
    assert {path.parts[0] for path in sent} == {"wildray", "jobs"}
    assert {path.suffix for path in sent} == {".py"}
    assert Path("wildray/cli/main.py") in sent
    assert Path("jobs/pipeline.py") in sent
    assert sum((tmp_path / "p" / path).stat().st_size for path in sent) < 3 * 2**20


def test_a_wheel_is_sent_where_it_is_one_and_not_too_large(tmp_path, monkeypatch):
    job = submitted("mine", "--store", "/s")
    wheel = tmp_path / "wildray-1-py3-none-any.whl"
    with pytest.raises(ConfigError, match="expected sent, installed or"):
        package(job, str(wheel), tmp_path / "p")
    wheel.write_bytes(b"x" * 2000)
    assert package(job, str(wheel), tmp_path / "p") == {"py_modules": [str(wheel)]}
    monkeypatch.setattr(submission, "MAX_PACKAGE_BYTES", 1000)
    with pytest.raises(ConfigError, match="largest file is wildray-1"):
        package(job, str(wheel), tmp_path / "p")
    assert package(job, "installed", tmp_path / "p") == {}


def test_names_of_secrets_are_sent_and_never_values(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    variables = environment_variables(["SECRET", "OTHER"])
    assert variables[NEEDED_ENVIRONMENT] == "SECRET,OTHER"
    assert "hunter2" not in str(variables)
    for wrong in ("SECRET=hunter2", "A B", ""):
        with pytest.raises(ConfigError, match="expected the name alone") as caught:
            environment_variables([wrong])
        assert "hunter2" not in str(caught.value)
    check_needed_environment({**variables, "SECRET": "x", "OTHER": "y"})
    check_needed_environment({})
    with pytest.raises(ConfigError, match="needs OTHER in its environment"):
        check_needed_environment({**variables, "SECRET": "x"})


def test_authentication_is_on_unless_switched_off(monkeypatch, tmp_path, caplog):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "x")  # so that what is set in between is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    prepare_environment("10.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in os.environ
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN is not set"):
        check_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(local.write_token(tmp_path / "token")))
    check_token()
    assert not caplog.records
    (tmp_path / "token").chmod(0o644)
    check_token()
    assert "chmod 600" in caplog.text
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_token()


def test_a_token_is_for_its_owner_and_new_each_time(tmp_path):
    mask = os.umask(0)
    try:
        first, second = local.write_token(tmp_path / "a"), local.write_token(tmp_path / "b")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert len(first.read_text()) == 64
    assert first.read_text() != second.read_text()
    with pytest.raises(FileExistsError):
        local.write_token(tmp_path / "a")


def test_ports_are_free_and_different():
    ports = local.free_ports(50)
    assert len(set(ports)) == 50
    assert not set(ports) & set(range(10002, 20000))


def test_the_result_is_the_last_object_of_the_log():
    log = 'x\n{"a": 1}\n{"b": 2}\n{broken\nthe end'
    assert last_object(log) == {"b": 2}
    assert last_object("nothing") is None


@pytest.mark.parametrize("words", [["mine"], ["--status", "x"]])
def test_without_an_address_nothing_is_submitted(words, capsys, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert main(["submit", *words, "--json"]) == 2
    assert "--address" in json.loads(capsys.readouterr().out)["error"]


def test_nodes_that_differ_are_named():
    own = node_checks.versions_here()
    looked = {
        "a": {"versions": own, "store": ""},
        "b": {"versions": {**own, "torch": "1.0", "wildray": None}, "store": "not there"},
        "c": {"error": "does not answer"},
    }
    checks = {check.name: check for check in node_checks.compare(looked)}
    assert checks["node c"].status == "missing"
    assert checks["Python on the nodes"].status == checks["ray on the nodes"].status == "ok"
    assert checks["torch on the nodes"].status == "warn"
    assert "1.0 on b" in checks["torch on the nodes"].found
    assert "not installed on b" in checks["wildray on the nodes"].found
    (store,) = node_checks.stores(looked, "/shared")
    assert (store.status, store.found) == ("missing", "/shared: b: not there")
    assert node_checks.compare({"a": {"versions": {**own, "ray": "1.0"}}})[1].status == "missing"

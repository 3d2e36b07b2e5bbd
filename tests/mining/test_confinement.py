"""A decoder that is taken over reaches nothing but the file it was given."""

import platform
import socket
import struct
import sys

import pytest
from escapes import ESCAPES, LIES

from wildray.mining.confinement import confine, filter_program
from wildray.mining.media import MediaItem, probe
from wildray.mining.sandbox import FrameSource

confined = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="no seccomp filter here"
)


@pytest.fixture(scope="module")
def source():
    with FrameSource(task="escapes:escape") as source:
        yield source


@confined
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_is_reached_from_the_decoding_process(name, source, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        path = tmp_path / f"{name}-{server.getsockname()[1]}"
        path.write_bytes(b"untouched")
        path.chmod(0o600)
        said = source.probe(str(path), "video")
        assert said["refused"] in ("PermissionError", "ValueError"), said  # resource makes a ValueError of it
        with pytest.raises(TimeoutError):
            server.accept()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"untouched"
    assert path.stat().st_mode & 0o777 == 0o600


@confined
def test_the_kernel_says_so():
    with FrameSource(task="escapes:read_status") as teller:
        said = teller.probe("/any.mp4", "video")
    assert said == {"NoNewPrivs": "1", "Seccomp": "2"}


def test_a_system_without_filters_is_told_apart(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert confine() is False


@pytest.mark.parametrize(("column", "architecture"), [(0, 0xC000003E), (1, 0xC00000B7)])
def test_a_filter_lets_through_what_decoding_needs_and_nothing_else(column, architecture):
    """The filter of each architecture, run here instruction by instruction."""
    program = filter_program(column, architecture, 77)
    assert len(program) < 4096  # BPF_MAXINSNS

    def verdict(number, *arguments, by=architecture):
        data = struct.pack("<iIQ6Q", number, by, 0, *(arguments + (0,) * (6 - len(arguments))))
        place = held = 0
        while True:
            code, true, false, operand = program[place]
            place += 1
            if code == 0x06:
                return operand
            if code == 0x20:
                (held,) = struct.unpack_from("<I", data, operand)
            else:
                hit = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}[code]
                place += true if hit else false

    allow, refuse = 0x7FFF0000, 0x00050000
    read, openat, clone, kill, sock, prlimit, clone3 = [
        (0, 257, 56, 62, 41, 302, 435),
        (63, 56, 220, 129, 198, 261, 435),
    ][column]
    assert verdict(read) == allow
    assert verdict(read, by=0x40000003) == refuse | 1  # 32-bit calls have other numbers
    assert verdict(0x40000000 + read) == refuse | 1
    assert verdict(sock) == refuse | 1
    assert verdict(openat, 0, 0, 0o2000000) == allow  # O_RDONLY | O_CLOEXEC
    assert verdict(openat, 0, 0, 1) == refuse | 13
    assert verdict(openat, 0, 0, 0o100) == refuse | 13
    assert verdict(clone, 0x3D0F00) == allow  # a thread, as glibc makes it
    assert verdict(clone, 17) == refuse | 1  # a process
    assert verdict(clone3) == refuse | 38
    assert verdict(kill, 77, 6) == allow
    assert verdict(kill, 1, 9) == refuse | 1
    assert verdict(prlimit, 0, 3, 0, 1 << 40) == allow  # asks
    assert verdict(prlimit, 0, 3, 1 << 40) == refuse | 1  # sets
    assert verdict(prlimit, 0, 3, 1) == refuse | 1


@pytest.mark.parametrize("name", LIES)
def test_facts_that_are_none_are_a_row_that_says_so(name, tmp_path):
    (tmp_path / f"{name}.mp4").write_bytes(b"anything")
    with FrameSource(task="escapes:lie") as liar:
        row = probe(MediaItem(str(tmp_path / f"{name}.mp4"), "video", "cam"), source=liar)
    assert row["status"] == "crashed"
    assert "facts that are none" in row["error"]
    assert row["duration_s"] is None

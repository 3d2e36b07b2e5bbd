import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from encoded import encode, full_decode

from wildray.errors import MediaError
from wildray.mining.sandbox import FrameSource
from wildray.mining.video import Frame


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=60, rate=30)


@pytest.fixture(scope="module")
def source():
    with FrameSource() as source:
        yield source


def gone(pid):
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_frames_come_through_unchanged(source, clip):
    reference = full_decode(clip)
    frames = list(source.decode(clip, "video", interval_s=0.5))
    assert [f.frame_index for f in frames] == [0, 15, 30, 45]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, reference[frame.frame_index][1])
        assert frame.time_s == pytest.approx(frame.frame_index / 30)
    assert source.report.num_frames == 60
    assert source.report.num_given == 4


def test_one_child_serves_many_files_and_survives_bad_ones(source, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("a text file " * 1000)
    list(source.decode(clip, "video"))
    child = source._process.pid
    for _ in range(3):
        with pytest.raises(MediaError, match="not readable as video"):
            list(source.decode(str(tmp_path / "text.mp4"), "video"))
        assert source.probe(clip, "video")["num_frames"] == 60
    assert source._process.pid == child


def test_an_answer_left_unread_does_not_mix_with_the_next(source, clip):
    abandoned = source.decode(clip, "video", interval_s=0.0)
    assert next(abandoned).frame_index == 0
    other = source.decode(clip, "video", frame_indices=[7])
    assert [f.frame_index for f in other] == [7]
    with pytest.raises(MediaError, match="later request"):
        list(abandoned)
    assert [f.frame_index for f in source.decode(clip, "video", frame_indices=[9])] == [9]


def test_a_crash_is_an_error_and_the_next_file_is_served():
    with FrameSource(task="encoded:crash") as source:
        frames = []
        with pytest.raises(MediaError, match="SIGSEGV") as caught:
            frames.extend(source.decode("/crash.mp4", "video"))
        assert caught.value.status == "crashed"
        assert len(list(source.decode("/fine.mp4", "video"))) == 1


def test_a_hang_is_ended_after_the_timeout_and_the_next_file_is_served():
    with FrameSource(task="encoded:hang", timeout_s=1.0) as source:
        assert len(list(source.decode("/fine.mp4", "video"))) == 1
        child = source._process.pid
        begun = time.monotonic()
        got = []
        with pytest.raises(MediaError, match="no progress for 1 s") as caught:
            got.extend(source.decode("/hang.mp4", "video"))
        assert caught.value.status == "timeout"
        assert len(got) == 1
        assert time.monotonic() - begun < 10
        assert gone(child)
        assert len(list(source.decode("/fine.mp4", "video"))) == 1


def test_slow_work_with_signs_of_life_is_not_ended():
    with FrameSource(task="encoded:slow_but_alive", timeout_s=1.5) as source:
        list(source.decode("/warm.mp4", "video"))  # the first answer may take longer
        assert list(source.decode("/slow.mp4", "video")) == []
        assert source.report is not None


def test_memory_is_capped():
    with FrameSource(task="encoded:devour", memory_mb=256) as source:
        with pytest.raises(MediaError, match="decode_memory_mb") as caught:
            source.probe("/large.mp4", "video")
        assert caught.value.status == "too_large"
    with FrameSource(task="encoded:devour", memory_mb=2048) as source:
        assert source.probe("/large.mp4", "video") == {"bytes": 1 << 30}


def test_the_child_cannot_write_files(tmp_path):
    with (
        FrameSource(task="encoded:write_file") as source,
        pytest.raises(MediaError, match=r"Permission denied|File too large"),
    ):
        source.probe(str(tmp_path / "new"), "video")
    assert not (tmp_path / "new").exists() or (tmp_path / "new").stat().st_size == 0


def test_the_childs_environment_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with FrameSource(task="encoded:show_environment") as source:
        seen = source.probe("/any.mp4", "video")
    assert "hidden" not in seen.values()
    assert set(seen) - {"LC_CTYPE"} <= {"PATH", "LD_LIBRARY_PATH", "LANG", "PYTHONPATH"} | {
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MALLOC_ARENA_MAX",
    }


def test_a_frame_larger_than_allowed_is_not_believed():
    with FrameSource(task="encoded:nonsense", max_pixels=1_000_000) as source:
        with pytest.raises(MediaError, match="5000 x 5000") as caught:
            list(source.decode("/any.mp4", "video"))
        assert caught.value.status == "crashed"


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"not json",
        b'{"type": "pickle"}',
        b'{"no": "type"}',
        b'{"type": "frame"}',
        b'{"type": "report", "num_frames": 1e400, "duration_s": 0, "num_given": 0}',
        b'{"type": "report", "num_frames": -1, "duration_s": 0, "num_given": 0}',
        b'{"type": "report", "num_frames": 1, "duration_s": NaN, "num_given": 0}',
        b'{"type": "frame", "height": 1, "width": 1, "frame_index": 5e10, "time_s": 0, "infrared": 0}',
        b'{"type": "frame", "height": 1, "width": 1, "frame_index": 0, "time_s": Infinity, "infrared": 0}',
        b'{"type": "error", "status": "done", "message": "all is well"}',
        b"[" * 100_000,
    ],
)
def test_nonsense_from_the_child_is_an_error(header, monkeypatch):
    ours, theirs = socket.socketpair()
    source = FrameSource()

    def start():
        source._channel = ours
        return ours

    monkeypatch.setattr(source, "_start", start)
    theirs.sendall(struct.pack("<I", len(header)) + header + bytes(3))  # and a pixel
    with theirs, pytest.raises(MediaError) as caught:
        list(source.decode("/any.mp4", "video"))
    assert caught.value.status == "crashed"


def test_few_frames_are_decoded_ahead_of_the_reader():
    with FrameSource(task="encoded:many_large_frames") as source:
        frames = source.decode("/any.mp4", "video")
        next(frames)
        time.sleep(1.0)
        asked_at = time.time()
        rest = list(frames)
    assert [int(f.image[0, 0, 0]) for f in rest] == list(range(1, 40))
    num_ahead = sum(f.time_s < asked_at for f in rest)
    assert 4 <= num_ahead <= 12  # so decoding goes on while a batch is worked on, and memory stays bounded


def test_the_child_ends_when_left(clip):
    source = FrameSource(task="encoded:show_pid")
    pid = next(source.decode("/any.mp4", "video")).frame_index
    source.close()
    assert gone(pid)
    source.close()  # harmless


def test_the_child_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys, time; from wildray.mining.sandbox import FrameSource; s = FrameSource(task='encoded:show_pid'); "
        "frames = s.decode('/any.mp4', 'video'); print(next(frames).frame_index, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    assert gone(pid)


def test_a_source_travels_without_its_child(source, clip):
    list(source.decode(clip, "video"))
    copy = pickle.loads(pickle.dumps(source))
    assert copy._process is None
    assert [f.frame_index for f in copy.decode(clip, "video", frame_indices=[3])] == [3]
    copy.close()


def test_messages_are_plain_json(source, clip):
    facts = source.probe(clip, "video")
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["fps"], facts["num_frames"], facts["width_px"], facts["height_px"]) == (30.0, 60, 64, 48)
    assert facts["duration_s"] == pytest.approx(2.0)
    assert isinstance(next(source.decode(clip, "video")), Frame)

import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import encode, full_decode, picture

from wildray.errors import MediaError
from wildray.mining.streams import open_video
from wildray.mining.video import Frame, Report, Request, decode_video, is_infrared

CONTAINERS = {
    "h264.mp4": {},
    "h264_open_group.mp4": {"options": {"x264-params": "open-gop=1:bframes=3"}},
    "h264_pyramid.mkv": {"options": {"x264-params": "b-pyramid=strict:bframes=4"}, "gop": 25},
    "h264_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:bframes=0"}, "gop": 20},
    "h264_b.avi": {},
    "h264.avi": {"options": {"bf": "0"}},
    "h264.ts": {},
    "mpeg4_b.avi": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 0},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "msmpeg4.asf": {"codec": "msmpeg4", "b_frames": 0},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}, "b_frames": 0},
}


def decode(path, **wanted):
    frames = [item for item in decode_video(Request(str(path), **wanted)) if item is not None]
    report = frames.pop()
    assert isinstance(report, Report)
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames, report


@pytest.mark.parametrize("name", CONTAINERS)
def test_numbers_times_and_pixels_equal_those_of_a_full_decode(tmp_path, name):
    path = encode(tmp_path / name, num_frames=75, **CONTAINERS[name])
    reference = full_decode(path)
    assert len(reference) == 75
    for wanted in (
        {"interval_s": 0.0},
        {"interval_s": 0.5},
        {"interval_s": 0.9},
        {"interval_s": 0.2, "start_s": 0.9, "stop_s": 1.8},
        {"interval_s": 0.5, "sampling": "keyframe"},
        {"frame_indices": (70, 3, 3, 41, 0)},
    ):
        frames, report = decode(path, **wanted)
        assert report.num_frames == 75
        assert report.note is None
        assert report.num_given == len(frames) > 0
        for frame in frames:
            assert frame.time_s == pytest.approx(frame.frame_index / 30, abs=5e-4)
            np.testing.assert_array_equal(frame.image, reference[frame.frame_index][1])
        unhurried, _ = decode(path, **wanted, seek=False)
        if wanted.get("sampling") != "keyframe":
            assert [f.frame_index for f in frames] == [f.frame_index for f in unhurried]


def test_exact_sampling_of_a_steady_clip_gives_the_frames_that_arithmetic_says(tmp_path):
    path = encode(tmp_path / "steady.mp4", num_frames=60, rate=30)
    frames, report = decode(path, interval_s=0.5)
    assert [frame.frame_index for frame in frames] == [0, 15, 30, 45]
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert report.duration_s == pytest.approx(2.0)
    for frame in frames:
        assert np.abs(frame.image.astype(int) - picture(frame.frame_index)).mean() < 12


def test_keyframe_sampling_gives_key_frames_only_and_each_once(tmp_path):
    path = encode(tmp_path / "keys.mp4", num_frames=90, rate=30, gop=20, options={"x264-params": "scenecut=0"})
    frames, _ = decode(path, interval_s=0.1, sampling="keyframe")
    assert [frame.frame_index for frame in frames] == [0, 20, 40, 60, 80]
    frames, _ = decode(path, interval_s=1.0, sampling="keyframe")
    # Key frames at 0, 0.67, 1.33, 2, 2.67 s: the second and third are equally near to 1 s, the earlier is taken.
    assert [frame.frame_index for frame in frames] == [0, 20, 60]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_varying_frame_rate_keeps_times_to_a_millisecond(tmp_path, suffix):
    times_ms = np.concatenate([[0], np.cumsum(np.random.default_rng(5).integers(7, 400, 79))]).tolist()
    path = encode(tmp_path / f"varying.{suffix}", times_ms)
    frames, report = decode(path, interval_s=0.0)
    assert report.num_frames == 80
    np.testing.assert_allclose([f.time_s * 1000 for f in frames], times_ms, atol=1.0)
    sampled, _ = decode(path, interval_s=0.5)
    expected = sorted({max(i for i, t in enumerate(times_ms) if t <= k * 500) for k in range(times_ms[-1] // 500 + 1)})
    assert [f.frame_index for f in sampled][: len(expected)] == expected
    np.testing.assert_allclose([f.time_s * 1000 for f in sampled], [times_ms[f.frame_index] for f in sampled], atol=1.0)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not on the PATH")
def test_times_agree_with_ffprobe(tmp_path):
    times_ms = np.concatenate([[0], np.cumsum(np.random.default_rng(6).integers(7, 400, 39))]).tolist()
    path = encode(tmp_path / "varying.mp4", times_ms)
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_frames", "-of", "json", path]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["frames"]
    expected = np.array([float(frame["pts_time"]) for frame in shown])
    frames, _ = decode(path, interval_s=0.0)
    np.testing.assert_allclose([f.time_s for f in frames], expected - expected[0], atol=1e-3)


def test_windows_together_give_what_one_pass_gives(tmp_path):
    path = encode(tmp_path / "long.mp4", num_frames=200, rate=25)
    whole, _ = decode(path, interval_s=0.3)
    parts = []
    for start_s, stop_s in ((0.0, 2.0), (2.0, 4.1), (4.1, None)):
        parts += decode(path, interval_s=0.3, start_s=start_s, stop_s=stop_s)[0]
    assert [f.frame_index for f in parts] == [f.frame_index for f in whole]
    for part, frame in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(part.image, frame.image)


def test_frames_beyond_the_end_are_told_of(tmp_path):
    path = encode(tmp_path / "short.mp4", num_frames=10)
    frames, report = decode(path, frame_indices=(2, 9, 10, 400))
    assert [f.frame_index for f in frames] == [2, 9]
    assert report.note == "2 of the frames asked for lie beyond its 10 frames"


def test_a_file_written_anew_under_its_name_is_indexed_anew(tmp_path):
    path = encode(tmp_path / "again.mp4", num_frames=10)
    assert decode(path, interval_s=0.0)[1].num_frames == 10
    encode(path, num_frames=25)
    assert decode(path, interval_s=0.0)[1].num_frames == 25


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_turned_videos_come_upright(tmp_path, degrees):
    plain = full_decode(encode(tmp_path / "plain.mp4", num_frames=3))[0][1]
    frames, _ = decode(encode(tmp_path / "turned.mp4", num_frames=3, rotation=degrees), interval_s=0.0)
    np.testing.assert_array_equal(frames[0].image, np.rot90(plain, degrees // 90))


def test_a_single_pixel_video(tmp_path):
    path = encode(tmp_path / "dot.mkv", num_frames=5, size=(1, 1), codec="ffv1", pix_fmt="bgr0", b_frames=0)
    frames, report = decode(path, interval_s=0.0)
    assert [f.image.shape for f in frames] == [(1, 1, 3)] * 5
    assert report.num_frames == 5


def test_a_video_cut_off_gives_its_whole_frames_and_says_so(tmp_path):
    path = encode(tmp_path / "whole.mp4", num_frames=100, size=(320, 240), container_options={"movflags": "faststart"})
    reference = full_decode(path)
    content = (tmp_path / "whole.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 6 // 10])
    frames, report = decode(cut, interval_s=0.0)
    assert 10 < len(frames) < 90
    assert f"the file breaks off: it has {report.num_frames} of the 100 frames it announces" in report.note
    for frame in frames:
        np.testing.assert_array_equal(frame.image, reference[frame.frame_index][1])


def test_a_cut_off_avi_says_so(tmp_path):
    path = encode(tmp_path / "whole.avi", num_frames=100, rate=10, codec="mjpeg", pix_fmt="yuvj420p")
    cut = tmp_path / "cut.avi"
    content = (tmp_path / "whole.avi").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    frames, report = decode(cut, interval_s=0.0)
    assert 10 < len(frames) < 90
    assert "the file breaks off" in report.note
    assert decode(path, interval_s=0.0)[1].note is None


def test_a_video_without_its_index_is_unreadable(tmp_path):
    content = Path(encode(tmp_path / "whole.mp4")).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])  # the index stands at the end
    with pytest.raises(MediaError, match="not readable as video") as caught:
        decode(cut)
    assert caught.value.status == "unreadable"


def test_damage_in_the_middle_loses_only_what_is_damaged(tmp_path):
    path = encode(tmp_path / "whole.avi", num_frames=60, rate=10, codec="mjpeg", pix_fmt="yuvj420p")
    reference = full_decode(path)
    content = bytearray(Path(path).read_bytes())
    with av.open(path) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
        place = packet.pos
    content[place + 16 : place + packet.size] = bytes(packet.size - 16)
    (tmp_path / "damaged.avi").write_bytes(content)
    frames, report = decode(tmp_path / "damaged.avi", interval_s=0.0)
    assert [f.frame_index for f in frames] == [n for n in range(60) if n != 30]
    assert report.note == "1 of the 60 frames looked for could not be decoded"
    for frame in frames:
        np.testing.assert_array_equal(frame.image, reference[frame.frame_index][1])


def test_more_pixels_than_allowed_are_refused(tmp_path):
    path = encode(tmp_path / "large.mp4", num_frames=2, size=(640, 480))
    with pytest.raises(MediaError, match="640 x 480") as caught:
        decode(path, max_pixels=640 * 480 - 1)
    assert caught.value.status == "too_large"
    assert len(decode(path, max_pixels=640 * 480, interval_s=0.0)[0]) == 2


def test_a_file_of_sound_only_is_unreadable(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="without a video stream"):
        decode(tmp_path / "sound.mp4")


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.avi"])
def test_a_playlist_is_never_followed(tmp_path, name):
    target = encode(tmp_path / "target.ts", num_frames=10)
    (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="not readable as video"):
        decode(tmp_path / name)


def test_ffmpegs_own_protocols_are_not_spoken(tmp_path):
    target = encode(tmp_path / "target.ts", num_frames=10)
    for address in (f"concat:{target}", f"subfile,,start,0,end,0,,:{target}", f"async:{target}", "data:video/mp4,"):
        with pytest.raises(MediaError, match="No such file"):
            open_video(address, max_pixels=10**6)


def test_random_damage_never_ends_in_anything_but_frames_or_a_media_error(tmp_path):
    random = np.random.default_rng(11)
    outcomes = set()
    for name in ("h264.mp4", "mjpeg.avi", "mpeg4_b.avi", "msmpeg4.asf"):
        content = Path(encode(tmp_path / name, num_frames=30, **CONTAINERS[name])).read_bytes()
        for trial in range(12):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 1 + trial * 4):
                damaged[place] = random.integers(256)
            path = tmp_path / f"damaged_{trial}_{name}"
            path.write_bytes(damaged[: random.integers(1, len(content) + 1)] if trial % 3 == 0 else damaged)
            try:
                frames, _ = decode(path, interval_s=0.1)
                outcomes.add("frames" if frames else "none")
                indices = [f.frame_index for f in frames]
                assert indices == sorted(set(indices))
            except MediaError as error:
                outcomes.add(error.status)
    assert {"frames", "unreadable"} <= outcomes


def test_infrared_is_told_by_colour_not_by_brightness():
    grey = np.random.default_rng(0).integers(0, 255, (60, 80, 1), dtype=np.uint8).repeat(3, axis=2)
    assert is_infrared(grey)
    assert is_infrared(np.zeros((48, 64, 3), np.uint8))
    coloured = grey.copy()
    coloured[:, :, 0] = np.minimum(coloured[:, :, 0].astype(int) + 10, 255)
    assert not is_infrared(coloured)


@pytest.mark.real_data
def test_real_clips_equal_their_full_decode(real_data):
    paths = sorted(p for p in (real_data / "clips" / "tiny").rglob("*") if p.is_file())
    assert len(paths) == 19
    for path in paths:
        reference = full_decode(str(path))
        for wanted in ({}, {"interval_s": 3.0}, {"sampling": "keyframe"}):
            frames, report = decode(path, **wanted)
            assert report.num_frames == len(reference)
            assert report.note is None
            for frame in frames:
                assert frame.time_s == pytest.approx(reference[frame.frame_index][0], abs=1e-3)
                np.testing.assert_array_equal(frame.image, reference[frame.frame_index][1])

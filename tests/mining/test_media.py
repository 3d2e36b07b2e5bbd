import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from encoded import encode
from PIL import Image

from wildray.errors import MediaError
from wildray.mining.inputs import find_media
from wildray.mining.media import MediaItem, check_file, media_id, probe
from wildray.mining.sandbox import FrameSource
from wildray.schema import MEDIA, MEDIA_STATUSES

PLAYLIST = "#EXTM3U\n#EXTINF:10,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n"


@pytest.fixture(scope="module")
def source():
    with FrameSource(max_pixels=2_000_000) as source:
        yield source


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def test_media_id_depends_on_size_and_both_ends(tmp_path):
    content = bytearray(np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8).tobytes())
    first = media_id(touch(tmp_path / "a", bytes(content)))
    assert first == media_id(touch(tmp_path / "copy", bytes(content)))
    assert len(first) == 32
    for place in (0, (1 << 20) - 1, (2 << 20), (3 << 20) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        assert media_id(touch(tmp_path / "b", bytes(changed))) != first
    assert media_id(touch(tmp_path / "b", bytes(content) + b"\0")) != first
    assert media_id(touch(tmp_path / "c", b"abc")) != media_id(touch(tmp_path / "d", b"abd"))


def item(path, **given):
    kind = "still" if str(path).endswith(("jpg", "png")) else "video"
    return MediaItem(str(path), kind, "cam", given.get("captured_at"))


def row_of(path, source, **options):
    row = probe(item(path), source=source, **options)
    pa.Table.from_pylist([row], schema=MEDIA)  # every column there, of the right type
    assert set(row) == set(MEDIA.names)
    assert row["status"] in MEDIA_STATUSES
    assert (row["error"] is None) == (row["status"] == "done")
    return row


def test_the_row_of_a_video(tmp_path, source):
    metadata = {"creation_time": "2021-06-01T10:00:00Z"}
    path = encode(tmp_path / "a.mp4", num_frames=50, rate=25, metadata=metadata, rotation=90)
    row = row_of(path, source, time_zone="Africa/Nairobi")
    assert (row["fps"], row["num_frames"], row["duration_s"]) == (25.0, 50, 2.0)
    assert (row["width_px"], row["height_px"]) == (48, 64)  # as shown
    assert row["captured_at"] == datetime(2021, 6, 1, 10, tzinfo=UTC)
    assert (row["captured_at_zone"], row["clock_flag"], row["num_bytes"]) == ("UTC", "ok", os.path.getsize(path))
    assert row["media_id"] == media_id(path)


def still(path, *, size=(40, 30), time=None, offset=None, orientation=None):
    exif = Image.Exif()
    if time:
        exif.get_ifd(0x8769)[36867] = time
    if offset:
        exif.get_ifd(0x8769)[36881] = offset
    if orientation:
        exif[0x0112] = orientation
    image = Image.new("RGB", size, (200, 30, 30))
    image.paste((10, 10, 220), (0, 0, size[0], size[1] // 2))  # blue above, red below
    image.save(path, exif=exif, quality=95)
    return str(path)


def test_the_row_of_a_still(tmp_path, source):
    path = still(tmp_path / "a.jpg", time="2022:03:04 05:06:07", orientation=6)
    row = row_of(path, source, time_zone="Africa/Nairobi")
    assert row["captured_at"] == datetime(2022, 3, 4, 2, 6, 7, tzinfo=UTC)
    assert (row["captured_at_text"], row["captured_at_zone"]) == ("2022:03:04 05:06:07", "Africa/Nairobi")
    assert (row["width_px"], row["height_px"], row["num_frames"], row["kind"]) == (30, 40, 1, "still")
    row = row_of(still(tmp_path / "b.jpg", time="2022:03:04 05:06:07", offset="-05:00"), source)
    assert row["captured_at"] == datetime(2022, 3, 4, 10, 6, 7, tzinfo=UTC)
    assert row_of(still(tmp_path / "c.jpg", time="0000:00:00 00:00:00"), source)["clock_flag"] == "none"


def test_stills_come_upright_and_once(tmp_path, source):
    path = still(tmp_path / "a.jpg", orientation=6)  # shown turned by 90 degrees clockwise
    (frame,) = source.decode(path, "still")
    assert frame.image.shape == (40, 30, 3)
    assert frame.image[20, 25, 2] > 180  # blue, which was above, is on the right
    assert frame.image[20, 4, 0] > 180
    assert (frame.frame_index, frame.time_s, frame.infrared) == (0, 0.0, False)
    assert source.report.num_frames == 1
    assert list(source.decode(path, "still", start_s=5.0)) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_stills_of_every_mode_become_rgb(tmp_path, source, mode):
    values = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    image = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    path = tmp_path / "a.tif"
    image.save(path)
    (frame,) = source.decode(str(path), "still")
    assert frame.image.shape == (24, 32, 3)
    assert np.abs(frame.image[0, :, 1].astype(int) - values[0]).max() <= 8
    assert frame.infrared


def bad_files(folder):
    whole = Path(encode(folder / "whole.mp4", num_frames=30)).read_bytes()
    picture = Path(still(folder / "whole.jpg", size=(400, 300))).read_bytes()
    large = encode(folder / "large.mp4", num_frames=1, size=(1920, 1088))
    huge_still = str(folder / "huge.png")
    Image.new("1", (3000, 3000)).save(huge_still)
    return {
        "truncated": (touch(folder / "cut.mp4", whole[: len(whole) // 2]), "unreadable"),
        "text": (touch(folder / "text.mp4", b"a diary, not a video\n" * 500), "unreadable"),
        "zero": (touch(folder / "zero.mp4", b""), "empty"),
        "playlist": (touch(folder / "list.m3u8", PLAYLIST.encode()), "refused"),
        "renamed playlist": (touch(folder / "list.mp4", PLAYLIST.encode()), "refused"),
        "concat script": (touch(folder / "script.mp4", b"ffconcat version 1.0\nfile whole.mp4\n"), "refused"),
        "dash": (touch(folder / "dash.mp4", b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash">'), "refused"),
        "missing": (str(folder / "none.mp4"), "missing"),
        "large frames": (large, "too_large"),
        "large still": (huge_still, "too_large"),
        "text still": (touch(folder / "text.jpg", b"not a picture"), "unreadable"),
        "zero still": (touch(folder / "zero.jpg", b""), "empty"),
        "postscript still": (touch(folder / "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "unreadable"),
        "video named still": (touch(folder / "video.jpg", whole), "unreadable"),
        "cut still": (touch(folder / "cut.jpg", picture[: len(picture) // 2]), "done"),  # told when it is decoded
        "folder": (str((folder / "folder.mp4").mkdir() or folder / "folder.mp4"), "unreadable"),
    }


def test_bad_files_become_rows_that_say_why(tmp_path, source):
    rows = {name: (row_of(path, source), status) for name, (path, status) in bad_files(tmp_path).items()}
    assert {name: row["status"] for name, (row, _) in rows.items()} == {
        name: status for name, (_, status) in rows.items()
    }
    assert "a playlist" in rows["renamed playlist"][0]["error"]
    assert "1920 x 1088" in rows["large frames"][0]["error"]
    with pytest.raises(MediaError, match="breaks off") as caught:
        list(source.decode(str(tmp_path / "cut.jpg"), "still"))
    assert caught.value.status == "unreadable"


def test_files_larger_than_allowed_are_not_opened(tmp_path):
    path = encode(tmp_path / "a.mp4", num_frames=5)
    size = os.path.getsize(path)
    check_file(path, max_file_bytes=size)
    with pytest.raises(MediaError, match=r"detect\.max_file_gb") as caught:
        check_file(path, max_file_bytes=size - 1)
    assert caught.value.status == "too_large"


@pytest.mark.real_data
def test_real_media_all_go_through(real_data, source):
    with FrameSource() as roomy:
        items = find_media([str(real_data / "clips" / "tiny"), str(real_data / "stills" / "ena24")])
        assert len(items) == 40
        for each in items:
            row = probe(each, source=roomy)
            assert row["status"] == "done"
            frames = list(roomy.decode(each.uri, each.kind, interval_s=5.0))
            assert frames
            assert frames[0].image.shape[:2] == (row["height_px"], row["width_px"])

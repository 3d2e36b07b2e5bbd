"""Media that somebody prepared: each a row with its reason, in bounded time and memory, and nothing else opened."""

import os
import socket
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import av
import pyarrow as pa
import pytest
from encoded import encode

from wildray.config import DetectConfig
from wildray.mining.chunks import MAX_WINDOWS, plan_chunks, windows
from wildray.mining.clock import flag_clocks, natural_key
from wildray.mining.inputs import find_media
from wildray.mining.media import identify, probe
from wildray.mining.sandbox import FrameSource
from wildray.schema import MEDIA


@pytest.fixture(scope="module")
def source():
    with FrameSource(timeout_s=20.0, memory_mb=512) as source:
        yield source


def rows_of(folder, source):
    """What detect's first pass makes of a folder: a Media row by file name, in a table that can be written."""
    items = find_media([str(folder)])
    identify([item.uri for item in items])
    rows = flag_clocks([probe(item, source=source) for item in items])
    pa.Table.from_pylist(rows, schema=MEDIA)
    return {os.path.basename(row["uri"]): row for row in rows}


@pytest.fixture
def listener():
    """A server on this machine, and the list of those who called."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                calls.append(caller)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)


def playlists(address):
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        f'<AdaptationSet><Representation id="1" mimeType="video/mp4" bandwidth="9"><BaseURL>{address}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "ffconcat": f"ffconcat version 1.0\nfile '{address}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "xspf": f"<playlist><trackList><track><location>{address}</location></track></trackList></playlist>",
        "asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
    }


def test_ffmpeg_without_a_whitelist_follows_them(listener, tmp_path):
    """What the next test rests on: the address is asked for, and the server notices."""
    port, calls = listener
    (tmp_path / "a.m3u8").write_text(playlists(f"http://127.0.0.1:{port}/a.ts")["m3u8"])
    with pytest.raises(av.error.FFmpegError):
        av.open(str(tmp_path / "a.m3u8"), options={"protocol_whitelist": "file,http,tcp"})
    assert calls


@pytest.mark.parametrize("where", ["remote", "local"])
def test_addresses_in_files_are_not_followed(where, source, listener, tmp_path):
    port, calls = listener
    secret = tmp_path / "secret" / "target.ts"
    secret.parent.mkdir()
    encode(secret, num_frames=10)
    address = f"http://127.0.0.1:{port}/a.ts" if where == "remote" else str(secret)
    folder = tmp_path / "media"
    folder.mkdir()
    for kind, text in playlists(address).items():
        for suffix in (kind, "mp4", "avi", "ts"):
            (folder / f"{kind}.{suffix}").write_text(text)
            (folder / f"late_{kind}.{suffix}").write_text("\n" * 2000 + text)  # beyond what is looked at by ourselves
    rows = rows_of(folder, source)
    assert len(rows) > 40
    assert {row["status"] for row in rows.values()} <= {"refused", "unreadable"}
    assert all(row["num_frames"] is None for row in rows.values())
    assert calls == []


def test_what_is_no_plain_file_is_not_waited_for(source, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "random.jpg").symlink_to("/dev/urandom")
    (tmp_path / "terminal.avi").symlink_to("/dev/tty")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.mp4"))
        rows = rows_of(tmp_path, source)
    missing = {name for name, row in rows.items() if row["status"] == "missing"}
    assert missing == {"loop.mp4", "nowhere.mp4"}
    assert {row["status"] for name, row in rows.items() if name not in missing} == {"unreadable"}
    assert all("not a plain file" in row["error"] for name, row in rows.items() if name not in missing)


def test_links_to_files_are_followed_and_links_to_folders_are_not(source, tmp_path):
    """Collections are often put together of links; what they lead to is still decoded as media or refused."""
    outside, media = tmp_path / "outside", tmp_path / "media"
    outside.mkdir()
    media.mkdir()
    encode(outside / "clip.mp4", num_frames=5)
    (outside / "secret.txt").write_text("SECRET of mine\n" * 100)
    (media / "linked.mp4").symlink_to(outside / "clip.mp4")
    (media / "secret.mp4").symlink_to(outside / "secret.txt")
    (media / "secret.jpg").symlink_to(outside / "secret.txt")
    (media / "folder").symlink_to(outside)
    rows = rows_of(media, source)
    assert {name: row["status"] for name, row in rows.items()} == {
        "linked.mp4": "done",
        "secret.mp4": "unreadable",
        "secret.jpg": "unreadable",
    }
    assert "SECRET" not in str(rows)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="other systems refuse such names themselves")
def test_names_that_no_table_can_hold_are_rows_that_say_so(source, tmp_path):
    content = Path(encode(tmp_path / "fine.mp4", num_frames=5)).read_bytes()
    names = [b"\xff\xfe.mp4", b"new\nline.mp4", b"\x1b[31mred.mp4", b"<img src=x>.mp4", "10\u00b25.mp4".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(content)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))).mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9/a.mp4")).write_bytes(content)
    rows = rows_of(tmp_path, source)
    refused = {name: row for name, row in rows.items() if row["status"] != "done"}
    assert set(refused) == {"\\udcff\\udcfe.mp4", "a.mp4"}
    assert all(row["status"] == "refused" and "not UTF-8" in row["error"] for row in refused.values())
    assert len(rows) == 7


def test_names_are_ordered_whatever_digits_they_hold():
    assert natural_key("IMG_9") < natural_key("IMG_10")
    assert natural_key("a007b") == natural_key("a7b")
    assert natural_key("1\u00b2") != natural_key("12")  # a superscript is no digit to Python's int
    assert natural_key("9" * 5000) < natural_key("9" * 5001)  # and int refuses so many


def matroska(path, *, duration):
    """A clip of a second whose header announces ``duration`` in milliseconds."""
    content = bytearray(Path(encode(path, num_frames=10, rate=10)).read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    content[place : place + 8] = struct.pack(">d", duration)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("duration", [1e18, 1e300, float("inf"), float("nan"), -1e15, 0.0])
def test_a_duration_that_a_header_makes_up_does_not_decide_how_much_is_planned(duration, source, tmp_path):
    matroska(tmp_path / "a.mkv", duration=duration)
    (row,) = rows_of(tmp_path, source).values()
    assert row["status"] == "done"
    assert row["duration_s"] is None or row["duration_s"] > 0
    (part,) = plan_chunks(pa.Table.from_pylist([row], schema=MEDIA), DetectConfig(), first=0)
    (planned,) = part.to_pylist()
    looked_at = windows(planned, DetectConfig().window.seconds)
    assert 1 <= len(looked_at) <= MAX_WINDOWS
    assert looked_at[-1][1] is None  # the last ends with the file, whatever its length
    frames = list(source.decode(str(tmp_path / "a.mkv"), "video", interval_s=0.5))
    assert [frame.frame_index for frame in frames] == [0, 5]


def test_frames_years_apart_are_two_frames(source, tmp_path):
    encode(tmp_path / "a.mkv", [0, 1000, 10**14], b_frames=0)
    frames = list(source.decode(str(tmp_path / "a.mkv"), "video", interval_s=0.5))
    assert [frame.frame_index for frame in frames] == [0, 1, 2]
    assert source.report.duration_s < 1e12


def png(path, *, width, height, chunks=()):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + pixels + chunk(b"IEND", b""))
    return path


def test_files_that_expand_are_refused_by_what_they_announce(source, tmp_path):
    png(tmp_path / "wide.png", width=2**31 - 1, height=1)
    png(tmp_path / "huge.png", width=100_000, height=100_000)
    text = b"Comment\0\0" + zlib.compress(bytes(8 << 20), 9)
    png(tmp_path / "text.png", width=8, height=8, chunks=[(b"zTXt", text)])
    with zipfile.ZipFile(tmp_path / "zip.mp4", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(50 << 20))
    (tmp_path / "gzip.avi").write_bytes(zlib.compress(bytes(50 << 20), 9, 31))
    assert all(path.stat().st_size < 300_000 for path in tmp_path.iterdir())
    rows = rows_of(tmp_path, source)
    assert {name: row["status"] for name, row in rows.items()} == {
        "wide.png": "too_large",
        "huge.png": "too_large",
        "text.png": "unreadable",
        "zip.mp4": "unreadable",
        "gzip.avi": "unreadable",
    }


def test_a_video_of_large_frames_is_held_by_the_memory_cap(tmp_path):
    """Memory of the process that decodes is bounded whichever check a decoder forgets."""
    encode(tmp_path / "a.mp4", num_frames=2, size=(2048, 2048))
    with FrameSource(memory_mb=16) as small:
        (row,) = rows_of(tmp_path, small).values()
    assert row["status"] in ("too_large", "crashed")

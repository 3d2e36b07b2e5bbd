"""Photographs that somebody prepared are a message, in bounded time and memory."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wildray import photos
from wildray.errors import DataError
from wildray.metadata import parse_bbox
from wildray.photos import read_image


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(DataError, match=f"cannot be read: .*{name} is no plain file"):
            read_image(tmp_path / name)


def test_a_file_larger_than_any_photograph_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_BYTES", 1000)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.bmp")
    with pytest.raises(DataError, match="is larger than"):
        read_image(tmp_path / "a.bmp")


def png(width, height, extra=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", extra) if extra else b""
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))
    return b"\x89PNG\r\n\x1a\n" + header + text + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(100_000, 100_000), "10000000000 pixels|100000x100000 pixels"),
        (png(2**31 - 1, 1), "pixels"),
        (png(8, 8, b"Comment\0\0" + zlib.compress(bytes(8 << 20), 9)), "cannot be read"),
        (b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff", "cannot be read|pixels"),
        (b"II*\0\xff\xff\xff\x7f", "cannot be read"),
        (b"BM" + b"\xff" * 60, "cannot be read|pixels"),
    ],
)
def test_bombs_and_nonsense_are_refused(content, message):
    assert len(content) < 20_000
    with pytest.raises(DataError, match=message):
        read_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_random_damage_never_ends_in_anything_but_pixels_or_a_message(kind, tmp_path):
    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "a", format=kind)
    content = (tmp_path / "a").read_bytes()
    messages = []
    for trial in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 400), 1 + trial % 8):
            damaged[place] = rng.integers(256)
        try:
            assert read_image(bytes(damaged)).shape[2] == 3
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert all("cannot be read" in message or "pixels" in message for message in messages)


@pytest.mark.parametrize("text", ["[" * 100_000, f"[{'9' * 400}, 1, 1, 1]", f"[{'9' * 5000}, 1, 1, 1]"])
def test_boxes_that_no_parser_likes_are_refused_in_few_words(text):
    with pytest.raises(DataError, match="bbox: got") as caught:
        parse_bbox(text)
    assert len(str(caught.value)) < 200

"""Encoding: frames into H.264 MP4, stills into JPEG, each with the time at which it was taken.

In: frames as uint8 RGB. Out: files that carry their capture time where real cameras put it: ``creation_time`` of the
container, ``DateTimeOriginal`` of the EXIF. One thread per encoder and no version strings, so that the bytes depend
on the frames alone. OpenCV's writer can do neither the metadata nor the codec.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from wildray.simulate.coats import U8

_X264 = {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"}
"""Without macroblock trees: libx264's vector code for them reads memory that it has not written, so that equal frames
gave files of different bytes (seen with PyAV 18.1.0 on frames whose height is no multiple of 16)."""
JPEG_QUALITY = 90
KEYFRAME_S = 2.0
"""Seconds between key frames."""
_EXIF_IFD, _DATE_TIME_ORIGINAL, _OFFSET_TIME_ORIGINAL, _DATE_TIME = 0x8769, 0x9003, 0x9011, 0x0132


def write_video(path: Path, frames: Iterable[U8], *, fps: float, captured_at: datetime) -> int:
    """Encode a video; it appears under its name when it is whole.

    Args:
        path: The MP4 file to write.
        frames: (H, W, 3) uint8 RGB each, of even height and width.
        fps: Frames a second.
        captured_at: Written as ``creation_time``, UTC.

    Returns:
        The number of frames.
    """
    rate = Fraction(fps).limit_denominator(1001)
    temporary = path.with_name(f".{path.name}")
    count = 0
    with av.open(
        str(temporary), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}
    ) as container:
        container.metadata["creation_time"] = f"{captured_at:%Y-%m-%dT%H:%M:%S.000000Z}"
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        for frame in frames:
            if count == 0:
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.gop_size = max(1, round(fps * KEYFRAME_S))
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = count
            picture.time_base = 1 / rate
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    temporary.replace(path)
    return count


def write_still(path: Path, frame: U8, *, captured_at: datetime) -> None:
    """Write a JPEG with its capture time; it appears under its name when it is whole."""
    exif = Image.Exif()
    text = f"{captured_at:%Y:%m:%d %H:%M:%S}"
    exif[_DATE_TIME] = text
    exif.get_ifd(_EXIF_IFD).update({_DATE_TIME_ORIGINAL: text, _OFFSET_TIME_ORIGINAL: "+00:00"})
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY, exif=exif)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def video_look(frame: U8) -> U8:
    """The frame after going through the videos' encoder: the same losses as a frame of a clip.

    Args:
        frame: (H, W, 3) uint8 RGB of even height and width.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = frame.shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = _X264
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")), *encoder.encode(None)]
    pictures = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    return np.asarray(pictures[0].to_ndarray(format="rgb24"), np.uint8)

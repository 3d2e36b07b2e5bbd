"""Opening a video file safely and reading its packets without decoding them.

In: a local path. Out: an open container and its video stream; the index of its packets; facts about the file. Only the
``file`` protocol and named formats are let through, so that no playlist, concatenation or network address inside a file
is ever followed. The alternative, asking the container for its frame rate and count, is wrong for half of the
camera traps' formats.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from wildray.errors import MediaError
from wildray.mining.sampling import PacketIndex

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,asf,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,mxf,ogg,dv,mjpeg,rm,nut,ivf"
)
"""FFmpeg's demuxers that read one file and follow no address in it."""

MAX_PACKETS = 50_000_000
"""More frames than 9 days at 60 per second are taken for a broken file."""

ALIVE_PACKETS = 5_000
"""Packets after which the reader says that it is still going."""


def open_video(path: str, *, max_pixels: int, threads: int = 1) -> tuple[InputContainer, VideoStream]:
    """Open a file's first real video stream.

    Args:
        path: Local path.
        max_pixels: Frames with more pixels are refused before any is allocated.
        threads: Threads of the decoder.

    Returns:
        The container, to be closed by the caller, and the stream.

    Raises:
        MediaError: ``unreadable``: no known video format, or no video in it. ``too_large``: more pixels than allowed.
    """
    try:
        container = av.open(
            "file:" + path,
            options={"protocol_whitelist": "file", "format_whitelist": FORMATS},
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{path}: not readable as video ({_reason(error)}). Expected a whole MP4, AVI, MOV, MKV, ASF or MPEG file."
        ) from None
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        container.close()
        raise MediaError(f"{path}: a {container.format.name} file without a video stream.")
    stream = streams[0]
    context = stream.codec_context
    if context.width * context.height > max_pixels:
        container.close()
        raise MediaError(
            f"{path}: frames of {context.width} x {context.height} px, more than detect.max_pixels = {max_pixels}.",
            "too_large",
        )
    context.thread_count = threads
    context.thread_type = "FRAME"
    return container, stream


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def upright(frame: av.VideoFrame, *, max_pixels: int) -> npt.NDArray[np.uint8]:
    """A frame's pixels (H, W, 3) uint8 RGB, turned as the file's display matrix says (phones)."""
    if frame.width * frame.height > max_pixels:
        raise MediaError(
            f"A frame of {frame.width} x {frame.height} px, more than detect.max_pixels = {max_pixels}.", "too_large"
        )
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def read_index(path: str, *, max_pixels: int, threads: int = 1) -> Iterator[PacketIndex | None]:
    """Read the time stamps of all frames.

    Where packets carry no usable presentation times (AVI with B frames, for one) the whole file is decoded for them.

    Args:
        path: Local path.
        max_pixels: See ``open_video``.
        threads: See ``open_video``.

    Yields:
        None now and then as a sign of life; at the end the index.

    Raises:
        MediaError: As ``open_video``; ``empty`` where the stream has no frames.
    """
    container, stream = open_video(path, max_pixels=max_pixels, threads=threads)
    try:
        rows: list[tuple[int | None, int | None, bool, int]] = []
        num_blank = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                break  # what lies before the damage is still good
            if packet.size == 0:
                num_blank += packet.dts is not None  # AVI writes a frame that repeats the last as nothing
            elif not (packet.is_discard or packet.is_corrupt):
                rows.append((packet.pts, packet.dts, packet.is_keyframe, packet.duration or 0))
            if len(rows) % ALIVE_PACKETS == ALIVE_PACKETS - 1:
                yield None
            if len(rows) > MAX_PACKETS:
                raise MediaError(f"{path}: more than {MAX_PACKETS} frames. Cut the file.", "too_large")
        num_expected = max(0, stream.frames - num_blank)
        time_base_s = float(stream.time_base or 0)
        reordered = bool(stream.codec_context.has_b_frames)
        unreliable = reordered and container.format.name in ("avi", "mpegts", "mpeg")
    finally:
        container.close()
    if not unreliable and all(pts is None for pts, *_ in rows):
        rows = [(dts, dts, key, duration) for _, dts, key, duration in rows]
        unreliable = reordered
    stamps = [pts for pts, *_ in rows if pts is not None]
    if unreliable or len(set(stamps)) < len(rows):
        yield from _count_frames(path, max_pixels=max_pixels, threads=threads)
        return
    if not rows:
        raise MediaError(f"{path}: the video stream has no frames.", "empty")
    yield _index(stamps, rows, time_base_s=time_base_s, num_expected=num_expected)

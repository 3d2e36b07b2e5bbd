"""Opening a video file safely and reading its packets without decoding them.

In: a local path. Out: an open container and its video stream; the index of its packets; facts about the file. Only the
``file`` protocol and named formats are let through, so that no playlist, concatenation or network address inside a file
is ever followed. The alternative, asking the container for its frame rate and count, is wrong for half of the
camera traps' formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
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

ANNOUNCED_SHARE, ANNOUNCED_SLACK_S = 0.95, 1.0
"""Formats without a frame count are taken for cut off where this share of the length less this slack is not there:
sound may last longer than pictures do."""

PROBED_PACKETS = 200
"""Packets within which a first frame is looked for to learn the size at which it is shown."""


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
    if context is None:
        container.close()
        raise MediaError(f"{path}: no decoder for its video. Convert the file to H.264.")
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
    image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    # Display matrices of camera traps and phones turn by right angles, counter-clockwise as numpy does.
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


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
        packets: list[_Stamp] = []
        for packet in packets_of(container, stream):
            stamp = _Stamp(packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard, packet.duration or 0)
            packets.append(stamp)
            cut_off = packet.is_corrupt
            if len(packets) % ALIVE_PACKETS == 0:
                yield None
            if len(packets) > MAX_PACKETS:
                raise MediaError(f"{path}: more than {MAX_PACKETS} frames. Cut the file.", "too_large")
        if packets and cut_off:
            packets.pop()  # the end of the file went through the middle of it
        reordered = bool(stream.codec_context.has_b_frames)
        facts = (container.format.name, stream.frames, _announced_s(container, stream), float(stream.time_base or 0))
    finally:
        container.close()
    unreliable = reordered and facts[0] in ("avi", "mpegts", "mpeg")
    if not reordered and all(stamp.pts is None for stamp in packets):
        packets = [stamp._replace(pts=stamp.dts) for stamp in packets]
    if unreliable or len({stamp.pts for stamp in packets} - {None}) < len(packets):
        yield from _count_frames(path, max_pixels=max_pixels, threads=threads)
    elif not any(stamp.shown for stamp in packets):
        raise MediaError(f"{path}: the video stream has no frames.", "empty")
    else:
        yield _index(packets, *facts)


class _Stamp(NamedTuple):
    pts: int | None
    dts: int | None
    key: bool
    shown: bool
    duration: int


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """The packets of a stream that hold something, up to its end or to where the file is damaged."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return  # what lies before the damage is still good
        if packet.size:
            yield packet


def _announced_s(container: InputContainer, stream: VideoStream) -> float | None:
    if container.format.name == "avi" and stream.frames and stream.time_base:
        return float(stream.frames * stream.time_base)  # the duration is guessed from the file's size
    if stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration and container.duration > 0 else None


def _index(
    packets: list[_Stamp], format_name: str, num_announced: int, announced_s: float | None, time_base_s: float
) -> PacketIndex:
    pts = np.array([stamp.pts for stamp in packets], dtype=np.int64)
    dts = np.array([stamp.pts if stamp.dts is None else stamp.dts for stamp in packets], dtype=np.int64)
    key = np.array([stamp.key for stamp in packets], dtype=np.bool_)
    shown = np.array([stamp.shown for stamp in packets], dtype=np.bool_)
    key[0] = True  # decoding has to begin somewhere
    ordered = np.sort(pts[shown])
    last_units = packets[int(np.flatnonzero(pts == ordered[-1])[0])].duration
    if last_units == 0:
        last_units = int(np.median(np.diff(ordered))) if len(ordered) > 1 else 1
    end_s = float(ordered[-1] - ordered[0] + last_units) * time_base_s
    from_zero_s = max(end_s, float(ordered[-1] + last_units) * time_base_s)
    note = None
    if format_name.startswith("mov") and len(packets) < num_announced:
        note = f"the file breaks off: it has {len(packets)} of the {num_announced} frames it announces"
    elif (
        not format_name.startswith("mov")
        and announced_s
        and from_zero_s < ANNOUNCED_SHARE * announced_s - ANNOUNCED_SLACK_S
    ):
        note = f"the file breaks off: it has {end_s:.1f} of the {announced_s:.1f} s it announces"
    return PacketIndex(pts, dts, key, shown, time_base_s, end_s, note)


def decoded(context: VideoCodecContext, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame]:
    """What the decoder gives for a packet, or at the end (None). A damaged one gives nothing; the next may be whole."""
    try:
        return context.decode(packet)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return []


def decode_all(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | None]:
    """Every frame of a stream in presentation order, damaged packets passed over; None once for every packet read."""
    for packet in chain(packets_of(container, stream), [None]):
        yield from decoded(stream.codec_context, packet)
        yield None


def _count_frames(path: str, *, max_pixels: int, threads: int) -> Iterator[PacketIndex | None]:
    """The index of a file whose packets do not say when they are shown: all of it is decoded, pixels thrown away."""
    container, stream = open_video(path, max_pixels=max_pixels, threads=threads)
    stamps: list[int | None] = []
    key: list[bool] = []
    try:
        for frame in decode_all(container, stream):
            if frame is None:
                yield None
                continue
            stamps.append(frame.pts)
            key.append(bool(frame.key_frame))
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        time_base_s = float(stream.time_base or 0)
    finally:
        container.close()
    if not stamps:
        raise MediaError(f"{path}: the video stream has no frames that can be decoded.", "empty")
    known = [stamp for stamp in stamps if stamp is not None]
    pts = np.array(known, dtype=np.int64)
    if len(known) < len(stamps) or bool((np.diff(pts) <= 0).any()):
        pts, time_base_s = np.arange(len(stamps), dtype=np.int64), 1 / rate
    end_s = float(pts[-1] - pts[0]) * time_base_s + 1 / rate
    shown = np.ones(len(pts), dtype=np.bool_)
    yield PacketIndex(pts, pts, np.array(key, dtype=np.bool_), shown, time_base_s, end_s, counted=True)


def video_facts(path: str, *, max_pixels: int, threads: int = 1) -> dict[str, object]:
    """What a video's header says, with the size of its first frame as it is shown.

    Args:
        path: Local path.
        max_pixels: See ``open_video``.
        threads: See ``open_video``.

    Returns:
        ``fps``, ``num_frames``, ``duration_s`` (None where the header does not say), ``width_px``, ``height_px``,
        ``tags`` (metadata of container and stream, keys in lower case).

    Raises:
        MediaError: As ``open_video``.
    """
    container, stream = open_video(path, max_pixels=max_pixels, threads=threads)
    try:
        rate = float(stream.average_rate) if stream.average_rate else None
        width, height = stream.codec_context.width, stream.codec_context.height
        for number, frame in enumerate(decode_all(container, stream)):
            if frame is not None:
                height, width = upright(frame, max_pixels=max_pixels).shape[:2]
            if frame is not None or number > PROBED_PACKETS:
                break
        tags = {**stream.metadata, **container.metadata}
        return {
            "fps": rate,
            "num_frames": stream.frames or None,
            "duration_s": _announced_s(container, stream),
            "width_px": width or None,
            "height_px": height or None,
            "tags": {str(name).lower(): str(value) for name, value in tags.items()},
        }
    finally:
        container.close()

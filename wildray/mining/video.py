"""Frames out of one file by presentation time, decoding no more than needed.

In: a request (path, which frames). Out: frames in presentation order with their number and time, then a report. A first
pass over the packets, without decoding, gives every frame's number and exact time, for varying frame rates too; then
only groups of pictures that hold a wanted frame are decoded, and in them no picture that nothing depends on. This
module trusts nothing about the file but does not defend its process: ``sandbox`` runs it in a child. The alternatives
were measured (one frame every 2 s of a 720p clip): OpenCV's seeks gave 4-7 frames/s with numbers from a rounded frame
rate, torchcodec 9-11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from wildray.errors import MediaError
from wildray.mining.sampling import PacketIndex, Run, Sampling, choose_frames, plan_runs, within
from wildray.mining.streams import decode_all, open_video, read_index, upright

Kind = Literal["video", "still"]

SKIPPED_PACKETS = 64
"""Packets that are read past without decoding rather than sought over: about what a seek costs."""

INFRARED_LEVELS = 4.0
"""Frames whose channels differ by less than this many of 255 levels on average are taken for infrared ones."""


@dataclass(frozen=True)
class Request:
    """What is wanted of one file.

    Attributes:
        path: Local path.
        kind: ``video`` or ``still``.
        interval_s: Time between the frames looked at; 0 for every frame.
        sampling: ``exact`` or ``keyframe``.
        start_s: Only frames at this time or later.
        stop_s: Only frames before this time; None: to the end.
        frame_indices: These frames instead of those at the interval.
        max_pixels: Frames with more pixels are refused.
        threads: Threads of the decoder.
        seek: Whether the decoder may begin at later key frames. False decodes everything: slower, the same frames.
    """

    path: str
    kind: Kind = "video"
    interval_s: float = 0.5
    sampling: Sampling = "exact"
    start_s: float = 0.0
    stop_s: float | None = None
    frame_indices: tuple[int, ...] | None = None
    max_pixels: int = 100_000_000
    threads: int = 1
    seek: bool = True


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its place in presentation order, its time from the file's first frame, its pixels.

    Attributes:
        frame_index: Position in presentation order, from 0.
        time_s: Presentation time in seconds.
        image: (H, W, 3) uint8 RGB, upright.
        infrared: Whether the picture is nearly grey.
    """

    frame_index: int
    time_s: float
    image: npt.NDArray[np.uint8]
    infrared: bool


@dataclass(frozen=True)
class Report:
    """What a decoding came to.

    Attributes:
        num_frames: Frames in the file, counted.
        duration_s: From the first frame's time to the end of the last.
        num_given: Frames that were given.
        note: What was wrong with the file although frames came out of it; None where nothing was.
    """

    num_frames: int
    duration_s: float
    num_given: int
    note: str | None = None


def is_infrared(image: npt.NDArray[np.uint8]) -> bool:
    """Whether an image (H, W, 3) is nearly grey, judged on at most about 128 x 128 of its pixels."""
    step = max(1, min(image.shape[:2]) // 128)
    sample = image[::step, ::step].astype(np.int16)
    return bool((sample.max(axis=2) - sample.min(axis=2)).mean() < INFRARED_LEVELS)


def decode_video(request: Request) -> Iterator[Frame | Report | None]:
    """Decode the wanted frames of a video.

    Args:
        request: Path and choice of frames.

    Yields:
        Frames in ascending order; None now and then as a sign of life; at the end one ``Report``. Frames that the
        decoder cannot give are left out and counted in the report's note.

    Raises:
        MediaError: Nothing at all could be decoded (``unreadable``), the file has no frames (``empty``), or its frames
            exceed ``max_pixels`` (``too_large``).
    """
    index: PacketIndex | None = None
    for step in read_index(request.path, max_pixels=request.max_pixels, threads=request.threads):
        if step is None:
            yield None
        else:
            index = step
    assert index is not None
    times_s, order = index.times_s, index.order
    asked = len(times_s)
    if request.frame_indices is not None:
        wanted = np.unique(np.array(request.frame_indices, dtype=np.int64))
        asked = len(wanted)
        wanted = wanted[(wanted >= 0) & (wanted < len(times_s))]
        beyond = asked - len(wanted)
    else:
        wanted = choose_frames(
            times_s, index.key[order], end_s=index.end_s, interval_s=request.interval_s, sampling=request.sampling
        )
        wanted = within(wanted, times_s, start_s=request.start_s, stop_s=request.stop_s)
        beyond = 0
    num_given = 0
    for frame in (_decode_counting if index.counted else _decode_runs)(request, index, wanted):
        num_given += frame is not None
        yield frame
    note = _note(index, num_wanted=len(wanted), num_given=num_given, num_beyond=beyond)
    if num_given == 0 and len(wanted) > 0:
        raise MediaError(f"{request.path}: none of {len(wanted)} frames could be decoded. Is the file damaged?")
    yield Report(len(times_s), index.end_s, num_given, note)


def _note(index: PacketIndex, *, num_wanted: int, num_given: int, num_beyond: int) -> str | None:
    parts = [index.note] if index.note else []
    if num_given < num_wanted:
        parts.append(f"{num_wanted - num_given} of the {num_wanted} frames looked for could not be decoded")
    if num_beyond:
        parts.append(f"{num_beyond} of the frames asked for lie beyond its {int(index.shown.sum())} frames")
    return "; ".join(parts) or None


def _decode_runs(request: Request, index: PacketIndex, wanted: npt.NDArray[np.int64]) -> Iterator[Frame | None]:
    if len(wanted) == 0:
        return
    times_s, order = index.times_s, index.order
    whole = [Run(0, len(index.pts) - 1, tuple(wanted.tolist()))]
    runs = plan_runs(index, wanted) if request.seek else whole
    with _Reader(request, index) as reader:
        for run in runs:
            numbers = {int(index.pts[order[frame]]): frame for frame in run.frames}
            for picture in reader.decode(run, set(numbers)):
                if picture is None:
                    yield None
                    continue
                frame = numbers.pop(picture[0], None)
                if frame is not None:
                    image = picture[1]
                    yield Frame(frame, float(times_s[frame]), image, is_infrared(image))


def _decode_counting(request: Request, index: PacketIndex, wanted: npt.NDArray[np.int64]) -> Iterator[Frame | None]:
    times_s, numbers = index.times_s, set(wanted.tolist())
    container, stream = open_video(request.path, max_pixels=request.max_pixels, threads=request.threads)
    try:
        number = 0
        for picture in decode_all(container, stream):
            if picture is None:
                yield None
                continue
            if number in numbers:
                image = upright(picture, max_pixels=request.max_pixels)
                yield Frame(number, float(times_s[number]), image, is_infrared(image))
                numbers.remove(number)
            if not numbers:
                return
            number += 1
    finally:
        container.close()


class _Reader:
    """Reads runs of packets from a file in order and decodes them."""

    def __init__(self, request: Request, index: PacketIndex) -> None:
        self._request = request
        self._index = index
        self._number_of = {int(pts): number for number, pts in enumerate(index.pts.tolist())}
        self._can_seek = True
        self._open()

    def _open(self) -> None:
        self._container, self._stream = open_video(
            self._request.path, max_pixels=self._request.max_pixels, threads=self._request.threads
        )
        self._packets = self._container.demux(self._stream)
        self._next = 0

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *details: object) -> None:
        self._container.close()

    def _read(self) -> tuple[int, av.Packet[VideoStream]] | None:
        """The next packet of the index with its number; None at the end."""
        while True:
            try:
                packet = next(self._packets)
            except (StopIteration, av.error.FFmpegError):
                return None
            if packet.pts is None:
                packet.pts = packet.dts
            number = self._number_of.get(packet.pts) if packet.pts is not None else None
            if number is not None and packet.size:
                self._next = number + 1
                return number, packet

    def _go_to(self, number: int) -> tuple[int, av.Packet[VideoStream]] | None:
        """The packet of that number, by reading on or by seeking."""
        if self._can_seek and number - self._next > SKIPPED_PACKETS:
            # Some formats seek by decoding time, some by presentation time: the earlier of both lands at or before.
            time = min(int(self._index.pts[number]), int(self._index.dts[number]))
            try:
                self._container.seek(time, stream=self._stream, backward=True)
                self._packets = self._container.demux(self._stream)
                got = self._read()
            except av.error.FFmpegError:
                got = None
            if got is None or got[0] > number:
                self._can_seek = False
                self._container.close()
                self._open()
                got = self._read()
        else:
            got = self._read()
        while got is not None and got[0] < number:
            got = self._read()
        return got

    def decode(self, run: Run, wanted_pts: set[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]] | None]:
        """Pictures of a run whose time stamps are wanted, as (pts, RGB image); None as a sign of life."""
        context = self._stream.codec_context
        got = self._go_to(run.first)
        while got is not None and got[0] <= run.last:
            number, packet = got
            # Pictures that no other depends on and nobody wants need not be decoded.
            context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
            yield from self._pictures(packet, wanted_pts)
            yield None
            if number == run.last:
                break
            got = self._read()
        yield from self._pictures(None, wanted_pts)
        context.flush_buffers()

    def _pictures(
        self, packet: av.Packet[VideoStream] | None, wanted_pts: set[int]
    ) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.InvalidDataError:
            return  # a damaged packet: its frame is missed, and counted as such, the next ones may be whole
        for frame in frames:
            if frame.pts in wanted_pts:
                yield frame.pts, upright(frame, max_pixels=self._request.max_pixels)

"""Frames out of one file by presentation time, decoding no more than needed.

In: a request (path, which frames). Out: frames in presentation order with their number and time, then a report. A first
pass over the packets, without decoding, gives every frame's number and exact time, for varying frame rates too; then
only groups of pictures that hold a wanted frame are decoded, and in them no picture that nothing depends on. This
module trusts nothing about the file but does not defend its process: ``sandbox`` runs it in a child. The alternatives
were measured (one frame every 2 s of a 720p clip): OpenCV's seeks gave 4-7 frames/s with numbers from a rounded frame
rate, torchcodec 9-11.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wildray.errors import MediaError
from wildray.mining.reader import PacketReader
from wildray.mining.sampling import PacketIndex, Run, Sampling, choose_frames, plan_runs, within
from wildray.mining.streams import decode_all, open_video, read_index, upright

Kind = Literal["video", "still"]

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
    # Channel by channel: a reduction over numpy's last axis of length 3 takes a hundred times as long.
    red, green, blue = (np.ascontiguousarray(image[::step, ::step, channel]) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return bool(spread.mean() < INFRARED_LEVELS)


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
    for index in _indexed(request):
        if index is None:
            yield None
    assert index is not None
    wanted, num_beyond = _wanted(request, index)
    num_given = 0
    for frame in (_decode_counting if index.counted else _decode_runs)(request, index, wanted):
        num_given += frame is not None
        yield frame
    if num_given == 0 and len(wanted) > 0:
        raise MediaError(f"{request.path}: none of {len(wanted)} frames could be decoded. Is the file damaged?")
    note = _note(index, num_wanted=len(wanted), num_given=num_given, num_beyond=num_beyond)
    yield Report(int(index.shown.sum()), index.end_s, num_given, note)


_indexed_last: dict[tuple[str, int, int, int], PacketIndex] = {}
"""The index of the file read last: the windows of a long file are asked for one after another."""


def _indexed(request: Request) -> Iterator[PacketIndex | None]:
    try:
        facts = os.stat(request.path)
    except OSError as error:
        raise MediaError(f"{request.path}: {error.strerror}.", "missing") from None
    key = (request.path, facts.st_size, facts.st_mtime_ns, request.max_pixels)
    if key not in _indexed_last:
        for index in read_index(request.path, max_pixels=request.max_pixels, threads=request.threads):
            yield None
            if index is not None:
                _indexed_last.clear()
                _indexed_last[key] = index
    yield _indexed_last[key]


def _wanted(request: Request, index: PacketIndex) -> tuple[npt.NDArray[np.int64], int]:
    """Positions asked for, ascending, and how many more were asked for that the file does not have."""
    times_s = index.times_s
    if request.frame_indices is not None:
        asked = np.unique(np.array(request.frame_indices, dtype=np.int64))
        chosen = asked[(asked >= 0) & (asked < len(times_s))]
        num_beyond = len(asked) - len(chosen)
    else:
        chosen = choose_frames(
            times_s,
            index.key[index.order],
            end_s=index.end_s,
            interval_s=request.interval_s,
            sampling=request.sampling,
        )
        num_beyond = 0
    return within(chosen, times_s, start_s=request.start_s, stop_s=request.stop_s), num_beyond


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
    times_s = index.times_s
    whole = [Run(0, len(index.pts) - 1, tuple(wanted.tolist()))]
    runs = plan_runs(index, wanted) if request.seek else whole
    with PacketReader(request.path, index, max_pixels=request.max_pixels, threads=request.threads) as reader:
        for run in runs:
            for picture in reader.decode_with_retry(run):
                if picture is None:
                    yield None
                    continue
                number, image = picture.frame, picture.image
                yield Frame(number, float(times_s[number]), image, is_infrared(image))


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

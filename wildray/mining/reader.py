"""Runs of packets, read from a file and decoded.

In: a file, the index of its packets, runs that begin at key frames. Out: the wanted pictures of each run. A packet is
known by its presentation time, so that it does not matter where a seek lands: what comes before the run is read past,
and where a container cannot seek the file is read from its start. The alternative, trusting a seek's position, numbers
frames wrongly in every format that seeks by decoding time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from wildray.mining.sampling import PacketIndex, Run
from wildray.mining.streams import decoded, open_video, packets_of, upright

SKIPPED_PACKETS = 64
"""Packets that are read past rather than sought over: a few milliseconds, and no risk that a seek lands wrongly."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded frame: position in presentation order, and (H, W, 3) uint8 RGB pixels."""

    frame: int
    image: npt.NDArray[np.uint8]


class PacketReader:
    """Reads and decodes runs, a context manager.

    Args:
        path: Local path.
        index: Of ``streams.read_index``, not one that had to be counted.
        max_pixels: See ``streams.open_video``.
        threads: See ``streams.open_video``.
    """

    def __init__(self, path: str, index: PacketIndex, *, max_pixels: int, threads: int = 1) -> None:
        self._path = path
        self._index = index
        self._order = index.order
        self._max_pixels = max_pixels
        self._threads = threads
        self._number_of = {int(pts): number for number, pts in enumerate(index.pts.tolist())}
        self._can_seek = True
        self._open()

    def _open(self) -> None:
        self._container, self._stream = open_video(self._path, max_pixels=self._max_pixels, threads=self._threads)
        self._packets = packets_of(self._container, self._stream)
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._container.close()

    def decode_with_retry(self, run: Run) -> Iterator[Picture | None]:
        """Pictures of a run in presentation order; None as a sign of life.

        Some streams (H.264 with gradual refresh) are whole only some pictures after what they call a key frame. Where
        a wanted picture does not come, the rest of the run is decoded once more from the key frame before.
        """
        missing = set(run.frames)
        for picture in self._decode(run, until_missed=run.first > 0):
            if picture is not None:
                missing.discard(picture.frame)
            yield picture
        if missing and run.first > 0:
            earlier = np.flatnonzero(self._index.key[: run.first])
            first = int(earlier[-1]) if len(earlier) else 0
            yield from self._decode(Run(first, run.last, tuple(sorted(missing))), until_missed=False)

    def _decode(self, run: Run, *, until_missed: bool) -> Iterator[Picture | None]:
        """Decode a run, to its end or to where a picture comes although an earlier wanted one did not."""
        waiting = {int(self._index.pts[self._order[frame]]): frame for frame in run.frames}
        with contextlib.closing(self._frames(run, set(waiting))) as frames:
            for frame in frames:
                if frame is None:
                    yield None
                elif frame.pts in waiting:
                    number = waiting.pop(frame.pts)
                    if until_missed and any(other < number for other in waiting.values()):
                        return
                    yield Picture(number, upright(frame, max_pixels=self._max_pixels))

    def _frames(self, run: Run, wanted_pts: set[int]) -> Generator[av.VideoFrame | None, None, None]:
        """All frames that come out of a run, and None for each packet that went in; the decoder is left empty."""
        packet = self._go_to(run.first)
        context = self._stream.codec_context
        try:
            while packet is not None and self._next - 1 <= run.last:
                # Pictures that no other depends on and nobody wants need not be decoded.
                context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
                yield from decoded(context, packet)
                yield None
                packet = self._read() if self._next <= run.last else None
            yield from decoded(context, None)
        finally:
            context.flush_buffers()

    def _read(self) -> av.Packet[VideoStream] | None:
        """The next packet that is in the index; None at the end."""
        for packet in self._packets:
            if packet.pts is None:
                packet.pts = packet.dts  # as the index took it
            number = None if packet.pts is None else self._number_of.get(packet.pts)
            if number is not None:
                self._next = number + 1
                return packet
        return None

    def _go_to(self, number: int) -> av.Packet[VideoStream] | None:
        """The packet of that number, by reading on or by seeking."""
        packet = None
        if 0 <= number - self._next <= SKIPPED_PACKETS:
            packet = self._read()
        elif self._can_seek:
            packet = self._seek(number)
        if packet is None or self._next - 1 > number:
            self._can_seek = False
            self._container.close()
            self._open()
            packet = self._read()
        while packet is not None and self._next - 1 < number:
            packet = self._read()
        return packet

    def _seek(self, number: int) -> av.Packet[VideoStream] | None:
        # Some formats seek by decoding time, some by presentation time: the earlier of both lands at or before.
        time = min(int(self._index.pts[number]), int(self._index.dts[number]))
        try:
            self._container.seek(time, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return None
        self._packets = packets_of(self._container, self._stream)
        return self._read()

"""Untrusted media decoded in a child process with a time-out and a memory cap.

In: requests for facts or frames of local files. Out: facts; frames with a few decoded ahead. A decoder that crashes,
hangs or asks for too much memory becomes a ``MediaError`` with a status, and a fresh child serves the next file. One
child serves many files, since starting one takes a fifth of a second. The alternatives: decoding in the worker itself,
where a broken file ends the worker and, in Ray Data, is retried for ever; multiprocessing's pool, which unpickles what
the child says.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from wildray.errors import MediaError
from wildray.mining.sampling import Sampling
from wildray.mining.video import Frame, Kind, Report
from wildray.mining.worker import receive_exactly, receive_header, send
from wildray.schema import MEDIA_STATUSES

START_TIMEOUT_S = 60.0
"""A child that has not answered its first request after this long and the usual time-out did not start."""

TASK = "wildray.mining.files:answer"


class FrameSource:
    """Facts and frames of media files, decoded in a child process.

    Not for use by several threads at once.

    Args:
        timeout_s: A file whose decoder shows no progress for so long is given up (status ``timeout``).
        memory_mb: Memory the decoder may take, in MB (status ``too_large`` or ``crashed`` beyond it).
        max_pixels: Frames with more pixels are refused (status ``too_large``).
        threads: Threads of the decoder.
        task: ``module:function`` that answers requests in the child.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 120.0,
        memory_mb: int = 2048,
        max_pixels: int = 100_000_000,
        threads: int = 1,
        task: str = TASK,
    ) -> None:
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._max_pixels = max_pixels
        self._threads = threads
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._answered = self._busy = False
        self.report: Report | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the child: a copy in another process starts its own."""
        return {**self.__dict__, "_process": None, "_channel": None, "_answered": False, "_busy": False}

    def close(self) -> None:
        """End the child. The next call would start another."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None
        self._answered = self._busy = False

    def probe(self, path: str, kind: Kind) -> dict[str, Any]:
        """Facts of a file.

        Args:
            path: Local path.
            kind: ``video`` or ``still``.

        Returns:
            ``fps``, ``num_frames``, ``duration_s``, ``width_px``, ``height_px`` (None where unknown), ``tags``.

        Raises:
            MediaError: The file cannot be opened, or its decoder crashed or hung.
        """
        facts: dict[str, Any] = {}
        for header in self._ask(path, kind, {"probe": True}):
            if isinstance(header, dict):
                facts = header
        return facts

    def decode(
        self,
        path: str,
        kind: Kind,
        *,
        interval_s: float = 0.5,
        sampling: Sampling = "exact",
        start_s: float = 0.0,
        stop_s: float | None = None,
        frame_indices: Sequence[int] | None = None,
    ) -> Iterator[Frame]:
        """Frames of a file in ascending order. After the last, ``self.report`` says what they came to.

        Args:
            path: Local path.
            kind: ``video`` or ``still``.
            interval_s: Time between the frames looked at, in seconds; 0 for every frame.
            sampling: ``exact`` or ``keyframe``.
            start_s: Only frames shown at this time or later. Windows [a, b), [b, c) ... together give just what one
                pass over the whole file gives.
            stop_s: Only frames shown before this time; None: to the end.
            frame_indices: These frames, as far as they lie in the window, instead of those at the interval.

        Yields:
            Frames.

        Raises:
            MediaError: The file cannot be read, or its decoder crashed or hung; frames given before that are good.
        """
        self.report = None
        request: dict[str, object] = {
            "interval_s": interval_s,
            "sampling": sampling,
            "start_s": start_s,
            "stop_s": stop_s,
            "frame_indices": None if frame_indices is None else [int(index) for index in frame_indices],
        }
        for message in self._ask(path, kind, request):
            if isinstance(message, Frame):
                yield message
            elif isinstance(message, Report):
                self.report = message

    def _start(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._channel is None:
            ours, theirs = socket.socketpair()
            # Nothing of the parent's environment, where secrets may stand, except what finding the code needs.
            kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
            code_path = os.pathsep.join(os.path.abspath(path) for path in sys.path)
            # Threads and their heaps reserve address space, which is what the memory cap counts.
            frugal = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            environment = {**kept, "PYTHONPATH": code_path, **frugal}
            with theirs:
                self._process = subprocess.Popen(  # nosec B603 # this interpreter and a module of ours
                    [
                        sys.executable,
                        "-m",
                        "wildray.mining.worker",
                        str(theirs.fileno()),
                        str(self._memory_mb),
                        self._task,
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    cwd=os.path.abspath(os.sep),
                    start_new_session=True,  # the user's Ctrl-C goes to the parent alone
                )
            self._channel = ours
        return self._channel

    def _ask(self, path: str, kind: Kind, request: dict[str, object]) -> Iterator[Frame | Report | dict[str, Any]]:
        if self._busy:
            self.close()  # an earlier answer was left unread: its child is of no use
        channel = self._start()
        self._busy, done = True, False
        common = {"path": os.path.abspath(path), "kind": kind, "max_pixels": self._max_pixels, "threads": self._threads}
        try:
            channel.settimeout(self._timeout_s if self._answered else self._timeout_s + START_TIMEOUT_S)
            send(channel, {**common, **request})
            while True:
                message = self._receive(channel, path)
                channel.settimeout(self._timeout_s)
                self._answered = True
                if isinstance(message, MediaError):
                    # The child goes on after an error that it could tell of: only its end mark is still to come.
                    done = receive_header(channel).get("type") == "end"
                    raise message
                if message == {"type": "end"}:
                    done = True
                    return
                if message is not None:
                    yield message
        except TimeoutError:
            raise MediaError(
                f"{path}: the decoder showed no progress for {self._timeout_s:g} s and was stopped "
                "(detect.decode_timeout).",
                "timeout",
            ) from None
        except (EOFError, OSError) as error:
            how = self._last_words() if self._channel is channel else "its place was taken by a later request"
            raise MediaError(f"{path}: the decoder crashed ({how}).", "crashed") from error
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise MediaError(f"{path}: the decoder gave nonsense ({error}) and was stopped.", "crashed") from error
        finally:
            if self._channel is channel:
                self._busy = False
                if not done:
                    self.close()  # whatever the child is still at is of no use

    def _last_words(self) -> str:
        if self._process is None:
            return "no process"
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _receive(self, channel: socket.socket, path: str) -> Frame | Report | MediaError | dict[str, Any] | None:
        header = receive_header(channel)
        match header.pop("type"):
            case "frame":
                return self._receive_frame(channel, header)
            case "report":
                return _report(**header)
            case "facts":
                return dict(header["facts"])
            case "error":
                if header["status"] not in MEDIA_STATUSES[1:]:
                    raise ValueError(f"the status {header['status']!r}")
                return MediaError(str(header["message"]), header["status"])
            case "end":
                return {"type": "end"}
            case "alive":
                return None
            case other:
                raise ValueError(f"a message of type {other!r}")

    def _receive_frame(self, channel: socket.socket, header: dict[str, Any]) -> Frame:
        height, width = int(header["height"]), int(header["width"])
        if height < 1 or width < 1 or height * width > self._max_pixels:
            raise ValueError(f"a frame of {width} x {height} px")
        image = np.empty((height, width, 3), dtype=np.uint8)
        receive_exactly(channel, image.data.cast("B"))
        index, time_s = int(header["frame_index"]), float(header["time_s"])
        if not (0 <= index < 2**31 and abs(time_s) < 2**53):
            raise ValueError(f"frame {index} at {time_s} s")
        return Frame(index, time_s, image, bool(header["infrared"]))


def _report(num_frames: int, duration_s: float, num_given: int, note: str | None = None) -> Report:
    """A report of values that are what they should be: whoever breaks a decoder may have written them."""
    report = Report(int(num_frames), float(duration_s), int(num_given), None if note is None else str(note))
    if not (0 <= report.num_frames < 2**53 and abs(report.duration_s) < 2**53):
        raise ValueError(f"a report of {report.num_frames} frames in {report.duration_s} s")
    return report

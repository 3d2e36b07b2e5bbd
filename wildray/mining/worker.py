"""What runs in the decoding child process: limits first, then requests until the parent is gone.

In: requests as JSON headers with their length on one socket. Out: on the same socket a JSON header per message, and raw
pixels after it where the message is a frame. Frames are decoded a few ahead of what the parent has taken, so that
decoding and detection overlap, and no further, so that memory stays bounded. The alternative, pickled messages, would
hand the parent to whoever breaks a decoder with a prepared file.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from wildray.errors import MediaError
from wildray.mining.confinement import confine
from wildray.mining.video import Frame, Report

Message = Frame | Report | dict[str, object] | None
Task = Callable[[dict[str, object]], Iterator[Message]]

FRAMES_AHEAD = 8
"""Frames decoded before the parent takes the first."""

BYTES_AHEAD = 128 << 20
"""The same bound in bytes, for large frames: one waits at the least. At most a quarter of the memory cap."""

ALIVE_S = 0.5
"""Signs of life are passed on this often at most."""

HEADER = struct.Struct("<I")
"""Length of the JSON header that follows."""


def limit_process(memory_mb: int) -> None:
    """Cap this process's memory at so many MB above what it holds now, and forbid it to write files or dump core.

    The memory cap works on Linux only: macOS ignores it.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            held = int(statm.read().split()[0]) * resource.getpagesize()
        cap = held + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def send(channel: socket.socket, header: dict[str, object], payload: memoryview | None = None) -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    channel.sendall(HEADER.pack(len(text)) + text)
    if payload is not None:
        channel.sendall(payload)


def receive_exactly(channel: socket.socket, into: memoryview) -> None:
    """Fill a buffer from the socket; EOFError where the other side is gone."""
    place = 0
    while place < len(into):
        got = channel.recv_into(into[place:])
        if got == 0:
            raise EOFError("the other side closed the socket")
        place += got


def receive_header(channel: socket.socket, *, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """Read one message's header; ValueError where it is no JSON object of a sensible length."""
    length = bytearray(HEADER.size)
    receive_exactly(channel, memoryview(length))
    (size,) = HEADER.unpack(length)
    if size > max_bytes:
        raise ValueError(f"a header of {size} bytes")
    text = bytearray(size)
    receive_exactly(channel, memoryview(text))
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header


def _header(message: Frame | Report | dict[str, object]) -> tuple[dict[str, object], memoryview | None]:
    if isinstance(message, Frame):
        height, width = message.image.shape[:2]
        facts = {"frame_index": message.frame_index, "time_s": message.time_s, "infrared": message.infrared}
        return {"type": "frame", "height": height, "width": width, **facts}, message.image.data.cast("B")
    if isinstance(message, Report):
        return {"type": "report", **vars(message)}, None
    return {"type": "facts", "facts": message}, None


def _error(error: BaseException) -> dict[str, object]:
    if isinstance(error, MediaError):
        return {"type": "error", "status": error.status, "message": str(error)}
    if isinstance(error, MemoryError):
        text = "Decoding needs more memory than detect.decode_memory_mb allows. Raise it if the file is to be trusted."
        return {"type": "error", "status": "too_large", "message": text}
    return {"type": "error", "status": "unreadable", "message": f"{type(error).__name__}: {error}"}


class _Ahead:
    """A queue bounded by frames and bytes between the decoding thread and the writing one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue: queue.Queue[tuple[dict[str, object], memoryview | None]] = queue.Queue()
        self._room = threading.Condition()
        self._frames = 0
        self._bytes = 0

    def put(self, header: dict[str, object], payload: memoryview | None = None) -> None:
        size = 0 if payload is None else len(payload)
        if size:
            with self._room:
                self._room.wait_for(
                    lambda: not self._frames or (self._frames < FRAMES_AHEAD and self._bytes + size <= self._max_bytes)
                )
                self._frames += 1
                self._bytes += size
        self._queue.put((header, payload))

    def write_to(self, channel: socket.socket) -> None:
        """Write messages until the parent is gone."""
        while True:
            header, payload = self._queue.get()
            try:
                send(channel, header, payload)
            except OSError:
                os._exit(0)
            if payload is not None:
                with self._room:
                    self._frames -= 1
                    self._bytes -= len(payload)
                    self._room.notify()


def _leave_with_parent(channel: socket.socket) -> None:
    """End this process as soon as the parent's end of the socket is closed, even amid a decoder that hangs."""
    poll = select.poll()
    poll.register(channel, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    poll.poll()
    os._exit(0)


def serve(channel: socket.socket, task: Task, *, bytes_ahead: int = BYTES_AHEAD) -> None:
    """Answer requests until the parent is gone.

    Args:
        channel: The socket.
        task: What a request is given to; what it yields is sent, an error it raises too.
        bytes_ahead: Bytes of frames that may wait for the parent.
    """
    ahead = _Ahead(bytes_ahead)
    threading.Thread(target=ahead.write_to, args=(channel,), daemon=True).start()
    threading.Thread(target=_leave_with_parent, args=(channel,), daemon=True).start()
    while True:
        try:
            request = receive_header(channel, max_bytes=1 << 30)
        except (EOFError, OSError):
            return
        alive_at = time.monotonic()
        try:
            for message in task(request):
                if message is not None:
                    ahead.put(*_header(message))
                elif time.monotonic() - alive_at > ALIVE_S:
                    ahead.put({"type": "alive"})
                    alive_at = time.monotonic()
        except Exception as error:
            ahead.put(_error(error))
        ahead.put({"type": "end"})


def main(arguments: list[str]) -> None:
    """Entry of the child: socket's number, memory in MB, ``module:function`` of the task."""
    number, memory_mb, name = arguments
    module, _, function = name.partition(":")
    task = getattr(importlib.import_module(module), function)
    limit_process(int(memory_mb))
    confine()  # where the system can; the limits hold everywhere
    with socket.socket(fileno=int(number)) as channel:
        serve(channel, task, bytes_ahead=min(BYTES_AHEAD, (int(memory_mb) << 20) // 4))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Small encoded videos with known pictures and time stamps, and tasks for the decoding child to go wrong with."""

import os
import signal
import time
from fractions import Fraction

import av
import numpy as np

from wildray.mining.video import Frame, Report

MILLI = Fraction(1, 1000)


def picture(number, size=(64, 48)):
    """An RGB picture that tells its number by grey level, moving so that no two are equal."""
    width, height = size
    image = np.full((height, width, 3), 20, dtype=np.uint8)
    image[:, : width // 2] = (number * 7) % 200 + 20
    image[(number * 3) % height, :, 0] = 250
    return image


def encode(
    path,
    times_ms=None,
    *,
    num_frames=60,
    rate=30,
    codec="libx264",
    gop=10,
    b_frames=2,
    size=(64, 48),
    rotation=None,
    metadata=None,
    options=None,
    pix_fmt="yuv420p",
    container_options=None,
):
    """Write a video; frame k is ``picture(k)``, shown at ``times_ms[k]``, or at k / rate."""
    times_ms = list(times_ms) if times_ms is not None else None
    count = num_frames if times_ms is None else len(times_ms)
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if codec != "mjpeg":
            stream.codec_context.max_b_frames = b_frames
        if times_ms is not None:
            stream.codec_context.time_base = MILLI
            stream.time_base = MILLI
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = Fraction(1, rate) if times_ms is None else MILLI
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def full_decode(path):
    """All pictures with their times, the plain way: the reference for everything cleverer."""
    with av.open(path) as container:
        frames = list(container.decode(container.streams.video[0]))
        return [(float((f.pts - frames[0].pts) * f.time_base), f.to_ndarray(format="rgb24")) for f in frames]


def crash(request):
    """A task that dies as a broken decoder does, after one frame."""
    yield Frame(0, 0.0, np.zeros((4, 4, 3), dtype=np.uint8), True)
    if "crash" in request["path"]:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGSEGV)
    yield Report(1, 0.0, 1)


def hang(request):
    """A task that never ends."""
    yield Frame(0, 0.0, np.zeros((4, 4, 3), dtype=np.uint8), True)
    while "hang" in request["path"]:
        time.sleep(0.05)
    yield Report(1, 0.0, 1)


def slow_but_alive(request):
    """A task that takes long and shows signs of life."""
    for _ in range(50 if "slow" in request["path"] else 1):
        time.sleep(0.05)
        yield None
    yield Report(0, 0.0, 0)


def devour(request):
    """A task that asks for a GB of memory."""
    yield {"bytes": len(bytearray(1 << 30))}


def write_file(request):
    """A task that tries to write what the path says."""
    with open(request["path"], "wb") as file:
        file.write(b"x" * 100_000)
    yield {"written": True}


def show_environment(request):
    """A task that tells what it can see of the parent's environment."""
    yield dict(os.environ)


def show_pid(request):
    """A task that gives its process's number and then stays."""
    yield Frame(os.getpid(), 0.0, np.zeros((4, 4, 3), dtype=np.uint8), True)
    time.sleep(600)


def many_large_frames(request):
    """A task that gives frames numbered by how many had been made, 3 MB each."""
    for number in range(40):
        yield Frame(number, time.time(), np.full((1000, 1000, 3), number, dtype=np.uint8), True)
    yield Report(40, 0.0, 40)


def nonsense(request):
    """A task that gives a frame of a shape that was not asked for."""
    yield Frame(0, 0.0, np.zeros((5000, 5000, 3), dtype=np.uint8), True)

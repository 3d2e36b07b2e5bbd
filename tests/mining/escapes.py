"""Tasks for the decoding child that try what a decoder taken over by a prepared file would try."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ESCAPES: dict[str, Callable[[str], object]] = {
    "make a socket": lambda path: socket.create_connection(("127.0.0.1", int(path.rpartition("-")[2])), timeout=2),
    "run a program": lambda path: subprocess.run([sys.executable, "-c", f"open({path!r}, 'w')"], check=True),
    "fork": lambda path: os.fork() or os._exit(0),
    "replace a file": lambda path: os.replace(path, f"{path}.gone"),
    "remove a file": lambda path: os.unlink(path),
    "empty a file": lambda path: os.truncate(path, 0),
    "open a file to write": lambda path: Path(path).write_bytes(b"changed"),
    "make a folder": lambda path: os.mkdir(f"{path}.d"),
    "make a link": lambda path: os.symlink(path, f"{path}.link"),
    "make a file readable to all": lambda path: os.chmod(path, 0o777),
    "send the parent a signal": lambda path: os.kill(os.getppid(), 0),  # of no effect, but refused as any other is
    "take the limits off": lambda path: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
}


def escape(request):
    """Try one of ``ESCAPES``, named before the path's last dash; says how that ended."""
    path = request["path"]
    name = Path(path).name.rpartition("-")[0]
    try:
        ESCAPES[name](path)
    except (OSError, ValueError) as error:
        yield {"refused": type(error).__name__, "errno": getattr(error, "errno", None)}
    else:
        yield {"refused": None}


def read_status(request):
    """What the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    yield dict(line.split(":\t", 1) for line in lines if line.startswith(("NoNewPrivs", "Seccomp:")))


def lie(request):
    """Answers as JSON that no decoder of ours gives: facts of the wrong kind."""
    facts = {"fps": 30.0, "num_frames": 5, "duration_s": 1.0, "width_px": 64, "height_px": 48, "tags": {}}
    yield {**facts, **LIES[Path(request["path"]).stem]}


LIES: dict[str, dict[str, object]] = {
    "long": {"duration_s": 1e300},
    "nan": {"duration_s": float("nan")},
    "wide": {"width_px": 2**40},
    "text": {"num_frames": "many"},
    "tags": {"tags": {"creation_time": 5}},
    "untagged": {"tags": None},
}

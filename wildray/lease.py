"""Leases: a file that says who writes, so that two writers of one store stay apart.

In: a path. Out: a context that holds it. A writer that was killed on this machine is recognised at once, by its process
number and start time; one on another machine by a file that is no longer renewed. ``flock`` would need no renewal, but
network file systems honour it differently and it tells nobody who holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wildray.errors import BusyError, StoreError

STALE_S = 120.0
"""A lease of another machine that was not renewed for so long is taken over; renewed every quarter of it."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lease for as long as the block runs.

    Args:
        path: The lease's file, in a folder that exists.

    Raises:
        BusyError: Another writer holds it and is alive.
    """
    me = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _process_start(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    _take(path, me)
    stop = threading.Event()
    renewer = threading.Thread(target=_renew, args=(path, stop), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        stop.set()
        renewer.join()
        if _holder(path)[0].get("token") == me["token"]:
            path.unlink(missing_ok=True)


def _process_start(pid: int) -> str | None:
    """Start time of a process, so that a number that was given out again is not taken for it; None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _take(path: Path, me: Mapping[str, object]) -> None:
    for _ in range(3):
        try:
            with path.open("x") as file:
                json.dump(me, file)
            return
        except FileExistsError:
            holder, age_s = _holder(path)
            if _alive(holder, age_s):
                who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
                raise BusyError(
                    f"{who} is writing to this store ({path.stem}, renewed {age_s:.0f} s ago). "
                    f"Wait for it to end, or end it; then run the same command again."
                ) from None
            # moved aside first, so that of two that find it stale only one removes it
            aside = path.with_name(f".stale-{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
                aside.unlink()
    raise StoreError(f"The lease {path} changed hands several times within a moment: run the command again.")


def _holder(path: Path) -> tuple[dict[str, Any], float]:
    try:
        holder = json.loads(path.read_text())
        return (holder if isinstance(holder, dict) else {}), time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        return {}, 0.0


def _alive(holder: Mapping[str, Any], age_s: float) -> bool:
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid")
        return isinstance(pid, int) and _process_start(pid) is not None and _process_start(pid) == holder.get("start")
    return age_s < STALE_S


def _renew(path: Path, stop: threading.Event) -> None:
    while not stop.wait(STALE_S / 4):
        with contextlib.suppress(OSError):
            os.utime(path)

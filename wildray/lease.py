"""Leases: a file that says who writes, so that two writers of one store stay apart.

In: a path, of a folder or of object storage. Out: a context that holds it. A writer that was killed on this machine is
recognised at once, by its process number and start time; one on another machine by a file that is no longer renewed.
``flock`` would need no renewal, but network file systems honour it differently and it tells nobody who holds it.

Only one can create a file, so who takes a lease over creates the next one: ``<name>.<n + 1>.json`` after
``<name>.<n>.json``. Removing the stale file first, as with a single name, would let two take it over where nothing can
be moved aside at once, as in object storage: the slower of them would remove the lease of the faster.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wildray.errors import BusyError, StoreError
from wildray.remote import children, put_new

logger = logging.getLogger(__name__)

MAX_TRIES = 5
"""To take a lease that others take and give back at the same moment."""
STALE_S = 120.0
"""A lease of another machine that was not renewed for so long is taken over; renewed every quarter of it."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lease for as long as the block runs.

    Args:
        path: Names the lease, ``<name>.json`` in a folder that exists; its files lie beside it.

    Raises:
        BusyError: Another writer holds it and is alive.
    """
    me = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _process_start(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    mine = _take(path, me)
    stop = threading.Event()
    renewer = threading.Thread(target=_renew, args=(mine, me, stop), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        stop.set()
        renewer.join()
        if _holder(mine)[0].get("token") == me["token"]:
            mine.unlink(missing_ok=True)


def _process_start(pid: int) -> str | None:
    """Start time of a process, so that a number that was given out again is not taken for it; None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _take(path: Path, me: Mapping[str, object]) -> Path:
    for attempt in range(MAX_TRIES):
        known = _files(path)
        _refuse_living(path, known.values())
        mine = path.with_name(f"{path.stem}.{max(known, default=0) + 1}.json")
        try:
            _create(mine, me)
        except FileExistsError:
            continue  # another was faster
        # one that looked before others took and gave it back may have found a number that is free again
        others = [file for file in _files(path).values() if file.name != mine.name]
        if any(_alive(*_holder(file)) for file in others):
            mine.unlink(missing_ok=True)
            time.sleep(random.uniform(0, 0.2 * 2**attempt))
            continue
        for file in others:
            file.unlink(missing_ok=True)
        return mine
    raise StoreError(f"The lease {path} changed hands several times within a moment: run the command again.")


def _files(path: Path) -> dict[int, Path]:
    """The files of a lease by their number."""
    pattern = re.compile(re.escape(path.stem) + r"\.(\d+)\.json")
    found = ((pattern.fullmatch(file.name), file) for file in children(path.parent))
    return {int(match[1]): file for match, file in found if match}


def _refuse_living(path: Path, files: Iterable[Path]) -> None:
    for file in files:
        holder, age_s = _holder(file)
        if _alive(holder, age_s):
            who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
            raise BusyError(
                f"{who} is writing to this store ({path.stem}, renewed {age_s:.0f} s ago). "
                f"Wait for it to end, or end it; then run the same command again."
            )


def _create(file: Path, me: Mapping[str, object]) -> None:
    content = json.dumps(me)
    if not isinstance(file, Path):
        put_new(file, content.encode())
        return
    with file.open("x") as stream:
        stream.write(content)


def _holder(file: Path) -> tuple[dict[str, Any], float]:
    """Who holds a lease, and how many seconds ago that was renewed; nobody, for ever, where there is no such file."""
    try:
        content, age_s = file.read_text(), time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return {}, STALE_S + 1
    except OSError:
        return {}, 0.0
    try:
        holder = json.loads(content)
    except ValueError:
        holder = None
    return (holder if isinstance(holder, dict) else {}), age_s


def _alive(holder: Mapping[str, Any], age_s: float) -> bool:
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid")
        return isinstance(pid, int) and _process_start(pid) is not None and _process_start(pid) == holder.get("start")
    return age_s < STALE_S


def _renew(file: Path, me: Mapping[str, object], stop: threading.Event) -> None:
    while not stop.wait(STALE_S / 4):
        try:
            if isinstance(file, Path):
                os.utime(file)
            elif _holder(file)[0].get("token") == me["token"]:  # else it was taken over, and is no longer ours to write
                file.write_text(json.dumps(me))
        except Exception as error:  # of any library of object storage; the next time may go better
            logger.warning("The lease %s could not be renewed (%s).", file, error)

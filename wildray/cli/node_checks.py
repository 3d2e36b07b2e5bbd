"""What the nodes of a cluster have: versions that differ, and whether the store can be written from each of them.

In: the cluster that is connected to. Out: checks, as the doctor gives them for one machine. A task that asks for no CPU
is pinned to each node; it needs nothing but Python there, since a node without wildray is one of the findings.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wildray.libraries import Check, version_of
from wildray.remote import is_remote

VERSIONS = ("Python", "ray", "torch", "wildray")
ANSWER_S = 90.0
"""A node that was just started takes long to start its first process."""
Look = Mapping[str, Any]
"""What a node says: ``versions``, ``store`` (empty, or what is wrong), or ``error``."""


def check_nodes(store: str | None) -> list[Check]:
    """Look at every node that is alive.

    Args:
        store: Folder, or place in object storage; None: none is looked at.
    """
    looked, marker = {}, None
    place = store if store is None or is_remote(store) else str(Path(store).expanduser().absolute())
    checks: list[Check] = []
    if place is not None and not is_remote(place):
        marker = Path(place) / f".doctor-{uuid.uuid4().hex}"
        try:
            marker.write_text("wildray")
        except OSError as error:
            mend = "Give the --store that the cluster's work lies in; every node has to see it under this path."
            checks.append(Check("store on the nodes", "warn", f"{place}: {error.strerror} on this machine", mend))
            place = marker = None
    try:
        looked = _look_at_all(place, None if marker is None else marker.name)
    finally:
        if marker is not None:
            marker.unlink(missing_ok=True)
    return [*compare(looked), *checks, *(stores(looked, place) if place is not None else [])]


def compare(looked: Mapping[str, Look]) -> list[Check]:
    """Whether all nodes have the same versions, and those of this machine.

    Args:
        looked: What each node says, by its name.
    """
    silent = {name: str(look["error"]) for name, look in looked.items() if "error" in look}
    checks = [
        Check(f"node {name}", "missing", error, "Look at its log (raylet.out) and start it again.")
        for name, error in silent.items()
    ]
    own = versions_here()
    for library in VERSIONS:
        found: dict[str, list[str]] = {}
        for name, look in looked.items():
            if name not in silent:
                found.setdefault(look["versions"].get(library) or "not installed", []).append(name)
        wanted = own[library] or "not installed"
        title = f"{library} on the nodes"
        if set(found) <= {wanted} and wanted != "not installed":
            checks.append(Check(title, "ok", f"{wanted} on all {sum(map(len, found.values()))}"))
            continue
        said = "; ".join(f"{version} on {', '.join(names)}" for version, names in sorted(found.items()))
        mend = f"Install {library} {wanted} on every node: the same image, or the same wheel."
        if library == "wildray":
            mend += " 'wildray submit' sends its own code, and needs only the libraries there."
        strict = library in ("Python", "ray")  # Ray refuses other versions of these
        checks.append(Check(title, "missing" if strict else "warn", f"{said}; here {wanted}", mend))
    return checks


def stores(looked: Mapping[str, Look], place: str) -> list[Check]:
    """Whether every node can write the store, and means the same folder by its name."""
    problems = {name: look["store"] for name, look in looked.items() if look.get("store")}
    if not problems:
        return [Check("store on the nodes", "ok", f"{place} can be written from all {len(looked)}")]
    mend = "Mount the same shared folder at the same path on every node, with the right to write to it."
    if is_remote(place):
        mend = "Give every node the credentials of the object storage, in the environment of its 'ray start'."
    found = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return [Check("store on the nodes", "missing", f"{place}: {found}", mend)]


def versions_here() -> dict[str, str | None]:
    """The versions of this machine."""
    return {"Python": sys.version.split()[0], **{name: version_of(name) for name in VERSIONS[1:]}}


def name_of(node: Mapping[str, Any]) -> str:
    """A node's name for people: machine and the beginning of its id, since nodes may share a machine."""
    return f"{node.get('NodeManagerHostname') or node.get('NodeManagerAddress')} {str(node.get('NodeID'))[:6]}"


def _look_at_all(place: str | None, marker: str | None) -> dict[str, Look]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_looker())
    begun: dict[Any, str] = {}
    for node in ray.nodes():
        if node["Alive"]:
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            begun[task.options(scheduling_strategy=pinned).remote(place, marker)] = name_of(node)
    done, late = ray.wait(list(begun), num_returns=len(begun), timeout=ANSWER_S)
    looked: dict[str, Look] = {begun[each]: {"error": f"does not answer within {ANSWER_S:.0f} s"} for each in late}
    for each in done:
        try:
            looked[begun[each]] = ray.get(each)
        except ray.exceptions.RayError as error:
            looked[begun[each]] = {"error": str(error).strip().splitlines()[0]}
    return looked


def _looker() -> Callable[[str | None, str | None], Look]:
    """The task. A function of a function travels by value, so that the node need not have wildray."""

    def look(place: str | None, marker: str | None) -> dict[str, Any]:
        import importlib.metadata
        import os
        import sys

        versions: dict[str, str | None] = {"Python": sys.version.split()[0]}
        for name in ("ray", "torch", "wildray"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = None
        problem = ""
        if place is not None and marker is not None:
            own = os.path.join(place, f"{marker}-{os.getpid()}")
            try:
                if not os.path.exists(os.path.join(place, marker)):
                    problem = "not the same folder as here" if os.path.isdir(place) else "not there"
                else:
                    with open(own, "x") as file:
                        file.write("wildray")
                    os.unlink(own)
            except OSError as error:
                problem = error.strerror or str(error)
        elif place is not None:
            try:
                from wildray.doctor import object_storage

                problem = next((check.found for check in object_storage(place) if check.status != "ok"), "")
            except ImportError as error:
                problem = str(error)
        return {"versions": versions, "store": problem}

    return look

"""The nodes of a cluster: those that are alive, those of a kind, and what they have.

In: nodes as ``ray.nodes()`` describes them. Out: the same ones chosen, and sums. Plain data, so that what follows from
a cluster can be tested without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Node = Mapping[str, Any]
"""``Alive``, ``NodeID``, ``Labels`` and ``Resources``, as Ray has them."""


def of_kind(nodes: Iterable[Node], label: str | None) -> list[Node]:
    """Nodes that are alive and have a label, given as KEY=VALUE; None: whichever they have."""
    wanted = selector(label) or {}
    return [
        node
        for node in nodes
        if node["Alive"] and all((node.get("Labels") or {}).get(key) == value for key, value in wanted.items())
    ]


def selector(label: str | None) -> dict[str, str] | None:
    """A label as Ray takes it where something is placed; None: anywhere."""
    if label is None:
        return None
    key, _, value = label.partition("=")
    return {key: value}


def amounts(nodes: Iterable[Node], resource: str) -> list[float]:
    """What each node has of a resource, such as CPU."""
    return [float(node["Resources"].get(resource, 0.0)) for node in nodes]


def task_cpus(nodes: Iterable[Node], workers: int) -> float:
    """CPUs for each of so many tasks of Ray Data: half an even share, at most one.

    Half, since on a small machine Ray Data's own tasks, which read names and write records, would wait for ever for a
    CPU. Where there is no node yet, as on a cluster at rest that grows when asked, half a CPU.
    """
    cpus = sum(amounts(nodes, "CPU"))
    return max(0.1, min(1.0, cpus / workers / 2)) if cpus else 0.5

"""One of Ray Train's workers: which of them it is, and what it may use [Ray Train V2].

In: a job. Out: what the loop writes; every epoch's metrics to Ray Train.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
from ray.train.torch import get_device

from wildray.learning.job import Job, Place, Probe
from wildray.learning.loop import run_training


def work(job: Job, probe: Probe | None) -> None:
    """Train; the working directory is another one than the driver's, so paths are absolute.

    Args:
        job: What is trained.
        probe: Measures the backbone on worker 0.
    """
    logging.basicConfig(level=logging.INFO)
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        num_workers=context.get_world_size(),
        device=get_device(),
        threads=threads_of(job.config.scale.cpus_per_worker, workers_here=context.get_local_world_size()),
    )
    run_training(job, place, probe=probe, on_epoch=_report, leaving=_leaving)


def alive_nodes() -> list[dict[str, Any]]:
    """Nodes of the cluster, as ``ray.nodes`` tells of them."""
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def num_machines() -> int:
    """Machines of the cluster; nodes of one address are one, as on a laptop that stands for several."""
    return len({node["NodeManagerAddress"] for node in alive_nodes()})


def _report(metrics: Mapping[str, float]) -> None:
    ray.train.report(dict(metrics))  # a barrier: no worker runs ahead into an epoch that another is still measuring


def _leaving() -> bool:
    return ray.train.get_preemption_info() is not None  # a barrier too, and the same answer for all


def threads_of(asked: float | None, *, workers_here: int) -> int:
    """CPU threads of a worker. Ray sets OMP_NUM_THREADS to 1 where a worker did not ask for CPUs."""
    if asked is not None:
        return max(1, int(asked + 0.05))  # a sweep asks for slightly less than whole ones
    node = ray.get_runtime_context().get_node_id()
    cpus = next(found["Resources"].get("CPU", 1.0) for found in alive_nodes() if found["NodeID"] == node)
    return max(1, int(cpus // workers_here))

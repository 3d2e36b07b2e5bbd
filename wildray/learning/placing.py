"""How many workers, and how many CPUs or GPUs each: what Ray Train is asked for.

In: the configuration, what the cluster's nodes have. Out: counts and shares, or a refusal: Ray waits for resources that
no node has without an end and without a word. Plain numbers, so that it can be tested without a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wildray.config import Config
from wildray.errors import ConfigError


@dataclass(frozen=True)
class Placement:
    """What Ray Train is asked for.

    Attributes:
        workers: A count, or the fewest and the most.
        use_gpu: Whether each has a GPU.
        resources: Of each worker.
    """

    workers: int | tuple[int, int]
    use_gpu: bool
    resources: dict[str, float]


def check_shares(config: Config) -> None:
    """Refuse worker counts among which a batch, or a part of one, cannot be shared out evenly.

    Raises:
        ConfigError: Names the counts that do not divide it.
    """
    scale, train = config.scale, config.train
    fewest = scale.workers if scale.min_workers is None else scale.min_workers
    if fewest > scale.workers:
        raise ConfigError(f"scale.min_workers: got {fewest}, expected at most scale.workers, which is {scale.workers}.")
    if scale.min_workers is not None and fewest < scale.workers and (scale.cpus_per_worker or 1) % 1:
        raise ConfigError(
            f"scale.min_workers with scale.cpus_per_worker {scale.cpus_per_worker:g}: Ray Train's elastic workers need "
            f"whole CPUs. Leave scale.cpus_per_worker away, or give a whole number."
        )
    counts = range(fewest, scale.workers + 1)
    wrong = [count for count in counts if train.batch_size % (count * train.accumulate)]
    if not wrong:
        return
    parts = "" if train.accumulate == 1 else f" in {train.accumulate} parts (train.accumulate)"
    if len(counts) == 1:
        unit = scale.workers * train.accumulate
        below = train.batch_size // unit * unit
        other = f"a number of workers that divides {train.batch_size}"
        if train.accumulate > 1:
            other = f"a smaller --train.accumulate{'' if scale.workers == 1 else f', or {other}'}"
        sizes = " or ".join(str(size) for size in (below, below + unit) if size >= 2)
        raise ConfigError(
            f"train.batch_size {train.batch_size} cannot be shared out evenly over {scale.workers} workers "
            f"(scale.workers){parts}: take --train.batch-size {sizes}, or {other}."
        )
    raise ConfigError(
        f"train.batch_size {train.batch_size} cannot be shared out evenly over {_listed(wrong)} workers{parts}, and "
        f"scale.min_workers {fewest} to scale.workers {scale.workers} lets training meet those: take a "
        f"--train.batch-size that all of {fewest} to {scale.workers} divide, or a narrower range."
    )


def place_workers(config: Config, nodes: Sequence[Mapping[str, float]]) -> Placement:
    """What to ask Ray Train for.

    Args:
        config: ``scale`` is read.
        nodes: Resources of each node that is alive, such as CPU and GPU.

    Raises:
        ConfigError: The workers, or the fewest that will do, find no place, and the cluster does not grow.
    """
    scale = config.scale
    fewest = scale.workers if scale.min_workers is None else scale.min_workers
    num_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    use_gpu = scale.use_gpu if scale.use_gpu is not None else num_gpus >= fewest
    if use_gpu and num_gpus < fewest and not scale.grows:
        raise ConfigError(
            f"scale.workers: got {fewest} workers that want a GPU each, the cluster has {num_gpus:g} GPUs, "
            f"expected at most {num_gpus:g} workers, or --scale.use-gpu false, or --scale.grows true where the cluster "
            f"starts nodes when they are asked for."
        )
    node_cpus = [node.get("CPU", 0.0) for node in nodes]
    # as many as find a place now: what comes later is asked for in the same shares
    most = min(scale.workers, max(fewest, int(num_gpus) if use_gpu else int(sum(node_cpus))))
    node_gpus = [int(node.get("GPU", 0.0)) for node in nodes] if use_gpu else None
    try:
        cpus = cpu_share(node_cpus, most, asked=scale.cpus_per_worker, node_gpus=node_gpus)
    except ConfigError:
        if not scale.grows:
            raise
        cpus = scale.cpus_per_worker or 1.0  # what nodes that come will have is not known
    resources = {"CPU": cpus, "GPU": 1.0} if use_gpu else {"CPU": cpus}
    return Placement(scale.workers if fewest == scale.workers else (fewest, scale.workers), use_gpu, resources)


def cpu_share(
    node_cpus: Sequence[float],
    workers: int,
    *,
    asked: float | None = None,
    node_gpus: Sequence[int] | None = None,
) -> float:
    """CPUs that each worker asks for, so that all find a place.

    Args:
        node_cpus: CPUs of each node.
        workers: How many must be placed.
        asked: CPUs of a worker where the user gave them; below 1, workers share a CPU.
        node_gpus: GPUs of each node where every worker wants one; None where none does.

    Returns:
        What was asked, else the largest whole number with room for every worker.

    Raises:
        ConfigError: They do not all find a place; Ray would wait for more nodes without an end.
    """
    shares = [asked] if asked is not None else [float(cpus) for cpus in range(int(max(node_cpus, default=0)), 0, -1)]
    room = 0
    for cpus in shares:
        rooms = [int(node / cpus + 1e-6) for node in node_cpus]
        if node_gpus is not None:
            rooms = [min(room_here, gpus) for room_here, gpus in zip(rooms, node_gpus, strict=True)]
        room = sum(rooms)
        if room >= workers:
            return cpus
    each = "" if asked is None else f" with {asked:g} CPUs each"
    raise ConfigError(
        f"scale.workers: got {workers} workers{each}, the cluster has {sum(node_cpus):g} CPUs, expected at most {room} "
        f"workers. More of them share CPUs only where --scale.cpus-per-worker is given, below 1; a cluster that starts "
        f"nodes when they are asked for wants --scale.grows true."
    )


def even_share(node_cpus: Sequence[float], workers: int) -> float:
    """The largest share of CPUs, fractions too, of which all nodes together have one for every worker.

    Args:
        node_cpus: CPUs of each node; where there is none yet, a node of one CPU is assumed to come.
        workers: How many must be placed at once, at least one.
    """
    nodes = [cpus for cpus in node_cpus if cpus > 0] or [1.0]
    # at the largest, some node is filled by whole shares
    shares = {cpus / count for cpus in nodes for count in range(1, workers + 1)}
    return max(share for share in shares if sum(int(cpus / share + 1e-6) for cpus in nodes) >= workers)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:6])
    return f"{shown} ..." if len(numbers) > 6 else shown

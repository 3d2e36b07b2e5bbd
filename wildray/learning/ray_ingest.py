"""Batches of crops, decoded by Ray Data on any node of the cluster [Ray Data].

In: the order of an epoch, the first step. Out: this worker's ``Crops``, the same and in the same order as
``ingest.load_ahead`` gives them. Every worker has its own stream: a dataset of its slices of the remaining batches,
which tasks turn into crops and which comes back in order. One dataset for all workers, split by ``streaming_split``,
would decode in one pipeline, but deals out blocks as they become ready: which worker gets which samples would be left
to chance, and so would what a run that goes on sees.

A task's process keeps the table of samples and the open packs, but no decoded crops: it is another process that gets a
crop's next turn.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import pickle  # nosec B403 # see unpacked
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import TaskPoolStrategy

from wildray.config import Config
from wildray.errors import WildrayError
from wildray.learning.batch import Crops
from wildray.learning.crops import CropCache, open_cache, read_crops
from wildray.learning.labels import read_samples
from wildray.learning.order import Int64, worker_slice
from wildray.learning.pairs import Samples
from wildray.nodes import amounts, of_kind, selector
from wildray.store import Store

AHEAD = 4
"""Batches that wait for the training step."""
STEPS_PER_TASK = 4
"""Batches that a task decodes: enough that starting it does not count, few enough that all tasks have work."""
MAX_RETRIES = 3
"""Times that a task is tried again whose process or node has died. Ray Data's default has no end."""
NO_PROGRESS_S = 300.0
"""An epoch in which no batch has come for so long is given up with an error. Ray Data's default is half an hour."""


@dataclass(frozen=True)
class Source:
    """What a task needs to find crops; pickles.

    Attributes:
        config: ``train.labels``, ``backbone.image_size``, ``augment``.
        store: Where everything lies.
        digest: Of the pairs or labelled images.
    """

    config: Config
    store: Store
    digest: str


def load_through_ray(
    source: Source,
    order: Int64,
    *,
    seed: int,
    epoch: int,
    first_step: int,
    num_sources: int,
    num_sceneries: int = 1,
    rank: int,
    num_workers: int,
) -> Iterator[Crops]:
    """A worker's batches of an epoch from ``first_step`` on, decoded by tasks ahead of training.

    Args:
        source: Where crops are found.
        order: (steps, batch_size) sample numbers for all workers.
        seed: Of the run.
        epoch: From 0.
        first_step: Where to begin.
        num_sources: Crops of each sample.
        num_sceneries: Other cameras' backgrounds of each crop, where any are wanted.
        rank: Of this worker.
        num_workers: That share every batch.

    Raises:
        StoreError: A pack is missing or damaged.
    """
    mine = [worker_slice(batch, rank=rank, num_workers=num_workers) for batch in order[first_step:]]
    if not mine:
        return
    label = source.config.scale.decode_nodes
    num_cpus, num_tasks = decoding_share(num_workers, label)
    # from_arrow would ask for the types in a task that wants a CPU, and wait for ever where training holds them all
    rows = ray.data.from_items(
        [{"index": numbers.tolist()} for numbers in mine], override_num_blocks=math.ceil(len(mine) / STEPS_PER_TASK)
    )
    dataset = rows.map_batches(
        functools.partial(
            _decode, source=source, seed=seed, epoch=epoch, num_sources=num_sources, num_sceneries=num_sceneries
        ),
        batch_size=1,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=num_tasks),
        num_cpus=num_cpus,
        label_selector=selector(label),
        ray_remote_args_fn=_remote_args,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # two lines an epoch and worker otherwise
    context = dataset.context
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.enable_progress_bars = context.print_on_execution_start = False
    for row in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=AHEAD):
        yield unpacked(row["crops"][0].as_py())


def decoding_share(num_workers: int, label: str | None = None) -> tuple[float, int]:
    """CPUs that a decoding task of this worker asks for, and how many of its tasks run at once.

    CPUs that no training worker holds are shared out, one for a task. Where there are fewer than workers, tasks ask for
    none and share the workers' own: if they waited for a CPU that training never gives back, both would wait for ever.
    Nodes that decode by their label are taken to be others than those that train.
    """
    context = ray.get_runtime_context()
    in_driver = context.get_actor_id() is None
    held = 0.0 if in_driver or label is not None else float(context.get_assigned_resources().get("CPU", 0.0))
    free = sum(amounts(of_kind(ray.nodes(), label), "CPU")) - num_workers * held
    if free >= num_workers:
        return 1.0, int(free // num_workers)
    return 0.0, max(1, int(held))


def _remote_args() -> dict[str, Any]:
    return {"max_retries": MAX_RETRIES}


def _decode(batch: pa.Table, *, source: Source, **settings: int) -> pa.Table:
    """A row with sample numbers to a row with crops, or with the error that a user can cause: Ray Data drops causes."""
    index = np.array(batch["index"][0].as_py(), np.int64)
    result: Crops | WildrayError
    try:
        samples, cache = _opened(source)
        result = read_crops(cache, samples, index, **settings)
    except WildrayError as error:
        result = error
    return pa.table({"crops": pa.array([packed(result)], pa.large_binary())})


@functools.lru_cache(maxsize=1)
def _opened(source: Source) -> tuple[Samples, CropCache]:
    """What a process keeps from one task to the next."""
    samples = read_samples(source.config, source.store, source.digest)
    return samples, open_cache(source.config, source.store, samples, cache_bytes=0, threads=1)


def packed(crops: Crops | WildrayError) -> bytes:
    """Crops, or what kept them from being read, as bytes; pixels keep their order in memory, which sums depend on."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(crops)
    return file.getvalue()


def unpacked(data: bytes) -> Crops:
    """What ``packed`` was given, raised where it is an error; the bytes come from a task of this training."""
    result = pickle.loads(data)  # nosec B301 # from a worker of the same Ray, which pickles every task itself
    if isinstance(result, WildrayError):
        raise result
    assert isinstance(result, Crops)
    return result


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays: torch's own way through its file format takes twenty times as long."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        strides = value.stride()
        outer_first = sorted(range(value.ndim), key=lambda axis: -strides[axis])
        return _tensor, (value.permute(outer_first).contiguous().numpy(), list(np.argsort(outer_first)))


def _tensor(array: npt.NDArray[Any], axes: list[int]) -> torch.Tensor:
    return torch.from_numpy(array).permute([int(axis) for axis in axes])

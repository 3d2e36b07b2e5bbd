"""The training state on disk: written whole, the newest two kept, loaded without unpickling code.

In: state dicts of a method and its optimiser, the place in the epoch, the history. Out: ``checkpoints/step-*.pt`` in a
run's folder, or, where no worker holds the whole state, a folder ``checkpoints/step-*/`` with a file of each worker,
which gets its name when all files are in it. The next random numbers need no state: augmentation, order and dropout
are functions of (seed, step). Ray Train's own checkpoints are registered only when its controller polls, so that a kill
loses the newest; these are there once the rename is done, and Ray's reports carry metrics only.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wildray.errors import ConfigError
from wildray.store import Store

logger = logging.getLogger(__name__)

KEEP = 2
"""Checkpoints kept: the newest, and one in case the disk lost part of it."""


@dataclass
class State:
    """All that training goes on from.

    Attributes:
        step: Optimiser steps done, over all epochs.
        epoch: Epoch that is under way, from 0.
        epoch_step: Steps of it that are done.
        epoch_loss: Sum of the losses of those steps.
        epoch_norm: Sum of their gradients' norms, before clipping.
        epoch_s: Seconds spent on them.
        total_s: Seconds spent on everything so far.
        history: A flat dict per finished epoch.
        method: State dict, or this worker's part of it.
        optimizer: State dict, or this worker's part of it.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    epoch_loss: float = 0.0
    epoch_norm: float = 0.0
    epoch_s: float = 0.0
    total_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    method: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """Which part of the state a worker writes where none holds all of it.

    Attributes:
        strategy: That shared the state out.
        rank: Of the worker.
        num_workers: W.
    """

    strategy: str
    rank: int
    num_workers: int

    @property
    def file_name(self) -> str:
        """Of this worker's file."""
        return f"{self.strategy}-{self.rank}-of-{self.num_workers}.pt"


def save_checkpoint(
    store: Store, run_dir: Path, state: State, *, shard: Shard | None = None, meet: Callable[[], None] = lambda: None
) -> None:
    """Publish a checkpoint and remove all but the newest ``KEEP``.

    Args:
        store: The run's.
        run_dir: Its folder.
        state: What is written.
        shard: What part of the whole this is; every worker calls this then. None: it is the whole, and one worker does.
        meet: Returns when all workers have called it.
    """
    folder = run_dir / "checkpoints"
    name = f"step-{state.step:09d}"
    content = {field: getattr(state, field) for field in asdict(State())}

    def write(temporary: Path) -> None:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer has its own words for a disk that takes no more
            free_bytes = shutil.disk_usage(temporary.parent).free
            if free_bytes > temporary.stat().st_size:
                raise
            raise OSError(errno.ENOSPC, f"{free_bytes / 1e6:.0f} MB are free") from error

    if shard is None:
        store.publish(folder / f"{name}.pt", write)
    else:
        gathering = folder / f".{name}"
        store.publish(gathering / shard.file_name, write)
        meet()
        if shard.rank:
            return
        _remove(folder / name)
        gathering.rename(folder / name)
    for path in checkpoints(run_dir)[KEEP:]:
        _remove(path)


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's finished checkpoints, files or folders, the newest first."""
    return sorted((run_dir / "checkpoints").glob("step-*"), key=lambda path: path.stem, reverse=True)


def load_newest(
    run_dir: Path,
    device: torch.device,
    *,
    shard: Shard | None = None,
    agreed: Callable[[bool], bool] = lambda readable: readable,
) -> State | None:
    """The newest checkpoint that can be read; one that cannot is named in a warning and passed over.

    Args:
        run_dir: The run's folder.
        device: Where the tensors go.
        shard: What part of the state this worker wants; None for the whole.
        agreed: Whether all workers, of which this one says its part, can read a checkpoint.

    Returns:
        None where the run has no checkpoint that can be read.

    Raises:
        ConfigError: The state was shared out among other workers, or is whole and is wanted shared out.
    """
    for path in checkpoints(run_dir):
        _check_shares(path, shard)
        state = None
        try:
            file = path if shard is None else path / shard.file_name
            state = State(**torch.load(file, map_location=device, weights_only=True))
        except Exception as error:  # unpickling foreign bytes raises whatever they happen to spell
            logger.warning("The checkpoint %s cannot be read (%s): going on from the one before it.", path, error)
        if agreed(state is not None):
            return state
    return None


def check_newest(run_dir: Path, shard: Shard | None) -> None:
    """Refuse, before workers are started, a run whose checkpoints they could not go on from.

    Args:
        run_dir: The run's folder.
        shard: What part a worker wants, whichever it is; None for the whole.

    Raises:
        ConfigError: As ``load_newest``.
    """
    for path in checkpoints(run_dir)[:1]:
        _check_shares(path, shard)


def remove_temporary(run_dir: Path) -> None:
    """Remove what a killed writer left half-written beside the checkpoints."""
    for path in (run_dir / "checkpoints").glob(".step-*"):
        _remove(path)


def _check_shares(path: Path, shard: Shard | None) -> None:
    """Refuse a checkpoint of another strategy or number of workers: the parts do not fit."""
    if shard is None and path.is_dir():
        found = ", ".join(sorted(part.name for part in path.glob("*.pt"))) or "nothing"
        raise ConfigError(
            f"The checkpoint {path} is shared out (it holds {found}), expected one that is whole: go on with the "
            f"--scale.strategy and the --scale.workers that it was written with, or begin another --run."
        )
    if shard is not None and path.is_file():
        raise ConfigError(
            f"The checkpoint {path} is whole, expected one shared out among {shard.num_workers} workers by "
            f"{shard.strategy}: go on with --scale.strategy ddp, or begin another --run."
        )
    if shard is not None and not (path / shard.file_name).is_file():
        found = ", ".join(sorted(part.name for part in path.glob("*.pt"))) or "nothing"
        raise ConfigError(
            f"The checkpoint {path} holds {found}, expected {shard.file_name}: go on with the --scale.strategy and the "
            f"--scale.workers that it was written with, or begin another --run."
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        hidden = path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}.old"))
        shutil.rmtree(hidden)  # under a name that no reader takes for a checkpoint while it is half gone
    else:
        path.unlink(missing_ok=True)

"""The training state on disk: written whole, the newest two kept, loaded without unpickling code.

In: state dicts of a method and its optimiser, the place in the epoch, the history. Out: ``checkpoints/step-*.pt`` in a
run's folder, or, where no worker holds the whole state, a folder ``checkpoints/step-*/`` with a file of each worker,
which counts once ``whole.json`` is in it, written when all others are. The next random numbers need no state:
augmentation, order and dropout are functions of (seed, step). Ray Train's own checkpoints are registered only when its
controller polls, so that a kill loses the newest; these are there once they are written, and Ray's reports carry
metrics only.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wildray.errors import ConfigError
from wildray.remote import remove, seekable
from wildray.store import Store

logger = logging.getLogger(__name__)

WHOLE = "whole.json"
"""Last file of a checkpoint that is a folder: object storage has no rename that would show all of it at once."""
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
        store.publish(folder / name / shard.file_name, write)
        meet()
        if shard.rank:
            return
        content = {"strategy": shard.strategy, "workers": shard.num_workers}
        store.publish(folder / name / WHOLE, lambda temporary: _write(temporary, json.dumps(content)))
    for path in checkpoints(run_dir)[KEEP:]:
        remove(path / WHOLE if path.is_dir() else path)
    remove_temporary(run_dir, before=state.step)


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's finished checkpoints, files or folders, the newest first."""
    found = [path for path in (run_dir / "checkpoints").glob("step-*") if path.suffix or (path / WHOLE).is_file()]
    return sorted(found, key=lambda path: path.stem, reverse=True)


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
            with seekable(file) as stream:
                state = State(**torch.load(stream, map_location=device, weights_only=True))
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


def remove_temporary(run_dir: Path, *, before: int | None = None) -> None:
    """Remove what a killed writer left half-written among the checkpoints; ``before``: of earlier steps alone."""
    for path in (run_dir / "checkpoints").glob(".step-*"):
        remove(path)
    for path in (run_dir / "checkpoints").glob("step-*"):
        half = not path.suffix and not (path / WHOLE).is_file()
        if half and (before is None or path.name < f"step-{before:09d}"):
            remove(path)


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


def _write(path: Path, text: str) -> None:
    path.write_text(text)

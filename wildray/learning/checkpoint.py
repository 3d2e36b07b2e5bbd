"""The training state on disk: written whole, the newest two kept, loaded without unpickling code.

In: state dicts of a method and its optimiser, the place in the epoch, the history. Out: ``checkpoints/step-*.pt`` in a
run's folder. The next random numbers need no state: augmentation, order and dropout are functions of (seed, step). Ray
Train's own checkpoints are registered only when its controller polls, so that a kill loses the newest; these are there
once the rename is done, and Ray's reports carry metrics only.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

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
        epoch_s: Seconds spent on them.
        total_s: Seconds spent on everything so far.
        history: A flat dict per finished epoch.
        method: State dict.
        optimizer: State dict.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    epoch_loss: float = 0.0
    epoch_s: float = 0.0
    total_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    method: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(store: Store, run_dir: Path, state: State) -> None:
    """Publish a checkpoint and remove all but the newest ``KEEP``."""
    folder = run_dir / "checkpoints"
    content = {name: getattr(state, name) for name in asdict(State())}
    store.publish(folder / f"step-{state.step:09d}.pt", lambda temporary: torch.save(content, temporary))
    for path in checkpoints(run_dir)[KEEP:]:
        path.unlink(missing_ok=True)


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, the newest first."""
    return sorted((run_dir / "checkpoints").glob("step-*.pt"), reverse=True)


def load_newest(run_dir: Path, device: torch.device) -> State | None:
    """The newest checkpoint that can be read, or None; one that cannot is named in a warning and passed over."""
    for path in checkpoints(run_dir):
        try:
            return State(**torch.load(path, map_location=device, weights_only=True))
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, TypeError) as error:
            logger.warning("The checkpoint %s cannot be read (%s): going on from the one before it.", path, error)
    return None


def remove_temporary(run_dir: Path) -> None:
    """Remove what a killed writer left half-written beside the checkpoints."""
    for path in (run_dir / "checkpoints").glob(".step-*"):
        path.unlink(missing_ok=True)

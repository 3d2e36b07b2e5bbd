"""Population-based training: the worse trials go on from weights of better ones, with settings near theirs.

In: the trials that a population begins with. Out: records; ``sweeps/<name>/exchanges.json``. The rule is that of arXiv
1711.09846: at every exchange those at the bottom end, and as many new trials begin with the weights of trials at the
top and their settings, changed a little or drawn anew. Ray Tune's scheduler of that name decides whenever a trial
reports, from whatever the others have reported by then, and keeps who descends from whom in its own pickled state.
Here all trials are trained to the same measurement before anything is decided, the decision is a function of their
records and the seed, and a new trial has a name and a run of its own: so a restart goes on with the same population,
and MLflow and the page show every trial that there was. The price is that trials wait for the slowest.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wildray.errors import StageError
from wildray.learning.checkpoint import WHOLE, checkpoints
from wildray.remote import local_copy
from wildray.schema import hash64
from wildray.store import Store
from wildray.sweep.dimension import Dimension
from wildray.sweep.search import PlannedSearch
from wildray.sweep.space import Settings, drawn, key_of
from wildray.sweep.spec import SweepSpec
from wildray.sweep.trial import Context, Trial, point_of, record_of, trial_of
from wildray.sweep.tuner import tune_trials
from wildray.trials import Origin, TrialRecord

logger = logging.getLogger(__name__)

MAX_DRAWS = 50
"""Attempts to find settings that nobody in the population has: the same weights and settings would train the same."""


@dataclass(frozen=True)
class Move:
    """What an exchange did to one trial.

    Attributes:
        ended: The trial that ended.
        donor: The one whose weights are taken over.
        branch: The new trial.
        settings: Of the new trial.
    """

    ended: str
    donor: str
    branch: str
    settings: Mapping[str, Any]


def evolve(founders: Sequence[Trial], context: Context) -> None:
    """Train a population to the end of its budget; what is done already is not done again.

    Args:
        founders: What it begins with.
        context: What trials share.

    Raises:
        StageError: A checkpoint that is to be taken over is gone.
    """
    spec, ledger = context.spec, context.ledger
    begun, members = time.monotonic(), list(founders)
    num_epochs = max((trial.work.epochs for trial in members), default=0)
    for epoch in boundaries(num_epochs, spec.scheduler.interval):
        known = _known(context).get(epoch)
        if known is None:
            left = [trial for trial in members if not _there(trial, context, epoch=epoch)]
            if left:
                hours = None if spec.budget.hours is None else spec.budget.hours - (time.monotonic() - begun) / 3600
                if hours is not None and hours <= 0:
                    return
                search = PlannedSearch([point_of(trial, until=epoch) for trial in left], spec)
                logger.info("sweep: %d trials to measurement %d of %d", len(left), epoch, num_epochs)
                tune_trials(
                    context, search, num_points=len(left), num_trials=len(members), known=ledger.all(), hours=hours
                )
            if epoch == num_epochs:
                return
            records = [record for trial in members if (record := ledger.read(trial.name)) is not None]
            if any(record.status != "failed" and len(record.history) < epoch for record in records):
                return  # time is up; the same command goes on
            known = decide(records, spec, context, epoch=epoch)
            for move in known:
                _carry_out(move, context, epoch=epoch)
            _keep(known, context, epoch=epoch)
        by = {move.ended: move for move in known}
        members = [
            _successor(by[trial.name], trial, context, epoch) if trial.name in by else trial for trial in members
        ]
        members = [trial for trial in members if (record := ledger.read(trial.name)) and record.status != "failed"]


def boundaries(num_epochs: int, interval: int) -> list[int]:
    """Measurements at which trials wait for each other: every ``interval``, and the last."""
    return [*range(interval, num_epochs, interval), num_epochs] if num_epochs else []


def decide(records: Sequence[TrialRecord], spec: SweepSpec, context: Context, *, epoch: int) -> list[Move]:
    """Which trials end at an exchange, and what takes their place; the same for the same records.

    Args:
        records: Of the population; every one that has not failed was measured ``epoch`` times.
        spec: The sweep.
        context: What trials share.
        epoch: Measurements so far.

    Returns:
        A move for every trial that failed and, of the others, for the share at the bottom; none where all failed.
    """
    objective = spec.objective[0]
    sign = -1.0 if objective.mode == "max" else 1.0
    alive = [record for record in records if record.status != "failed"]
    alive.sort(key=lambda one: (sign * float(one.history[epoch - 1][objective.metric]), one.trial))
    if not alive:
        return []
    num = max(1, int(spec.scheduler.quantile * len(records))) if len(alive) > 1 else 0
    failed = sorted(record.trial for record in records if record.status == "failed")
    top = alive[: max(1, num)]
    bottom = [record.trial for record in alive[len(alive) - max(0, num - len(failed)) :]]
    taken = {key_of(record.settings) for record in alive}
    moves = []
    for name in [*failed, *bottom]:
        rng = np.random.default_rng(hash64(("exchange", spec.algorithm.seed, epoch, name)) & (2**63 - 1))
        donor = top[int(rng.integers(len(top)))]
        settings = near(dict(donor.settings), spec, rng, taken=taken)
        taken.add(key_of(settings))
        branch = record_of(settings, donor.seed, context, Origin(donor.trial, epoch)).trial
        moves.append(Move(name, donor.trial, branch, settings))
    return moves


def near(settings: Settings, spec: SweepSpec, rng: np.random.Generator, *, taken: set[str]) -> Settings:
    """Settings close to some, each now and then drawn anew; if it can be, others than those that are taken."""
    for _ in range(MAX_DRAWS):
        found = {
            name: drawn(spec.search[name], rng)
            if rng.random() < spec.scheduler.resample
            else moved(spec.search[name], value, factor=spec.scheduler.factor, up=bool(rng.random() < 0.5))
            for name, value in settings.items()
        }
        if key_of(found) not in taken:
            break
    return found


def moved(dimension: Dimension, value: Any, *, factor: float, up: bool) -> Any:
    """A value multiplied or divided by a factor, within the interval; of a list, a neighbour."""
    if not dimension.is_range:
        values = dimension.values
        place = values.index(value) + (1 if up else -1)
        return values[min(max(place, 0), len(values) - 1)]
    low, high = dimension.values
    return min(max(value * factor if up else value / factor, low), high)


def _successor(move: Move, ended: Trial, context: Context, epoch: int) -> Trial:
    return trial_of(dict(move.settings), ended.seed, context, Origin(move.donor, epoch))


def _carry_out(move: Move, context: Context, *, epoch: int) -> None:
    """Give the new trial a run that begins with the donor's weights, and end the old one."""
    ledger, store = context.ledger, context.store
    donor, ended = ledger.read(move.donor), ledger.read(move.ended)
    assert donor is not None, "it was just read"
    assert ended is not None, "it was just read"
    trial = _successor(move, trial_of(dict(donor.settings), donor.seed, context, donor.origin), context, epoch)
    if ledger.read(move.branch) is None:
        take_over(store, move.donor, move.branch, move.settings, step=epoch * trial.work.steps_per_epoch)
        record = record_of(trial.settings, trial.seed, context, trial.origin)
        ledger.write(record)
        ledger.change(move.branch, history=ledger.history(move.branch))
    if ended.status != "failed":
        reason = f"after measurement {epoch}: {move.branch} goes on from {move.donor}"
        ledger.stop(move.ended, reason, after=epoch)
    logger.info("sweep: %s ends, %s goes on from %s with %s", move.ended, move.branch, move.donor, dict(move.settings))


def take_over(store: Store, donor: str, branch: str, settings: Mapping[str, Any], *, step: int) -> None:
    """A run that goes on from a checkpoint of another, with some settings changed.

    Args:
        store: Holds both.
        donor: The run whose checkpoint, history and other settings it gets.
        branch: Its name.
        settings: Dotted names to values.
        step: Of the checkpoint.

    Raises:
        StageError: The donor has no such checkpoint.
    """
    source = next((path for path in checkpoints(store.path("models", donor)) if path.stem == f"step-{step:09d}"), None)
    if source is None:
        raise StageError(f"{store.path('models', donor)} has no checkpoint of step {step}, which {branch} begins with.")
    content = yaml.safe_load(store.path("models", donor, "config.yaml").read_text())
    for name, value in settings.items():
        section, _, field = name.partition(".")
        content[section][field] = value
    store.write_text(yaml.safe_dump(content, sort_keys=False), "models", branch, "config.yaml")
    history = store.path("models", donor, "history.json").read_text()
    store.write_text(history, "models", branch, "history.json")
    target = store.path("models", branch, "checkpoints", source.name)  # the last, for it makes a run of the folder
    if target in checkpoints(store.path("models", branch)):
        return
    parts = sorted(source.iterdir(), key=lambda path: path.name == WHOLE) if source.is_dir() else [source]
    for part in parts:
        _copy(store, part, target / part.name if source.is_dir() else target)


def _copy(store: Store, source: Path, target: Path) -> None:
    copy = local_copy(source)
    store.publish(target, lambda temporary: _copied(copy, temporary))


def _copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _there(trial: Trial, context: Context, *, epoch: int) -> bool:
    """Whether a trial has come so far; at the end of its budget, whether it has ended."""
    record = context.ledger.read(trial.name)
    if epoch == trial.work.epochs:
        return record is not None and record.ended
    return len(context.ledger.history(trial.name)) >= epoch


def _known(context: Context) -> dict[int, list[Move]]:
    """The exchanges that were carried out, by their measurement."""
    store, name = context.store, context.spec.name
    if not store.path("sweeps", name, "exchanges.json").is_file():
        return {}
    return {
        int(epoch): [Move(**move) for move in moves]
        for epoch, moves in store.read_json("sweeps", name, "exchanges.json").items()
    }


def _keep(moves: Sequence[Move], context: Context, *, epoch: int) -> None:
    known = _known(context) | {epoch: list(moves)}
    content = {str(at): [vars(move) for move in found] for at, found in sorted(known.items())}
    context.store.write_text(json.dumps(content, indent=1, default=str), "sweeps", context.spec.name, "exchanges.json")

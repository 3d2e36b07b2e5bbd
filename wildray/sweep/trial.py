"""One trial: some settings with one seed, from the pair set to the last measurement [RAY TUNE].

In: a point of the search, and what all trials share. Out: a run in ``models/``, a record in the sweep's ledger, and a
report to Tune after each measurement. The function runs in a Tune actor. Where a trial has one worker, that is it: the
actor holds the trial's CPUs and GPU and trains. Else it holds next to no CPU, and the training is a Ray Train job that
it starts, as ``wildray pretrain`` does. Measurements reach Tune from this process, as they
appear in the run's history, and not through Train's controller, which would need a queue actor for every trial and
tells of an epoch up to two seconds later; so a resumed trial reports each epoch once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune

from wildray.config import Config
from wildray.errors import BusyError, ConfigError, WildrayError
from wildray.labelled import open_labelled
from wildray.learning.first_backbone import first_backbone
from wildray.learning.train import pretrain
from wildray.lease import STALE_S
from wildray.retrieval.probe import make_probe
from wildray.store import Store
from wildray.sweep.budget import Work, with_work, work_of
from wildray.sweep.shared import Shared, pairs_of, setting_config
from wildray.sweep.space import Settings
from wildray.sweep.spec import SweepSpec
from wildray.sweep.tracked import trial_tags
from wildray.trials import FAILED, Ledger, Origin, TrialRecord

LEASE_WAIT_S = 1.5 * STALE_S
"""For the lease of a trial's former process to become stale."""
NAMED_BY = ("mine", "backbone", "augment", "method", "train")
"""Sections on which a trial's outcome depends."""


@dataclass(frozen=True)
class Context:
    """What every trial is given; pickles.

    Attributes:
        spec: The sweep.
        store: Where everything lies.
        shared: What was made once.
        cpus_per_worker: CPUs that each training worker asks Ray for.
    """

    spec: SweepSpec
    store: Store
    shared: Shared
    cpus_per_worker: float | None = None

    @property
    def ledger(self) -> Ledger:
        """Records of the trials."""
        return Ledger(self.store, self.spec.name)


@dataclass(frozen=True)
class Trial:
    """A point of the search, worked out.

    Attributes:
        name: From its configuration, so that the same point is the same trial in every start.
        setting: The same for every seed.
        settings: What was searched.
        seed: Of weights, order and augmentation.
        config: Of its run; without pairs.
        work: Its budget.
        origin: Where its first weights are from; None: drawn from the seed, or the configuration's.
    """

    name: str
    setting: str
    settings: Settings
    seed: int
    config: Config
    work: Work
    origin: Origin | None = None


def trial_of(settings: Settings, seed: int, context: Context, origin: Origin | None = None) -> Trial:
    """Work a point of the search out.

    Raises:
        ConfigError: The settings do not go together.
    """
    spec, shared = context.spec, context.shared
    config = setting_config(spec, settings, seed=seed, shared=shared)
    work = work_of(config, spec.budget)
    config = with_work(config, work)
    facts = {name: getattr(config, name).model_dump(mode="json") for name in NAMED_BY}
    facts["eval"] = config.eval.model_dump(mode="json")
    facts["validation"] = shared.parts.validation.digest
    if origin is not None:
        facts["origin"] = dataclasses.asdict(origin)
    setting = _digest({**facts, "train": {**facts["train"], "seed": None}})
    scale = config.scale.model_copy(update={"cpus_per_worker": context.cpus_per_worker})
    config = config.model_copy(update={"scale": scale})
    return Trial(f"{spec.name}-{_digest(facts)}", setting, settings, seed, config, work, origin)


def point_of(trial: Trial | TrialRecord, *, until: int | None = None) -> dict[str, Any]:
    """What a Tune actor is told of a trial; ``until``: measurements after which it stops for now."""
    origin = None if trial.origin is None else dataclasses.asdict(trial.origin)
    return {"settings": dict(trial.settings), "seed": trial.seed, "origin": origin, "until": until}


def record_of_point(point: Mapping[str, Any], context: Context) -> TrialRecord:
    """``record_of`` of what a Tune actor is told."""
    origin = point.get("origin")
    origin = None if origin is None else Origin(**origin)
    return record_of(dict(point["settings"]), int(point["seed"]), context, origin)


def record_of(settings: Settings, seed: int, context: Context, origin: Origin | None = None) -> TrialRecord:
    """The record of a point of which nothing is known: waiting, or failed where its settings do not go together."""
    try:
        trial = trial_of(settings, seed, context, origin)
    except ConfigError as error:
        name, setting = _digest([settings, seed]), _digest(settings)
        reason, now_s = str(error), time.time()
        return TrialRecord(
            f"{context.spec.name}-{name}", setting, seed, settings, "failed", reason, began_at=now_s, ended_at=now_s
        )
    return TrialRecord(
        trial=trial.name,
        setting=trial.setting,
        seed=trial.seed,
        settings=trial.settings,
        images_per_epoch=trial.work.images_per_epoch,
        num_epochs=trial.work.epochs,
        origin=origin,
    )


def run_trial(point: Mapping[str, Any], *, context: Context) -> None:
    """What a Tune actor does: train, measure, report; what an earlier start measured is reported first.

    A trial that cannot be run says so in its record and in its last report. It raises nothing then: what raises, or
    dies, is started again by Tune.

    Args:
        point: As ``point_of`` gives it, or ``settings`` and ``seed`` alone.
        context: What all trials share.
    """
    ledger, record = context.ledger, record_of_point(point, context)
    if ledger.read(record.trial) is None or record.status == "failed":
        ledger.write(record)
    try:
        trial = trial_of(dict(record.settings), record.seed, context, record.origin)
        known = ledger.read(record.trial)
        first = known is not None and known.status == "waiting"  # else its process died, and this one is another
        begun_s = float(point.get("asked_at", time.time())) if first else time.time()
        _train(trial, context, until=point.get("until"), begun_s=begun_s)
    except WildrayError as error:  # of others the sweep hears from Tune: one that is being ended raises too
        ledger.end(record.trial, "failed", str(error))
        tune.report({"trial": record.trial, FAILED: str(error)})


class _Teller:
    """Tells the ledger and Tune what a trial measures.

    Args:
        trial: The trial.
        context: What all trials share.
        begun_s: Unix time from which this attempt counts.
    """

    def __init__(self, trial: Trial, context: Context, *, begun_s: float) -> None:
        self._trial, self._ledger, self._begun_s = trial, context.ledger, begun_s
        self._cpus = context.spec.resources.cpus * context.spec.resources.workers
        before = self._ledger.read(trial.name)
        assert before is not None, "written by the caller"
        self._before_s, self._counted = before.seconds, False
        self._held: dict[str, Any] = {}  # the last measurement, until the record says how it ended: Tune then ends it

    def measured(self, metrics: Mapping[str, Any]) -> None:
        """Report a measurement to Tune, which may end the trial; the last one of all waits for ``finished``."""
        told = {**metrics, "trial": self._trial.name}
        if metrics["epoch"] < self._trial.work.epochs:
            tune.report(told)
        else:
            self._held = told

    def on_epoch(self, metrics: Mapping[str, float]) -> None:
        """Record a new measurement and what it cost, then report it."""
        now = self._ledger.read(self._trial.name)
        assert now is not None, "records are not removed"
        startup = now.startup_s
        if not self._counted:
            startup = (*startup, max(0.0, time.time() - self._begun_s - metrics["seconds"]))
            self._counted = True
        seconds = self.cost(history=self._ledger.history(self._trial.name), startup_s=startup)
        self.measured({**metrics, "seconds": seconds})

    def cost(self, **changes: Any) -> float:
        """Record what the trial has cost so far, and other changes; returns its seconds over all attempts."""
        seconds = self._before_s + time.time() - self._begun_s
        self._ledger.change(self._trial.name, seconds=seconds, core_hours=seconds * self._cpus / 3600, **changes)
        return seconds

    def finished(self) -> None:
        """Record the end of the whole budget, then report the measurement that was held."""
        self._ledger.end(self._trial.name, "finished")
        tune.report(self._held)


def _train(trial: Trial, context: Context, *, until: int | None, begun_s: float) -> None:
    ledger, store = context.ledger, context.store
    record = ledger.read(trial.name)
    assert record is not None, "written by the caller"
    ledger.change(trial.name, status="running", reason=None, began_at=record.began_at or begun_s)
    config, num_samples = with_samples(trial.config, store)
    ledger.change(
        trial.name,
        pairs=config.train.labels or config.train.pairs,
        num_samples=num_samples,
        num_parameters=num_parameters(config),
    )
    probe = make_probe(config, store, context.shared.parts.validation.digest)
    teller = _Teller(trial, context, begun_s=begun_s)
    for epoch in ledger.history(trial.name):
        teller.measured(epoch)
    tags = trial_tags(context.spec, store, trial)
    in_process, give_up_s = context.spec.in_process, time.monotonic() + LEASE_WAIT_S
    while True:
        try:
            pretrain(
                config, store, run=trial.name, probe=probe, on_epoch=teller.on_epoch, tags=tags, until=until,
                in_process=in_process,
            )  # fmt: skip
            break
        except BusyError:  # of this trial's process on another node, which died
            if time.monotonic() > give_up_s:
                raise
            time.sleep(LEASE_WAIT_S / 60)
    teller.cost()
    if until is None or until >= trial.work.epochs:
        teller.finished()
    else:
        ledger.change(trial.name, status="waiting", history=ledger.history(trial.name))


def with_samples(config: Config, store: Store) -> tuple[Config, int]:
    """The configuration with what it trains on, mined unless it is, and how many samples that are."""
    if config.train.labels is not None:
        return config, open_labelled(store, config.train.labels).table.num_rows
    found = pairs_of(config, store)
    train = config.train.model_copy(update={"pairs": found.digest})
    return config.model_copy(update={"train": train}), found.num_pairs


@functools.lru_cache(maxsize=8)
def _num_parameters(name: str, image_size: int) -> int:
    config = Config.load(overrides={"backbone.name": name, "backbone.image_size": image_size})
    return sum(parameter.numel() for parameter in first_backbone(config).parameters())


def num_parameters(config: Config) -> int:
    """Of the backbone."""
    return _num_parameters(config.backbone.name, config.backbone.image_size)


def _digest(facts: object) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=5).hexdigest()

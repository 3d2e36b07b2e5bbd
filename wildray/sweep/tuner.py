"""Ray Tune: as many trials at a time as the cluster has room for, ended early where the scheduler says so [RAY TUNE].

In: what is to be tried and what trials share. Out: records in the ledger. A trial's actor that trains holds the trial's
CPUs; one that starts workers holds next to none, for with a whole one it would take what its workers wait for. Nothing
of Tune's own records is kept from one start to the next; a scheduler is told of the trials that ended before.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, TuneConfig, Tuner
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from wildray.errors import ConfigError
from wildray.learning.attempts import MAX_RESTARTS
from wildray.sweep.search import PlannedSearch
from wildray.sweep.spec import Resources, SweepSpec
from wildray.sweep.trial import Context, record_of_point, run_trial
from wildray.trials import FAILED, TrialRecord

logger = logging.getLogger(__name__)

DRIVER_CPUS = 0.01
"""What a trial's driver asks for; 0 is refused, and with a whole one drivers and workers wait for each other."""
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files: the ledger and MLflow have all
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails reports no mAP
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the command, and the same command goes on
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # of Tune's own state, which nobody reads
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}


def room_for(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> int:
    """Trials that find a place at a time.

    Args:
        resources: Of a trial.
        nodes: CPU and GPU of each node that is alive.

    Raises:
        ConfigError: Not even one does.
    """
    workers = sum(
        min(
            int(node.get("CPU", 0.0) / resources.cpus + 1e-6),
            int(node.get("GPU", 0.0) / resources.gpus) if resources.gpus else 10**9,
        )
        for node in nodes
    )
    room = workers // resources.workers
    if room < 1:
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(
            f"resources: a trial wants {resources.workers} workers of {resources.cpus:g} CPUs and {resources.gpus} "
            f"GPUs; the nodes have {have}: ask for less."
        )
    return room if resources.concurrency is None else min(room, resources.concurrency)


def worker_cpus(resources: Resources) -> float:
    """CPUs that a training worker asks for: its own without its share of the driver's."""
    return round(resources.cpus - 2 * DRIVER_CPUS / resources.workers, 4)


def trial_resources(spec: SweepSpec) -> dict[str, float]:
    """What a trial's Tune actor asks Ray for: all that the trial gets, or next to nothing where it starts workers."""
    if not spec.in_process:
        return {"cpu": DRIVER_CPUS}
    return {"cpu": worker_cpus(spec.resources), "gpu": float(spec.resources.gpus)}


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving that knows of the trials of earlier starts, and says which trials it ended.

    Args:
        spec: The sweep.
        known: Records of trials that have begun.
    """

    def __init__(self, spec: SweepSpec, known: Sequence[TrialRecord]) -> None:
        objective = spec.objective[0]
        super().__init__(
            time_attr="epoch",
            metric=objective.metric,
            mode=objective.mode,
            max_t=spec.budget.measurements,
            grace_period=spec.scheduler.grace,
            reduction_factor=spec.scheduler.reduction,
            stop_last_trials=False,
        )
        self.ended: dict[str, int] = {}  # name to measurements
        self._sign = 1.0 if objective.mode == "max" else -1.0
        for record in known:
            for epoch in record.history:
                if objective.metric in epoch:
                    self._judged(record.trial, epoch)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on; rungs know trials by the name that outlives Tune's ids."""
        name, goes_on = result.get("trial"), str(tune.schedulers.TrialScheduler.CONTINUE)
        if name is None or self._metric not in result:
            return goes_on
        word = self._judged(name, result)
        if word != goes_on:
            self.ended[name] = int(result["epoch"])
        return word

    def _judged(self, name: str, result: Mapping[str, Any]) -> str:
        named: Any = _Named(name)
        value = self._sign * float(result[str(self._metric)])
        return str(self._brackets[0].on_result(named, int(result["epoch"]), value))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: its last result was seen."""
        self._trial_info.pop(trial.trial_id, None)


class _Named:
    """All that a rung wants to know of a trial."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


class Recorder(Callback):
    """Writes into the ledger how trials ended that cannot say so themselves, and tells the user how it goes.

    Args:
        context: Of the sweep.
        scheduler: Asked for the trials that it ended.
        num_trials: In all.
    """

    def __init__(self, context: Context, scheduler: Any, *, num_trials: int) -> None:
        self._context, self._scheduler, self._num_trials = context, scheduler, num_trials

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Say what was measured."""
        if "mAP" in result:
            logger.info(
                "sweep: %s, measurement %d of %d: mAP %.4f, loss %.3f",
                result["trial"], result["epoch"], self._context.spec.budget.measurements, result["mAP"], result["loss"],
            )  # fmt: skip

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that the scheduler ended it."""
        name = (trial.last_result or {}).get("trial")
        ledger = self._context.ledger
        if FAILED in (trial.last_result or {}):
            logger.warning("sweep: %s failed: %s", name, trial.last_result[FAILED])
        after = getattr(self._scheduler, "ended", {}).get(name)
        record = ledger.read(str(name)) if after is not None else None
        if after is not None and record is not None and record.status != "finished":
            ledger.stop(
                record.trial, f"by the scheduler, after measurement {after} of {record.num_epochs}", after=after
            )
        self._told()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record why it failed, where it did not itself: its process died."""
        name = record_of_point(trial.config, self._context).trial
        record = self._context.ledger.read(name)
        if record is not None and record.status != "failed":
            self._context.ledger.end(name, "failed", _last_line(trial))
        logger.warning("sweep: %s failed", name)
        self._told()

    def _told(self) -> None:
        records = self._context.ledger.all()
        ended = [record for record in records if record.ended]
        failed = sum(record.status == "failed" for record in records)
        logger.info("sweep: %d trials have ended, %d failed, of %d", len(ended), failed, self._num_trials)


def tune_trials(
    context: Context,
    search: PlannedSearch,
    *,
    num_points: int,
    num_trials: int,
    known: Sequence[TrialRecord],
    hours: float | None,
) -> None:
    """Run points until none is left or time is up; what came of them is in the ledger.

    Args:
        context: What trials share.
        search: Gives the points.
        num_points: How many at the most.
        num_trials: Trials of the sweep in all, for what is told.
        known: Records of trials that have begun, in any start.
        hours: After which no trial is begun and those under way are ended; None: it takes what it takes.
    """
    spec = context.spec
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    concurrency = min(room_for(spec.resources, nodes), num_points)
    scheduler: Any = Halving(spec, known) if spec.scheduler.kind == "asha" else FIFOScheduler()
    logger.info("sweep: %d trials to run, %d at a time", num_points, concurrency)
    remote = context.store.is_remote
    scratch = Path(tempfile.mkdtemp(prefix="wildray-")) if remote else context.ledger.folder / ".tune"
    begun = time.monotonic()
    tuner = Tuner(
        tune.with_resources(tune.with_parameters(_run, context=context), trial_resources(spec)),
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=num_points,
            max_concurrent_trials=concurrency,
            time_budget_s=None if hours is None else 3600 * hours,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(scratch),
            callbacks=[Recorder(context, scheduler, num_trials=num_trials)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS if spec.in_process else 0),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        logger.info("sweep: trials took %.0f s", time.monotonic() - begun)


def _run(config: dict[str, Any], context: Context) -> None:
    run_trial(config, context=context)


def _last_line(trial: Any) -> str:
    try:
        text = str(trial.get_error() or "")
    except Exception as error:  # what Tune pickled may not unpickle here
        text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word from it"

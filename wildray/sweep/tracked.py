"""A sweep in MLflow: one parent, a run for each trial under it, what came of them.

In: the sweep's records. Out: MLflow runs, written through ``runlog``. With several seeds a setting has a run, and its
seeds have theirs under it. Trials log as they go; what a trial that was ended, or killed, could not say any more is
added here from its record, so that no run stays RUNNING and no step is written twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from wildray import runlog
from wildray.model_log import log_model, register_model
from wildray.remote import local_copy
from wildray.runlog import RunLog
from wildray.store import Store
from wildray.sweep.spec import SweepSpec
from wildray.trials import TrialRecord

if TYPE_CHECKING:
    from wildray.sweep.trial import Trial

logger = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
ENDED_TAG = "wildray.status"


def tracking_uri(spec: SweepSpec, store: Store) -> str:
    """Where the sweep is logged; checked, and made ready for several writers."""
    uri = runlog.uri_of(spec.config().tracking, store.root)
    runlog.prepare(uri)
    return uri


def open_parent(spec: SweepSpec, store: Store) -> RunLog:
    """The sweep's own run; to be closed by the caller."""
    return _open(spec, store, spec.name, {"stage": "sweep", "mlflow.note.content": spec.description})


def trial_tags(spec: SweepSpec, store: Store, trial: Trial | TrialRecord) -> dict[str, str]:
    """Tags that put a trial's run under its parent."""
    parent = _open(spec, store, spec.name, {})
    parent_id = parent.run_id
    if len(spec.seeds) > 1:
        setting = _open(spec, store, setting_run(spec, trial.setting), {"stage": "setting", **_under(parent_id)})
        setting.params(trial.settings)
        parent_id = setting.run_id
    return {
        "stage": "trial",
        "sweep": spec.name,
        "setting": trial.setting,
        "seed": str(trial.seed),
        **{f"search.{name}": str(value) for name, value in trial.settings.items()},
        **({} if trial.origin is None else {"donor": f"{trial.origin.donor}, measurement {trial.origin.epoch}"}),
        **_under(parent_id),
    }


def setting_run(spec: SweepSpec, setting: str) -> str:
    """Name of the run that stands for all seeds of a setting."""
    return f"{spec.name}-setting-{setting}"


def log_ended(spec: SweepSpec, store: Store, record: TrialRecord, tags: Mapping[str, str]) -> None:
    """Complete and close the run of a trial that has ended."""
    log = _open(spec, store, record.trial, {**tags, ENDED_TAG: _in_words(record)})
    for epoch in record.history:
        log.metrics(dict(epoch), step=int(epoch["epoch"]))
    cost = {
        "cost/seconds": record.seconds,
        "cost/core_hours": record.core_hours,
        "cost/images": record.num_images,
        "data/samples": float(record.num_samples or 0),
        "backbone/parameters": float(record.num_parameters or 0),
    }
    final = {f"final/{name}": value for name, value in record.metrics.items() if name.startswith(("mAP", "cmc_"))}
    log.metrics({**cost, **final}, step=0)
    log.close("FAILED" if record.status == "failed" else "FINISHED", at_s=record.ended_at)


def log_setting(spec: SweepSpec, store: Store, records: Sequence[TrialRecord]) -> None:
    """Write the mean over seeds into the run of a setting, and close it."""
    log = _open(spec, store, setting_run(spec, records[0].setting), {})
    measured = [record.metrics for record in records if record.status == "finished" and record.metrics]
    if measured:
        values = [metrics["mAP"] for metrics in measured]
        log.metrics({"final/mAP": fmean(values), "final/mAP_std": pstdev(values), "seeds": len(values)}, step=0)
    log.close("FINISHED" if measured else "FAILED")


def register_best(spec: SweepSpec, store: Store, trial: str) -> int | None:
    """Log the model of the best trial with its run, and register it under the sweep's name as ``best``.

    Returns:
        The version of the registered model; None where MLflow is out of reach: the next start makes up for it.
    """
    uri = tracking_uri(spec, store)
    with _open(spec, store, trial, {}) as log:
        if log.run_id is None:
            return None
        weights = local_copy(store.path("models", trial, "backbone.safetensors"))
        model = log_model(uri, log.run_id, weights, run_name=trial, detect=spec.config().detect)
    return None if model is None else register_model(uri, model, spec.name)


def _open(spec: SweepSpec, store: Store, name: str, tags: Mapping[str, str]) -> RunLog:
    settings = spec.config().tracking.model_copy(update={"experiment": spec.name})
    return runlog.open_in(settings, store.root, name, tags)


def _under(run_id: str | None) -> dict[str, str]:
    return {} if run_id is None else {PARENT_TAG: run_id}


def _in_words(record: TrialRecord) -> str:
    return record.status if record.reason is None else f"{record.status}: {record.reason}"[:5000]


def figures(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Numbers of a mapping under a prefix, for ``RunLog.metrics``."""
    return {f"{prefix}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}

"""The stage sweep: everything that is shared once, then trials, then what they come to.

In: a sweep file and a store. Out: records, a run in ``models/`` for each trial, ``sweeps/<name>/sweep.json``, MLflow
runs. Stopped at any moment, the same call goes on: what has ended is not run again, what was under way goes on from its
last checkpoint, and what MLflow was not told is told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from wildray.config import Config
from wildray.errors import ConfigError, StageError
from wildray.labelled import open_labelled
from wildray.retrieval.metrics import chance
from wildray.retrieval.splits import make_protocol
from wildray.store import Store
from wildray.sweep import shared_view, tracked
from wildray.sweep.outcome import Setting, not_better_than, ranked, tested
from wildray.sweep.points import planned, shareable
from wildray.sweep.population import evolve
from wildray.sweep.search import OptunaStudy, PlannedSearch
from wildray.sweep.shared import prepare, untrained
from wildray.sweep.space import key_of
from wildray.sweep.spec import SweepSpec
from wildray.sweep.trial import Context, point_of, trial_of
from wildray.sweep.tuner import room_for, tune_trials, worker_cpus
from wildray.tracking import shown
from wildray.trials import Ledger, TrialRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        name: Of the sweep.
        num_trials: Trials that have begun, in this start or earlier.
        num_finished: With their whole budget.
        num_stopped: Ended by the scheduler.
        num_failed: With an error, which their record says.
        best: The best setting with its validation and test, or None where no setting is finished.
        uri: Folder of the records.
        seconds: Of this start.
    """

    name: str
    num_trials: int
    num_finished: int
    num_stopped: int
    num_failed: int
    best: dict[str, Any] | None
    uri: str
    seconds: float


def sweep(spec: SweepSpec, store: Store) -> SweepResult:
    """Run what is left of a sweep.

    Args:
        spec: The sweep file.
        store: Where everything lies; another sweep of that name must not be under way.

    Raises:
        WildrayError: Something that all trials share cannot be made, or every trial failed.
    """
    begun = time.monotonic()
    with store.lease(f"sweep-{spec.name}"):
        ledger = Ledger(store, spec.name)
        uri = tracked.tracking_uri(spec, store)
        logger.info("sweep %s: records in %s, MLflow at %s", spec.name, ledger.folder, shown(uri))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room_for(spec.resources, nodes)
        shared = prepare(spec, store, workers=max(1, int(sum(node.get("CPU", 0.0) for node in nodes))))
        context = Context(spec, store, shared, worker_cpus(spec.resources))
        with tracked.open_parent(spec, store) as parent:
            parent.experiment_tag(shared_view.TAG, shared_view.tag_of(spec))
            if parent.experiment_url is not None:
                logger.info("sweep %s: MLflow shows it at %s", spec.name, shared_view.address_of(parent.experiment_url))
            parent.params({"sweep": spec.model_dump(mode="json", exclude={"base"})})
            _settle(spec, store, ledger)
            _run(context, ledger)
            records = _settle(spec, store, ledger)
            best = _best(records, context)
            content = _content(context, records, best, seconds=time.monotonic() - begun)
            ledger.write_sweep(content)
            if best is not None:
                version = tracked.register_best(spec, store, best["trial"])
                logger.info(
                    "sweep %s: the best is %s, model %s version %s", spec.name, best["trial"], spec.name, version
                )
                parent.params({"best": best["settings"]})
                parent.metrics(
                    tracked.figures(best["validation"], "best/validation") | tracked.figures(best["test"], "best/test"),
                    step=0,
                )
    result = _result(spec, ledger, records, best, seconds=time.monotonic() - begun)
    if records and result.num_failed == len(records):
        raise StageError(f"All {len(records)} trials of {spec.name} failed, the first with: {records[0].reason}")
    return result


def _run(context: Context, ledger: Ledger) -> None:
    """Make what the planned trials share, then run those that have not ended."""
    spec = context.spec
    trials = planned(context, ledger)
    ended = {record.trial for record in ledger.all() if record.ended}
    left = shareable([trial for trial in trials if trial.name not in ended], context, ledger)
    if spec.scheduler.kind == "pbt":
        lost = {record.trial for record in ledger.all() if record.status == "failed"} - {trial.name for trial in left}
        evolve([trial for trial in trials if trial.name not in lost], context)
        return
    known = ledger.all()
    if spec.algorithm.kind == "optuna":
        search: PlannedSearch = _study(spec, known)
        num_trials = (spec.budget.trials or 0) * len(spec.seeds)
        num_points = num_trials - len(ended)
    else:
        points = [point_of(trial) for trial in left]
        search, num_trials, num_points = PlannedSearch(points, spec), len(trials), len(points)
    if num_points > 0:
        hours = spec.budget.hours
        tune_trials(context, search, num_points=num_points, num_trials=num_trials, known=known, hours=hours)


def _study(spec: SweepSpec, records: Sequence[TrialRecord]) -> OptunaStudy:
    values = {setting.setting: _values(setting, spec) for setting in ranked(records, spec)}
    settings = {record.setting: dict(record.settings) for record in records if record.status != "failed"}
    known = [(found, values.get(setting)) for setting, found in settings.items()]
    return OptunaStudy(
        spec,
        known=known,
        done=[key_of({"settings": dict(record.settings), "seed": record.seed}) for record in records if record.ended],
    )


def _values(setting: Setting, spec: SweepSpec) -> list[float]:
    return [
        sum(record.seconds for record in setting.trials) / len(setting.trials)
        if one.metric == "seconds"
        else float(setting.figures[one.metric])
        for one in spec.objective
    ]


def _settle(spec: SweepSpec, store: Store, ledger: Ledger) -> list[TrialRecord]:
    """Tell MLflow how trials ended that it was not told of; returns all records."""
    records = ledger.all()
    told = ledger.folder / "logged.json"
    known: dict[str, str] = store.read_json("sweeps", spec.name, "logged.json") if told.is_file() else {}
    for record in records:
        state = f"{record.status} {record.ended_at}"
        if record.ended_at is not None and known.get(record.trial) != state:
            tracked.log_ended(spec, store, record, tracked.trial_tags(spec, store, record))
            known[record.trial] = state
    if len(spec.seeds) > 1:
        for setting in sorted({record.setting for record in records}):
            tracked.log_setting(spec, store, [record for record in records if record.setting == setting])
    store.write_text(json.dumps(known, indent=1), "sweeps", spec.name, "logged.json")
    return records


def _best(records: Sequence[TrialRecord], context: Context) -> dict[str, Any] | None:
    settings = ranked(records, context.spec)
    if not settings:
        return None
    best, store = settings[0], context.store
    former = Ledger(store, context.spec.name).read_sweep() or {}
    known = former.get("best") or {}
    trials = [record.trial for record in best.trials]
    config = context.spec.config()
    test = known.get("test") if known.get("trials") == trials else None
    return {
        "setting": best.setting,
        "trial": trials[0],
        "trials": trials,
        "settings": dict(best.settings),
        "validation": dict(best.figures),
        "test": test or tested(best, config, store, data=context.shared.parts.test.digest),
        "not_better_than": not_better_than(best, settings),
    }


def _content(
    context: Context, records: Sequence[TrialRecord], best: Mapping[str, Any] | None, *, seconds: float
) -> dict[str, Any]:
    spec, shared, store = context.spec, context.shared, context.store
    former = Ledger(store, spec.name).read_sweep() or {}
    before = former.get("shared", {}).get("seconds", {})
    pairs = {record.pairs: record for record in records if record.pairs is not None}
    return {
        "name": spec.name,
        "description": spec.description,
        "began_at": former.get("began_at", time.time() - seconds),
        "ended_at": time.time() if all(record.ended_at is not None for record in records) else None,
        "seconds": former.get("seconds", 0.0) + seconds,
        "spec": spec.model_dump(mode="json"),
        "trials": [record.trial for record in records],
        "split": dataclasses.asdict(shared.parts),
        "shared": {
            "seconds": {name: before.get(name, 0.0) + value for name, value in shared.seconds.items()},
            "detections": dict(shared.facts),
            "pairs": [
                {
                    "digest": digest,
                    "num_pairs": record.num_samples,
                    "settings": {name: value for name, value in record.settings.items() if name.startswith("mine.")},
                }
                for digest, record in sorted(pairs.items())
            ],
        },
        "untrained": untrained(_measured(records, context), store, spec.name, shared.parts.validation.digest),
        "chance_mAP": _chance(context),
        "best": best,
    }


def _measured(records: Sequence[TrialRecord], context: Context) -> list[Config]:
    """Configurations of which something was measured; Optuna's are not known before."""
    found = []
    for record in records:
        with contextlib.suppress(ConfigError):  # of a former version of the file
            trial = trial_of(dict(record.settings), record.seed, context, record.origin)
            if record.history and trial.name == record.trial:
                found.append(trial.config)
    return found


def _chance(context: Context) -> float:
    labelled = open_labelled(context.store, context.shared.parts.validation.digest)
    protocol = make_protocol(labelled.text_columns, context.spec.config().eval)
    lucky = chance(len(protocol.queries), len(protocol.gallery), masks=protocol.masks)
    return float(lucky.average_precision[lucky.answerable].mean())


def _result(
    spec: SweepSpec, ledger: Ledger, records: Sequence[TrialRecord], best: dict[str, Any] | None, *, seconds: float
) -> SweepResult:
    counts = {
        status: sum(record.status == status for record in records) for status in ("finished", "stopped", "failed")
    }
    return SweepResult(
        name=spec.name,
        num_trials=len(records),
        num_finished=counts["finished"],
        num_stopped=counts["stopped"],
        num_failed=counts["failed"],
        best=best,
        uri=str(ledger.folder),
        seconds=seconds,
    )

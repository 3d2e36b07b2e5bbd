"""What a sweep comes to: the best setting by validation, those that it does not beat, and its test, once.

In: records of trials. Out: plain values for ``sweep.json``. Only trials with their whole budget can be best: one that
was ended early was so because it was worse, and a mean over some of the seeds would favour luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from wildray.config import Config
from wildray.retrieval.evaluate import evaluate
from wildray.store import Store
from wildray.sweep.spec import Objective, SweepSpec
from wildray.trials import TrialRecord

TESTED = ("mAP", "cmc_1", "untrained_mAP", "chance_mAP")
"""Figures of the test that are kept, with their intervals."""


@dataclass(frozen=True)
class Setting:
    """All finished trials of one setting.

    Attributes:
        setting: Its id.
        settings: What was searched.
        trials: One for each seed, the best by the objective first.
        value: Mean of the objective.
        figures: Means over seeds of what was measured on the validation individuals.
    """

    setting: str
    settings: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    value: float
    figures: Mapping[str, float]


def value_of(record: TrialRecord, objective: Objective) -> float:
    """The objective of a finished trial."""
    return record.seconds if objective.metric == "seconds" else float(record.metrics[objective.metric])


def ranked(records: Sequence[TrialRecord], spec: SweepSpec) -> list[Setting]:
    """Settings of which every seed is finished, the best first."""
    objective = spec.objective[0]
    sign = -1.0 if objective.mode == "max" else 1.0
    found = []
    for setting in sorted({record.setting for record in records}):
        trials = [record for record in records if record.setting == setting and record.status == "finished"]
        if {record.seed for record in trials} != set(spec.seeds) or not all(record.metrics for record in trials):
            continue
        trials.sort(key=lambda record: sign * value_of(record, objective))
        names = [name for name in trials[0].metrics if name.startswith(("mAP", "cmc_"))]
        figures = {name: fmean(float(record.metrics[name]) for record in trials) for name in names}
        value = fmean(value_of(record, objective) for record in trials)
        found.append(Setting(setting, trials[0].settings, tuple(trials), value, figures))
    return sorted(found, key=lambda setting: (sign * setting.value, setting.setting))


def not_better_than(best: Setting, others: Sequence[Setting]) -> list[str]:
    """Ids of the settings whose interval of mAP overlaps the best's: it cannot be said to beat those."""
    low = best.figures.get("mAP_low", 0.0)
    return [one.setting for one in others if one is not best and one.figures.get("mAP_high", 1.0) >= low]


def tested(best: Setting, config: Config, store: Store, *, data: str) -> dict[str, float]:
    """Measure every seed of the best setting on the test individuals; means over seeds.

    Args:
        best: The setting.
        config: ``eval`` and ``scale``.
        store: Holds the runs.
        data: Digest of the test individuals' import.
    """
    measured = [evaluate(config, store, run=record.trial, data=data).metrics for record in best.trials]
    names = [name for name in measured[0] if name.removesuffix("_low").removesuffix("_high") in TESTED]
    return {name: fmean(one[name] for one in measured) for name in names}

"""Trials in groups: by setting, by value, ranked, and a setting in words.

In: ``Sweep`` and records. Out: lists of records and short texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from wildray.report.sweeps.records import UNKNOWN, Mean, Sweep, mean_of, number, show
from wildray.trials import TrialRecord

Key = TypeVar("Key")
MAX_SERIES = 8
"""Lines of a chart that can be told apart."""


def by_setting(records: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Setting to its trials, one for each seed."""
    found: dict[str, list[TrialRecord]] = {}
    for record in records:
        found.setdefault(record.setting, []).append(record)
    return found


def ranked_settings(
    sweep: Sweep, records: Iterable[TrialRecord] | None = None
) -> list[tuple[str, list[TrialRecord], Mean]]:
    """(setting, its trials, their mean mAP), the best first, those without a finished trial last."""
    groups = by_setting(sweep.measured if records is None else records)
    found = [(key, members, mean) for key, members in groups.items() if (mean := mean_of(members)) is not None]
    return sorted(found, key=lambda item: (item[2].partial, -item[2].value, item[0]))


def told_setting(sweep: Sweep, settings: Mapping[str, object]) -> str:
    """The settings that vary, in words: ``mine.min_iou 0.2, backbone.name resnet50``."""
    names = sweep.varying or list(settings)
    return ", ".join(f"{name} {show(settings[name])}" for name in names if name in settings)


def grouped(pairs: Iterable[tuple[Key, TrialRecord]]) -> dict[Key, list[TrialRecord]]:
    """Key to its trials, in the order given."""
    found: dict[Key, list[TrialRecord]] = {}
    for key, record in pairs:
        found.setdefault(key, []).append(record)
    return found


def best_groups(groups: Mapping[str, list[TrialRecord]]) -> dict[str, list[TrialRecord]]:
    """The groups with the best means, no more than can be told apart, in the order given."""
    means = {key: mean for key, records in groups.items() if (mean := mean_of(records)) is not None}
    best = sorted(means, key=lambda key: (means[key].partial, -means[key].value))[:MAX_SERIES]
    return {key: records for key, records in groups.items() if key in best}


def value_text(sweep: Sweep, record: TrialRecord, name: str) -> str:
    """A setting of a trial, searched or not; a dash where it is not known."""
    value = record.settings.get(name, sweep.base(name))
    return UNKNOWN if value is None else show(value)


def chance_level(sweep: Sweep) -> dict[str, float]:
    """The level of a random ranking, by its name; empty where it is not known."""
    chance = number(sweep.content.get("chance_mAP"))
    return {} if chance is None else {"chance": chance}

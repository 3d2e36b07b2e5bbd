"""What a store came to, so that two stores can be compared: rows as counted texts, weights as tensors, trials.

In: the root of a store. Out: a ``Snapshot``, and how two of them differ. Rows are counted and not sorted and compared:
a row that is there twice is another defect than one that is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load

from wildray.schema import DETECTIONS, FRAMES, MEDIA, PAIRS
from wildray.store import Store
from wildray.trials import Ledger

TABLES = {
    "media": ("detections", MEDIA),
    "frames": ("detections", FRAMES),
    "detections": ("detections", DETECTIONS),
    "pairs": ("pairs", PAIRS),
}
"""Tables that are compared, and the collection whose finished chunks they are of."""
TIMES = {"seconds", "images_per_s"}
"""What of a measurement differs from one run to the next by nature."""

Rows = Mapping[str, Counter[str]]


@dataclass(frozen=True)
class Snapshot:
    """What a store came to.

    Attributes:
        rows: Of each table, as texts that are counted.
        weights: Of the model by name; empty where none was asked for.
        trials: Of the sweep: settings to status and measurements; each stands there once for each record.
    """

    rows: Rows
    weights: Mapping[str, torch.Tensor]
    trials: Counter[str]


def snapshot(root: str, *, run: str | None = None, sweep: str | None = None) -> Snapshot:
    """Read a store, and a model or a sweep in it."""
    store = Store.open(root)
    rows = {}
    for name, (stage, schema) in TABLES.items():
        rows[name] = Counter[str]()
        for digest in store.collections(stage):
            rows[name].update(map(repr, store.collection(stage, digest).read(name, schema).to_pylist()))
    weights = {} if run is None else load(store.path("models", run, "backbone.safetensors").read_bytes())
    return Snapshot(rows, weights, Counter() if sweep is None else trials_of(store, sweep))


def trials_of(store: Store, sweep: str) -> Counter[str]:
    """Settings, status and measurements of every trial as texts; times left out."""
    found = Counter[str]()
    for record in Ledger(store, sweep).all():
        history = [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in record.history]
        found[repr((sorted(record.settings.items()), record.seed, record.status, history))] += 1
    return found


def lost(expected: Rows, found: Rows) -> int:
    """Rows of all tables that are missing; a row that should be there twice and is once counts as one."""
    return sum(sum((rows - found.get(name, Counter())).values()) for name, rows in expected.items())


def duplicated(expected: Rows, found: Rows) -> int:
    """Rows of all tables that are there more often than they should, or should not be there at all."""
    return lost(found, expected)


def weights_differ(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> float | None:
    """The largest difference of any weight; None where all are equal bit by bit, infinity where names differ."""
    if expected.keys() != found.keys() or any(expected[name].shape != found[name].shape for name in expected):
        return float("inf")
    if all(torch.equal(tensor, found[name]) for name, tensor in expected.items()):
        return None
    return max(float((tensor.double() - found[name].double()).abs().max()) for name, tensor in expected.items())


def history_of(root: str, run: str) -> list[dict[str, float]]:
    """What a model's epochs measured."""
    found: list[dict[str, float]] = Store.open(root).read_json("models", run, "history.json")
    return found


def drifted(expected: Sequence[Mapping[str, float]], found: Sequence[Mapping[str, float]]) -> str:
    """Where two trainings part, and how they end."""
    for ours, theirs in zip(expected, found, strict=True):
        if ours["loss"] != theirs["loss"]:
            parted = (
                f"epoch {ours['epoch']:.0f} is the first whose loss differs, by {theirs['loss'] - ours['loss']:.1e}"
            )
            break
    else:
        parted = "no epoch's loss differs"
    ends = (f"loss {one[-1]['loss']:.3f}, mAP {one[-1]['mAP']:.3f}" for one in (found, expected))
    return f"{parted}; at the end {' against '.join(ends)} undisturbed"


def judge(expected: Snapshot, found: Snapshot) -> dict[str, Any]:
    """How a store differs from the undisturbed one, as a record of a run keeps it."""
    judged: dict[str, Any] = {
        "lost": lost(expected.rows, found.rows),
        "duplicated": duplicated(expected.rows, found.rows),
        "num_rows": sum(sum(rows.values()) for rows in expected.rows.values()),
    }
    if expected.trials:
        judged["trials_equal"] = expected.trials == found.trials
        judged["trials_missing"] = sum((expected.trials - found.trials).values())
    else:
        difference = weights_differ(expected.weights, found.weights)
        judged["weights_equal"] = difference is None
        judged["largest_difference"] = difference
    return judged

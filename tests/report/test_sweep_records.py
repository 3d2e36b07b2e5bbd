"""Means, matrices, orders and importance, worked out of records."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from synthetic_sweep import (
    SMOKE,
    combinations,
    record,
    stopped,
    sweep_of,
)

from wildray.report.sweeps.bins import bins_of
from wildray.report.sweeps.compared import heat_axes
from wildray.report.sweeps.groups import ranked_settings
from wildray.report.sweeps.importance import importance
from wildray.report.sweeps.records import matrix, mean_of, ordered
from wildray.report.sweeps.told import untrained_of


def test_the_matrix_is_the_mean_over_everything_else() -> None:
    settings = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("2s", "1min") for c in ("x", "y")]
    values = np.arange(8) / 10
    made = [record(f"t{i}", s, value=values[i]) for i, s in enumerate(settings)]
    found = matrix(sweep_of(made, {"a": [1, 2], "b": ["2s", "1min"]}), made, "a", "b")
    assert (found.rows, found.columns) == (("1", "2"), ("2 s", "60 s"))
    np.testing.assert_allclose(found.values, values.reshape(2, 2, 2).mean(axis=2))
    np.testing.assert_array_equal(found.counts, 2)
    assert not found.partial.any()


def test_finished_trials_alone_make_a_cell_where_there_are_any() -> None:
    at = {"a": 1, "b": 1}
    made = [record("t0", at, value=0.5), record("t1", at, value=0.3), stopped(record("t2", at, value=0.9), 2)]
    other = [
        stopped(record("t3", {"a": 1, "b": 2}, value=0.4), 4),
        stopped(record("t4", {"a": 1, "b": 2}, value=0.6), 4),
    ]
    everything = [*made, *other, record("t5", {"a": 1}, value=0.1)]
    found = matrix(sweep_of(everything, {"a": [1, 2], "b": [1, 2]}), everything, "a", "b")
    np.testing.assert_allclose(found.values, [[0.4, 0.5], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.counts, [[2, 2], [0, 0]])
    np.testing.assert_array_equal(found.totals, [[3, 2], [0, 0]])
    np.testing.assert_array_equal(found.partial, [[False, True], [False, False]])


def test_means_have_a_spread_and_pass_over_what_is_no_number() -> None:
    at = {"a": 1}
    odd = dataclasses.replace(record("t2", at), history=({"epoch": 1, "mAP": math.nan},))
    mean = mean_of([record("t0", at, value=0.4), record("t1", at, value=0.2), odd, record("t3", at, history=())])
    assert mean is not None
    assert (mean.value, mean.low, mean.high, mean.num, mean.total) == (pytest.approx(0.3), 0.2, 0.4, 2, 2)
    assert mean_of([odd]) is None


def test_values_are_in_order_of_size_and_time_before_counts() -> None:
    assert ordered(["1capture", "5min", "120frames", "2s", "300s"]) == ["2 s", "300 s", "120 frames", "1 capture"]
    assert ordered([0.5, 0.1, 10, 1.0, 1]) == ["0.1", "0.5", "1", "10"]
    assert ordered(["direct", "assigned", "direct", None]) == ["null", "direct", "assigned"]


@pytest.mark.parametrize(
    ("search", "axes"),
    [
        (SMOKE, ("mine.min_iou", "mine.interval")),
        (
            {"mine.min_iou": [0.1, 0.2], "train.batch_size": [8, 16, 32], "train.x": [1, 2, 3, 4]},
            ("train.x", "train.batch_size"),
        ),
        ({"train.batch_size": [8, 16], "train.method": ["simclr", "byol"]}, ("train.method", "train.batch_size")),
        ({"mine.min_iou": [0.1, 0.2]}, None),
    ],
)
def test_axes_of_the_heat_map(search: dict[str, list[Any]], axes: tuple[str, str] | None) -> None:
    made = [record(f"t{i}", settings) for i, settings in enumerate(combinations(search))]
    assert heat_axes(sweep_of(made, search)) == axes


def test_intervals_of_numbers_are_axes_with_bins() -> None:
    rates = {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}}
    made = [record(f"t{i}", {"train.learning_rate": 0.01 / (i + 1), "mine.min_iou": 0.1 * (i + 1)}) for i in range(4)]
    sweep = sweep_of(made, rates | {"mine.min_iou": [0.1, 0.2, 0.3, 0.4]})
    assert heat_axes(sweep) == ("mine.min_iou", "train.learning_rate")
    assert sweep.cells("train.learning_rate") == ["0.0001 to 0.0032", "0.0032 to 0.1"]
    found = matrix(sweep, made, "mine.min_iou", "train.learning_rate")
    np.testing.assert_array_equal(found.counts, [[0, 1], [0, 1], [0, 1], [1, 0]])


def test_bins_hold_their_values() -> None:
    for kind, ends in (("uniform", [5, 50]), ("loguniform", [1e-4, 1e-1]), ("integers", [1, 12])):
        bins = bins_of({kind: ends}, num_trials=100)
        assert bins is not None
        assert (len(bins.labels), bins.edges[0], bins.edges[-1]) == (5, *map(float, ends))
        assert bins.label(ends[0]) == bins.label(ends[0] - 1) == bins.labels[0]
        assert bins.label(ends[1]) == bins.label(ends[1] + 1) == bins.labels[-1]
    assert bins.labels == ["1 to 3", "4 to 5", "6 to 7", "8 to 9", "10 to 12"]
    assert [bins.label(value) for value in (3, 4, 9, 10)] == ["1 to 3", "4 to 5", "8 to 9", "10 to 12"]
    assert bins_of({"integers": [1, 2]}, num_trials=100).labels == ["1", "2"]
    assert bins_of({"grid": [1, 2]}, num_trials=9) is None
    assert bins_of({"loguniform": [0, 2]}, num_trials=9) is None


def test_importance_finds_the_setting_that_matters() -> None:
    search = {"mine.min_iou": [0.1, 0.2, 0.3, 0.4, 0.5], "train.batch_size": [8, 16, 32, 64]}
    made = [
        record(f"t{i}", settings, value=0.2 + settings["mine.min_iou"])
        for i, settings in enumerate(combinations(search))
    ]
    found = importance(sweep_of(made, search))
    assert found is not None
    assert found.names == ("mine.min_iou", "train.batch_size")
    assert found.values[0] > 10 * abs(found.values[1])
    assert found.low[0] > 0
    assert found.error < found.error_of_mean
    assert found.num_trials == 20


def test_importance_needs_trials_settings_and_two_that_vary() -> None:
    search = {"mine.min_iou": [0.1, 0.2, 0.3, 0.4], "train.batch_size": [8, 16]}
    made = [record(f"t{i}", settings) for i, settings in enumerate(combinations(search))]
    assert importance(sweep_of(made, search)) is not None
    assert importance(sweep_of([*made[:7], stopped(made[7], 2)], search)) is None
    assert importance(sweep_of([r for r in made if r.settings["train.batch_size"] == 8] * 2, search)) is None


def test_stopped_settings_never_lead() -> None:
    made = [record("t0", {"a": 1}, value=0.3), stopped(record("t1", {"a": 2}, value=0.9), 3)]
    assert [mean.partial for _, _, mean in ranked_settings(sweep_of(made, {"a": [1, 2]}))] == [False, True]


def test_untrained_is_that_of_the_network() -> None:
    sweep = sweep_of([], SMOKE)
    assert untrained_of(sweep, {"backbone.name": "resnet50"})["mAP"] == pytest.approx(0.12)
    assert untrained_of(sweep, {"backbone.name": "resnet50", "backbone.image_size": 224}) == {}
    assert untrained_of(sweep, {}) == {}

"""The page of a sweep can be made of any records: few, many, failed, altered, with hostile names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import pytest
from synthetic_sweep import (
    HOSTILE,
    NAME,
    PARAMETERS,
    SMOKE,
    Read,
    combinations,
    content,
    epochs,
    record,
    write,
)

from wildray.errors import ConfigError, StoreError
from wildray.report.sweeps import importance as sweep_importance
from wildray.report.sweeps.build import report_sweep
from wildray.report.sweeps.words import SECTIONS
from wildray.store import Store
from wildray.trials import Ledger


@pytest.fixture(autouse=True)
def few_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spread of importance is not what is tested here, and takes seconds."""
    monkeypatch.setattr(sweep_importance, "NUM_BOOTSTRAP", 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_everything_that_can_be_shown_is(store: Store, undrawn: None) -> None:
    search = {
        "mine.min_iou": [0.1, 0.2, 0.5],
        "train.method": ["simclr", "byol"],
        "backbone.name": list(PARAMETERS)[:2],
    }
    made = [
        record(f"t{i:02d}", settings, history=epochs(0.3 + i / 50, 4, nyala=0.1))
        for i, settings in enumerate(combinations(search))
    ]
    write(store, made, content(made, search))
    written = report_sweep(store, NAME)
    assert Read(written).ids == list(SECTIONS)
    assert {"importance", "species", "methods", "heatmap-backbone-name"} <= {path.stem for path in written.figures}


@pytest.mark.parametrize("status", ["waiting", "failed", "running", "stopped"])
def test_a_sweep_without_a_finished_trial(store: Store, status: str) -> None:
    settings = combinations(SMOKE)[:4]
    history = () if status in ("waiting", "failed") else epochs(0.3, 2)
    made = [record(f"t{i}", s, status=status, history=history, reason="no room") for i, s in enumerate(settings)]
    write(store, made, content(made, SMOKE, ended_at=None))
    written = report_sweep(store, NAME)
    page = Read(written)
    assert "The sweep has not ended" in page.text
    assert ("Every trial that ended has failed" in page.text) == (status == "failed")
    assert ("progress" in page.ids) == bool(history)
    assert ("heatmap" in page.ids) == bool(history)
    assert page.text.count("no room") == 4
    assert "validation_mAP" not in written.metrics


def test_a_single_trial(store: Store) -> None:
    made = [record("only", {"mine.min_iou": 0.2})]
    write(store, made, content(made, {"mine.min_iou": [0.2]}))
    page = Read(report_sweep(store, NAME))
    assert page.ids == ["result", "progress", "trials", "cost", "settings"]
    assert "It is the only setting with a result" in page.text
    assert "mine.min_iou 0.2" in page.text


def test_several_seeds_have_a_mean_and_a_spread(store: Store, undrawn: None) -> None:
    settings = {"mine.min_iou": 0.2}
    values = (0.41, 0.44, 0.50)
    made = [record(f"t{seed}", settings, seed=seed, value=value) for seed, value in enumerate(values)]
    made += [record(f"u{seed}", {"mine.min_iou": 0.5}, seed=seed, value=0.2) for seed in range(3)]
    write(store, made, content(made, {"mine.min_iou": [0.2, 0.5]}))
    page = Read(report_sweep(store, NAME))
    assert "Over 3 seeds: mAP 0.450 on validation, from 0.410 to 0.500." in page.text
    assert ["0.2", "0.450", "0.410 to 0.500", "3 of 3"] in page.rows
    assert page.row("trial")[2] == "seed"


def test_the_objective_decides_the_order(store: Store, undrawn: None) -> None:
    made = [record(f"t{i}", {"a": i}, value=0.3 + i / 10, seconds=50.0 + i) for i in range(3)]
    known = content(made, {"a": [0, 1, 2]})
    known["spec"]["objective"] = [{"metric": "seconds", "mode": "min"}]
    write(store, made, known)
    assert [row[0] for row in Read(report_sweep(store, NAME)).rows if row[0] in ("t0", "t1", "t2")] == [
        "t0",
        "t1",
        "t2",
    ]


def test_missing_parts_are_passed_over(store: Store, undrawn: None) -> None:
    made = [
        record(f"t{i}", s, history=({"epoch": 1, "mAP": 0.2 + i / 20},), num_samples=None, num_parameters=None,
               images_per_epoch=0.0, num_epochs=0, startup_s=(), pairs=None)
        for i, s in enumerate(combinations(SMOKE))
    ]  # fmt: skip
    write(store, made, None)
    assert Read(report_sweep(store, NAME)).ids == ["result", "heatmap", "importance", "trials", "cost", "settings"]
    odd = {
        "spec": None,
        "trials": None,
        "split": [],
        "shared": {"pairs": None, "seconds": 3},
        "untrained": 1,
        "best": {},
    }
    Ledger(store, NAME).write_sweep(odd)
    assert Read(report_sweep(store, NAME)).ids == ["result", "heatmap", "importance", "trials", "cost", "settings"]
    Ledger(store, NAME).write_sweep(
        content([], SMOKE) | {"best": {"setting": "gone"}, "chance_mAP": "x", "split": None}
    )
    assert "best setting" in Read(report_sweep(store, NAME)).text


def test_no_trial_at_all(store: Store) -> None:
    write(store, [], content([], SMOKE, trials=["a", "b"]))
    made = report_sweep(store, NAME)
    assert Read(made).ids == ["result", "trials", "cost", "settings"]
    assert made.metrics["num_trials"] == 2
    assert made.figures == ()


def test_hostile_names_are_text(store: Store) -> None:
    search = {"mine.linker": [HOSTILE, "$x^2$\n"], f"train.{HOSTILE}": ["a", "b"]}
    made = [
        record(f"t{i}", s, reason=HOSTILE, history=epochs(0.3 + i / 10, 4, **{HOSTILE: 0.0}))
        for i, s in enumerate(combinations(search))
    ]
    made.append(dataclasses.replace(made[0], trial="bad", status="failed"))
    known = content(made, search, description=HOSTILE)
    known["best"]["not_better_than"] = [HOSTILE]
    known["shared"]["seconds"] = {HOSTILE: 1.0}
    known["untrained"] = {HOSTILE: {"mAP": 0.1}}
    write(store, made, known)
    written = report_sweep(store, NAME)
    page = Read(written)
    assert page.open == []
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 10
    assert "<script" not in written.page.read_text()
    assert all(path.parent == written.page.parent for path in written.figures)


def test_of_hundreds_of_trials_the_table_is_folded(store: Store, undrawn: None) -> None:
    made = [record(f"t{i:03d}", {"a": i % 20, "b": i // 20}, value=0.2 + i / 2000) for i in range(500)]
    made[7] = dataclasses.replace(made[7], status="failed", reason="x" * 5000)
    write(store, made, content(made, {"a": list(range(20)), "b": list(range(25))}))
    page = Read(report_sweep(store, NAME))
    assert "439 more trials" in page.text
    assert sum(row[0].startswith("t") and row[0][1:].isdigit() for row in page.rows) == 500
    assert page.text.count("x" * 300) == 1
    assert "x" * 301 not in page.text
    assert "500 trials" in page.text


def test_large_figures_are_drawn(store: Store) -> None:
    made = [record(f"t{i:03d}", {"a": i % 16, "b": i // 16}, value=0.2 + i / 2000, num_samples=i) for i in range(240)]
    write(store, made, content(made, {"a": list(range(16)), "b": list(range(15))}))
    written = report_sweep(store, NAME)
    for path in written.figures:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape[0] < 2 * picture.shape[1]


def test_names_that_look_like_times_are_left_alone(store: Store, undrawn: None) -> None:
    made = [record(f"t{i}", {"a": i}, value=0.5 - i / 10, setting=f"12e4567{i}d", pairs="1234567d") for i in range(3)]
    known = content(made, {"a": [0, 1, 2]})
    known["best"]["not_better_than"] = [made[1].setting, "1234567d"]
    known["shared"]["pairs"] = [{"digest": "1234567d", "num_pairs": 5, "settings": {"mine.interval": "1d"}}]
    write(store, made, known)
    page = Read(report_sweep(store, NAME))
    assert "a 1 (mAP 0.400)" in page.text
    assert page.row("1234567d") == ["1234567d", "mine.interval 86400 s", "5", "3"]


def test_unknown_sweeps_are_refused_with_the_nearest(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"wildray sweep FILE\.yaml"):
        report_sweep(store, NAME)
    write(store, [], content([], SMOKE))
    with pytest.raises(ConfigError, match="Did you mean 'study'"):
        report_sweep(store, "stduy")
    with pytest.raises(ConfigError):
        report_sweep(store, "../study")


def test_altered_records_are_not_passed_over(store: Store) -> None:
    store.write_text("[]", "sweeps", NAME, "sweep.json")
    with pytest.raises(StoreError, match="no record of a sweep"):
        report_sweep(store, NAME)
    write(store, [], content([], SMOKE))
    store.write_text('{"trial": "t"}', "sweeps", NAME, "trials", "t.json")
    with pytest.raises(StoreError, match="no record of a trial"):
        report_sweep(store, NAME)

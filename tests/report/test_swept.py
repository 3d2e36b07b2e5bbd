"""The page of a sweep: its numbers are those of the records, stopped trials are marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from synthetic_sweep import (
    NAME,
    SMOKE,
    Read,
    content,
    smoke_records,
    write,
)

from wildray.report.sweeps.build import SweepPage, report_sweep
from wildray.report.sweeps.costs import Cost
from wildray.report.sweeps.records import read_sweep
from wildray.report.sweeps.words import SECTIONS
from wildray.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, SweepPage]:
    store = Store.open(tmp_path_factory.mktemp("smoke"), create=True)
    records = smoke_records()
    write(store, records, content(records, SMOKE))
    return store, report_sweep(store, NAME)


@pytest.fixture(scope="module")
def page(smoke: tuple[Store, SweepPage]) -> Read:
    return Read(smoke[1])


def test_the_sections_stand_in_order_and_are_well_formed(page: Read) -> None:
    assert page.open == []
    expected = ["result", "heatmap", "size", "samples", "progress", "species", "trials", "cost", "settings"]
    assert page.ids == expected
    assert page.ids == [name for name in SECTIONS if name in page.ids]


def test_links_lead_to_the_sections_and_nothing_is_fetched(smoke: tuple[Store, SweepPage], page: Read) -> None:
    text = smoke[1].page.read_text()
    assert all(f'href="#{name}"' in text for name in page.ids)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src &#x27;none&#x27;" in text


def test_the_page_lies_with_its_pictures(smoke: tuple[Store, SweepPage]) -> None:
    store, made = smoke
    folder = store.path("reports", "sweep-study")
    assert made.page == folder / "index.html"
    names = {"heatmap", "heatmap-backbone-name", "size", "samples", "progress", "species"}
    assert {path.stem for path in made.figures} == names
    assert {path.name for path in folder.iterdir()} == {f"{n}.png" for n in names} | {"index.html", "metrics.json"}
    for path in made.figures:
        assert cv2.imread(str(path)) is not None


def test_the_headline_has_validation_test_untrained_and_chance(page: Read) -> None:
    best = max((r for r in smoke_records() if r.status == "finished"), key=lambda r: r.metrics["mAP"]).metrics
    shown = f"{best['mAP']:.3f} ({best['mAP_low']:.3f} to {best['mAP_high']:.3f})"
    assert page.row("best setting") == ["best setting", shown, "0.399 (0.346 to 0.432)", "0.543"]
    # resnet50 is the third of the untrained networks
    assert page.row("the same network, untrained")[1:3] == ["0.120 (0.080 to 0.200)", "0.211"]
    assert page.row("chance")[1:3] == ["0.091", "0.087"]


def test_settings_that_may_be_as_good_are_named(page: Read) -> None:
    assert "No better than: " in page.text
    assert "mine.min_iou 0.2, mine.interval 2 s, backbone.name resnet50 (mAP 0.520)" in page.text
    assert "mine.min_iou 0.2, mine.interval 120 frames, backbone.name vit_tiny_patch16_224 (mAP 0.482)" in page.text


@pytest.mark.parametrize(
    ("rivals", "sentence"),
    [([], "no interval of the difference holds 0"), (None, None), (["gone"], "No better than: ")],
)
def test_sentences_on_the_difference(store: Store, undrawn: None, rivals: Any, sentence: str | None) -> None:
    records = smoke_records()
    known = content(records, SMOKE)
    known["best"]["not_better_than"] = rivals
    write(store, records, known)
    text = Read(report_sweep(store, NAME)).text
    assert (sentence or "Best: ") in text
    assert ("No better than" in text) == bool(rivals)


def test_every_trial_stands_in_the_table_best_first_failed_last(page: Read) -> None:
    trials = [row for row in page.rows if row and row[0].startswith("study-")]
    records = {r.trial: r for r in smoke_records()}
    assert {row[0] for row in trials} == set(records)
    assert len(trials) == 12
    statuses = [records[row[0]].status for row in trials]
    assert statuses == ["finished"] * 5 + ["stopped"] * 6 + ["failed"]
    for status in ("finished", "stopped"):
        values = [records[row[0]].metrics["mAP"] for row in trials if records[row[0]].status == status]
        assert values == sorted(values, reverse=True)


def test_a_row_has_the_numbers_of_its_record(page: Read) -> None:
    header = page.row("trial")
    row = dict(zip(header, page.row("study-05"), strict=True))
    made = smoke_records()[5]
    mean = made.metrics["mAP"]
    assert row == {
        "trial": "study-05", "mine.min_iou": "0.2", "mine.interval": "120 frames", "backbone.name": "resnet50",
        "status": "finished", "mAP": f"{mean:.3f} ({mean - 0.05:.3f} to {mean + 0.04:.3f})",
        "CMC-1": f"{mean + 0.1:.3f}",
        "samples": "5,000", "images seen": "2,000", "minutes": "1.7", "core-hours": "0.05", "start-up / s": "12",
    }  # fmt: skip


def test_stopped_and_failed_trials_are_marked_with_their_reason(page: Read) -> None:
    header = page.row("trial")
    stopped_row = dict(zip(header, page.row("study-00"), strict=True))
    assert stopped_row["status"] == "stopped early † after 2 of 4 measurementsasha: behind at a rung"
    assert stopped_row["mAP"].endswith("†")
    assert "out of memory: asked for 7 GiB" in page.row("study-11")[header.index("status")]


def test_costs_are_those_of_the_records(smoke: tuple[Store, SweepPage], page: Read) -> None:
    cost = Cost.of(read_sweep(smoke[0], NAME))
    records = smoke_records()
    training = sum(20.0 * len(r.history) for r in records)
    rest = sum(r.seconds - 12.0 - 20.0 * len(r.history) for r in records)
    assert cost.training_s == training
    assert cost.total_s == pytest.approx(200 + 12 * 12 + training + rest)
    assert cost.outside_share == pytest.approx(1 - training / cost.total_s)
    assert cost.core_hours == pytest.approx(sum(r.core_hours for r in records))
    assert page.row("detection")[1] == "2.0"
    assert page.row("training and its measurements")[2] == f"{training / cost.total_s:.1%}"
    assert "40 media, 2,400 frames, 1,777 detections" in page.text
    assert page.row("p0") == ["p0", "mine.min_iou 0.2", "987", "12"]


def test_metrics_are_flat_numbers(smoke: tuple[Store, SweepPage]) -> None:
    made = smoke[1]
    assert json.loads(made.metrics_file.read_text()) == made.metrics
    assert (made.metrics["num_trials"], made.metrics["num_finished"], made.metrics["num_failed"]) == (12, 5, 1)
    assert made.metrics["test_mAP"] == 0.3987
    assert made.metrics["startup_s"] == 12

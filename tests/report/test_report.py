"""The page: whole in itself, safe against hostile names, plain about what is missing."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_rows import DETECTIONS, HOSTILE, LABELLED, write_detections, write_evaluation, write_pairs, write_run

from wildray.config import Config
from wildray.errors import ConfigError, StoreError
from wildray.report import ReportResult, log_pictures, report
from wildray.report.words import LITE_AND_PEOPLE, SECTIONS
from wildray.runlog import default_uri, open_run
from wildray.store import Store


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def of_class(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.tags)


def read(result: ReportResult) -> Page:
    return Page(Path(result.page).read_text())


@pytest.fixture(scope="module")
def written(full_store: Store) -> ReportResult:
    return report(Config(), full_store)


@pytest.fixture(scope="module")
def page(written: ReportResult) -> Page:
    return read(written)


def test_every_section_is_there_and_well_formed(page: Page, written: ReportResult) -> None:
    assert page.open == []
    identifiers = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert identifiers == list(SECTIONS)
    assert {attributes["href"] for tag, attributes in page.tags if tag == "a"} == {f"#{name}" for name in SECTIONS}
    assert written.missing == []
    assert page.of_class("missing") == 0


def test_nothing_is_fetched(page: Page, written: ReportResult) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
        assert not any(name.startswith("on") for name in attributes)
    assert "url(http" not in Path(written.page).read_text()


def test_every_picture_decodes(page: Page) -> None:
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) > 60
    for picture in pictures:
        data = np.frombuffer(base64.b64decode(picture.partition(",")[2]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR) is not None


def test_hostile_names_are_text(page: Page) -> None:
    assert HOSTILE in page.text
    assert "no video stream <img src=http://evil/x.png>" in page.text
    assert "north $x^2$ & fence" in page.text


def test_all_pairs_of_a_small_collection_are_shown(page: Page) -> None:
    assert "All 33 pairs" in page.text
    assert page.of_class("pair") == 33
    assert page.of_class("first") == page.of_class("second") == 33


def test_of_many_pairs_every_camera_and_the_doubtful_ones_are_shown(empty_store: Store, undrawn: None) -> None:
    write_pairs(empty_store, write_detections(empty_store), repeat=10)
    page = read(report(Config(), empty_store))
    assert "Examples of 330 pairs" in page.text
    assert page.of_class("pair") == 48 + 24
    assert "margin 0.10" in page.text
    assert len(set(re.findall(r"(waterhole|alert|north)\S* ?[^I]*IoU 0.38", page.text))) == 3


def test_the_rock_is_among_the_static_ones(page: Page) -> None:
    assert "12 boxes at 1 place." in page.text
    assert page.of_class("static") == 12
    assert "24 boxes, 12 static" in page.text


def test_bad_files_stand_with_their_reason(page: Page) -> None:
    assert "Not looked at: 1 of 4 media" in page.text
    assert "unreadable" in page.text
    assert "exact copies, looked at once" in page.text


def test_the_result_has_chance_before_and_after_with_intervals(page: Page) -> None:
    for shown in ("0.090", "0.420", "(0.300 to 0.500)", "0.620", "(0.520 to 0.670)", "+0.200", "(+0.100 to +0.300)"):
        assert shown in page.text


def test_right_and_wrong_answers_carry_a_sign(page: Page) -> None:
    assert page.of_class("strip") == 12
    assert page.of_class("query") == 12
    assert page.of_class("right") == page.text.count("✓")
    assert page.of_class("wrong") == page.text.count("✗")
    assert page.of_class("right") + page.of_class("wrong") == 12 * 8


def test_people_are_warned_of_where_the_detector_cannot_tell_them_apart(
    empty_store: Store, page: Page, undrawn: None
) -> None:
    assert LITE_AND_PEOPLE in page.text
    write_detections(empty_store, detector="motion")
    assert LITE_AND_PEOPLE not in read(report(Config(), empty_store)).text


def test_pictures_and_metrics_lie_beside(written: ReportResult, full_store: Store) -> None:
    for picture in written.pictures:
        assert cv2.imread(picture) is not None
    assert {Path(picture).stem for picture in written.pictures} == {
        "result", "timeline", "distributions", "training", "vectors", "groups"
    }  # fmt: skip
    metrics = json.loads(Path(written.metrics).read_text())
    assert metrics["num_pairs"] == 33
    assert metrics["num_static"] == 12
    assert metrics["mAP"] == 0.62
    assert all(isinstance(value, float) for value in metrics.values())
    assert Path(written.page) == full_store.path("reports", "first.html")


def test_the_page_goes_into_a_run(written: ReportResult, tmp_path: Path) -> None:
    with open_run(default_uri(tmp_path), "reserve", "first", {}) as run:
        log_pictures(written, run)
    logged = {path.name for path in (tmp_path / "mlartifacts").rglob("report/*")}
    assert logged == {"first.html", "metrics.json", *(Path(picture).name for picture in written.pictures)}


def test_an_empty_store_gives_a_page_that_says_so(empty_store: Store) -> None:
    result = report(Config(), empty_store)
    page = read(result)
    assert result.missing == ["detect", "mine", "pretrain", "evaluate"]
    for command in ("wildray detect", "wildray mine", "wildray pretrain", "wildray evaluate"):
        assert command in page.text
    assert result.pictures == []
    assert "min_iou: 0.2" in page.text  # the configuration that was given


def test_each_stage_fills_its_part(empty_store: Store, undrawn: None) -> None:
    rows = write_detections(empty_store)
    assert report(Config(), empty_store).missing == ["mine", "pretrain", "evaluate"]
    write_pairs(empty_store, rows)
    assert report(Config(), empty_store).missing == ["pretrain", "evaluate"]
    write_run(empty_store)
    result = report(Config(), empty_store)
    assert result.missing == ["evaluate"]
    assert Path(result.page).name == "first.html"


def test_purged_crops_leave_a_word(empty_store: Store, undrawn: None) -> None:
    write_pairs(empty_store, write_detections(empty_store))
    empty_store.path("crops", DETECTIONS, "chunk-000.arrow").unlink()
    page = read(report(Config(), empty_store))
    assert page.text.count("no crop") == 2 * 33 + 1


def test_gone_labelled_images_are_said(empty_store: Store, undrawn: None) -> None:
    write_run(empty_store)
    write_evaluation(empty_store)
    empty_store.path("labelled", LABELLED, "metadata.parquet").unlink()
    page = read(report(Config(), empty_store))
    assert "matches are gone" in page.text
    assert "0.620" in page.text


def test_figures_of_former_weights_are_marked_and_left_out_of_the_metrics(empty_store: Store, undrawn: None) -> None:
    write_run(empty_store)
    write_evaluation(empty_store)
    path = empty_store.path("models", "first", "evaluation.json")
    content = json.loads(path.read_text())
    empty_store.write_text("weights", "models", "first", "backbone.safetensors")
    content["weights"] = empty_store.file_digest("models", "first", "backbone.safetensors")
    content["protocol"] = {"exclude": ["encounter"], "same": ["orientation"]}
    path.write_text(json.dumps(content))
    written = report(Config(), empty_store)
    assert "former weights" not in read(written).text
    assert "nor do those that differ in one of these: orientation" in read(written).text
    assert "chance_mAP" in json.loads(Path(written.metrics).read_text())
    empty_store.write_text("trained on", "models", "first", "backbone.safetensors")
    written = report(Config(), empty_store)
    assert "former weights" in read(written).text
    assert "chance_mAP" not in json.loads(Path(written.metrics).read_text())


def test_a_run_that_broke_off_says_where(empty_store: Store, undrawn: None) -> None:
    write_run(empty_store)
    broken = {"step": 7, "loss": "nan", "norm": "inf", "rate": 1.0, "detection_ids": [1]}
    empty_store.write_text(json.dumps(broken), "models", "first", ".nonfinite.json")
    assert "broke off at step 7: the loss became nan" in read(report(Config(), empty_store)).text


def test_collapsed_vectors_are_said(empty_store: Store, undrawn: None) -> None:
    history = [{"epoch": 1, "loss": 4.8, "embedding_rank": 1.01, "embedding_std": 0.001}]
    empty_store.write_text(json.dumps(history), "models", "flat", "history.json")
    assert "The vectors collapsed" in read(report(Config(), empty_store)).text


def test_unknown_names_are_refused_with_the_nearest(full_store: Store) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'first'"):
        report(Config(), full_store, run="frist")
    with pytest.raises(ConfigError, match="detections/none"):
        report(Config(), full_store, detections="none")


def test_an_altered_history_is_not_passed_over(empty_store: Store) -> None:
    empty_store.write_text('{"loss": 1}', "models", "odd", "history.json")
    with pytest.raises(StoreError, match="no list of epochs"):
        report(Config(), empty_store)

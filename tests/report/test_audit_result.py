"""Verdicts read back: what they come to, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from audit_rows import PAIRS, Truth, mined_store, write_verdicts

from wildray.cli.main import main
from wildray.config import Config
from wildray.errors import DataError, StoreError
from wildray.report.audit import draw_sheet, read_audit
from wildray.report.audit.record import read_record
from wildray.store import Store


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Truth, str]:
    store, truth = mined_store(tmp_path_factory.mktemp("audited"), 240)
    config = Config.load(None, {"audit.num_pairs": 80})
    return store, truth, draw_sheet(config, store).sheet


def test_a_set_that_was_judged_whole_gives_its_true_shares(tmp_path: Path) -> None:
    store, truth = mined_store(tmp_path / "s", 60)
    sheet = draw_sheet(Config.load(None, {"audit.num_pairs": 60}), store).sheet
    found = read_audit(Config(), store, [write_verdicts(tmp_path / "v.json", store, sheet, truth.__getitem__)])
    words = np.array(list(truth.values()))
    animals = words[words != "not_an_animal"]
    flat = found.to_json()
    assert flat["purity"] == flat["purity_low"] == flat["purity_high"] == pytest.approx((words == "same").mean())
    assert flat["drift"] == pytest.approx((animals == "different").mean())
    assert flat["not_an_animal"] == pytest.approx((words == "not_an_animal").mean())
    assert json.loads(json.dumps(flat)) == flat
    for axis, rows in found.parts.items():
        assert axis in ("density", "iou"), "all gaps are alike: they cut nothing"
        assert sum(row.num_pairs for row in rows) == 60


def test_a_sample_gives_the_truth_within_its_interval(known: tuple[Store, Truth, str], tmp_path: Path) -> None:
    store, truth, sheet = known
    found = read_audit(Config(), store, [write_verdicts(tmp_path / "v.json", store, sheet, truth.__getitem__)])
    true = np.mean([word == "same" for word in truth.values()])
    assert found.whole.purity.low <= true <= found.whole.purity.high
    assert [row.part for row in found.parts["density"]] == ["1", "2 to 3", "4 and more"]
    assert [row.part for row in found.parts["iou"]] == ["under 0.35", "0.35 to 0.6", "0.6 and more"]
    record = read_record(store, sheet)
    weights = np.array(record.size) / np.bincount([one.stratum for one in record.drawn])
    right = [truth[int(one.anchor_id), int(one.positive_id)] == "same" for one in record.drawn]
    naive = sum(weights[one.stratum] * hit for one, hit in zip(record.drawn, right, strict=True)) / 240
    assert found.whole.purity.value == pytest.approx(naive)


def test_unsure_and_open_pairs_count_neither_way_and_are_said(known: tuple[Store, Truth, str], tmp_path: Path) -> None:
    store, truth, sheet = known
    keys = [(int(one.anchor_id), int(one.positive_id)) for one in read_record(store, sheet).drawn]
    unsure, left = set(keys[:6]), set(keys[6:10])

    def say(key: tuple[int, int]) -> str | None:
        return None if key in left else "unsure" if key in unsure else truth[key]

    found = read_audit(Config(), store, [write_verdicts(tmp_path / "v.json", store, sheet, say)])
    assert (found.counts["unsure"], sum(found.counts.values())) == (6, 76)
    assert found.whole.purity.members == 70
    assert found.purity_unsure_wrong is not None
    assert found.whole.purity.value is not None
    assert found.purity_unsure_wrong < found.whole.purity.value
    assert any("4 of 80 pairs are not judged yet" in note for note in found.notes)
    assert any("6 pairs are unsure" in note for note in found.notes)


def test_two_reviewers_are_taken_together(known: tuple[Store, Truth, str], tmp_path: Path) -> None:
    store, truth, sheet = known
    contrary = {key for key, word in list(truth.items()) if word == "same"}
    ada = write_verdicts(tmp_path / "a.json", store, sheet, truth.__getitem__)
    ben = write_verdicts(
        tmp_path / "b.json", store, sheet, lambda key: "different" if key in contrary else truth[key], reviewer="Ben"
    )
    found = read_audit(Config(), store, [ada, ben])
    assert found.counts["same"] == 0
    assert found.counts["unsure"] == found.agreements[0].conflicts > 0
    assert found.agreements[0].reviewers == ("Ada", "Ben")


def refusals(content: dict, key: tuple[str, str]) -> dict[str, tuple[object, str]]:
    row = {"anchor_id": key[0], "positive_id": key[1], "verdict": "same"}
    return {
        "another sheet": (content | {"sheet": "0" * 12}, "has drawn no sheet"),
        "another pair set": (content | {"pairs": "b" * 16}, "its sheet was drawn from"),
        "unknown word": (content | {"verdicts": [row | {"verdict": "<b>smae"}]}, "is no verdict"),
        "twice": (content | {"verdicts": [row, row]}, "has a verdict already"),
        "a number for an id": (content | {"verdicts": [row | {"anchor_id": int(key[0])}]}, "no detection id as text"),
        "a pair of no sheet": (content | {"verdicts": [row | {"anchor_id": "5"}]}, "is not on the sheet"),
        "a text for a row": (content | {"verdicts": ["same"]}, "no detection id as text"),
        "no list": (content | {"verdicts": {}}, "is no list"),
        "nothing judged": (content | {"verdicts": []}, "no pair was judged"),
        "no reviewer": (content | {"reviewer": " "}, "reviewer is"),
        "a list": ([content], "is no verdict file"),
        "another version": (content | {"version": 2}, "of version 2"),
    }


@pytest.mark.parametrize("case", refusals({}, ("1", "2")))
def test_what_is_no_verdict_on_this_sheet_is_refused(
    case: str, known: tuple[Store, Truth, str], tmp_path: Path
) -> None:
    store, truth, sheet = known
    path = tmp_path / "v.json"
    write_verdicts(path, store, sheet, truth.__getitem__)
    one = read_record(store, sheet).drawn[0]
    content, words = refusals(json.loads(path.read_text()), (one.anchor_id, one.positive_id))[case]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_audit(Config(), store, [str(path)])


def test_a_file_that_was_cut_short_is_refused(known: tuple[Store, Truth, str], tmp_path: Path) -> None:
    store, truth, sheet = known
    path = tmp_path / "v.json"
    write_verdicts(path, store, sheet, truth.__getitem__)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cut short"):
        read_audit(Config(), store, [str(path)])
    with pytest.raises(DataError, match="cannot be read"):
        read_audit(Config(), store, [str(tmp_path / "none.json")])


def test_two_files_of_one_reviewer_or_of_two_sheets_are_refused(
    known: tuple[Store, Truth, str], tmp_path: Path
) -> None:
    store, truth, sheet = known
    one = write_verdicts(tmp_path / "1.json", store, sheet, truth.__getitem__)
    with pytest.raises(DataError, match="both of 'ADA'"):
        read_audit(Config(), store, [one, write_verdicts(tmp_path / "2.json", store, sheet, truth.get, reviewer="ADA")])
    other = draw_sheet(Config.load(None, {"audit.seed": 5}), store).sheet
    with pytest.raises(DataError, match="read them apart"):
        read_audit(Config(), store, [one, write_verdicts(tmp_path / "3.json", store, other, truth.get, reviewer="Ben")])


def test_an_altered_record_is_refused(tmp_path: Path) -> None:
    store, truth = mined_store(tmp_path / "s", 10)
    sheet = draw_sheet(Config(), store).sheet
    path = write_verdicts(tmp_path / "v.json", store, sheet, truth.get)
    store.write_text("{}", "audits", f"{sheet}.json")
    with pytest.raises(StoreError, match="no record of a sheet"):
        read_audit(Config(), store, [path])


def test_the_command_draws_and_reads(
    known: tuple[Store, Truth, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, truth, _ = known
    out = tmp_path / "sheet.html"
    assert (
        main(["audit", "--store", store.root, "--pairs", PAIRS, "--out", str(out), "--audit.num-pairs", "30", "--json"])
        == 0
    )
    drawn = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (drawn["num_pairs"], drawn["page"]) == (30, str(out))
    hostile = "[red]\x1b[2J<script>"
    path = write_verdicts(tmp_path / "v.json", store, drawn["sheet"], truth.__getitem__, reviewer=hostile)
    ben = write_verdicts(tmp_path / "b.json", store, drawn["sheet"], truth.__getitem__, reviewer="Ben")
    assert main(["audit", "--store", store.root, "--verdicts", path, ben, "--json"]) == 0
    read = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert read["purity_low"] <= read["purity"] <= read["purity_high"]
    assert read["agreements"][0]["agreed"] == 1
    assert main(["audit", "--store", store.root, "--verdicts", path, ben]) == 0
    printed = capsys.readouterr().out
    assert "[red]" in printed
    assert "\x1b[2J" not in printed
    assert "boxes in the frame 2 to 3" in printed
    assert main(["audit", "--store", store.root, "--verdicts", path, "--out", str(out)]) == 2
    assert "give one of them" in capsys.readouterr().err

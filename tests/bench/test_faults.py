"""The fault table: rows are counted, repeated steps are added up, the page says what came of the runs."""

import json
from collections import Counter

import pytest
import torch

from bench.fault_kinds import FAULTS
from bench.fault_page import HEADER, counted, outcome, page
from bench.fault_rows import Snapshot, drifted, duplicated, judge, lost, weights_differ
from bench.fault_watch import longest_gap, steps_repeated
from bench.faults import read, study


def start(status=0, error="", kind="", seconds=50.0):
    return {"status": status, "seconds": seconds, "error": error, "kind": kind}


def record(name="driver", number=0, **changes):
    return {
        "fault": name, "number": number, "stage": "detect", "told": [], "came": True, "starts": [start()],
        "seconds": 95.0, "undisturbed_s": 80.0, "standstill_s": 2.4, "commit": "abc", "machine": "a CPU", "load": 1.0,
        "repeated": {"media": 0, "shards": 0, "steps": 0, "trials": 0}, "lost": 0, "duplicated": 0, "num_rows": 100,
        "weights_equal": True, "largest_difference": None, **changes,
    }  # fmt: skip


def test_rows_are_counted_in_both_directions():
    expected = {"media": Counter("aab"), "pairs": Counter("x")}
    assert lost(expected, expected) == duplicated(expected, expected) == 0
    found = {"media": Counter("abbb"), "pairs": Counter("x")}
    assert lost(expected, found) == 1  # an a
    assert duplicated(expected, found) == 2  # two more b
    assert lost(expected, {"media": Counter("aab")}) == 1, "a table that is not there at all"
    assert duplicated(expected, {"media": Counter("aabz"), "pairs": Counter("x")}) == 1, "a row of no other store"


def test_weights_are_compared_bit_by_bit():
    ours = {"a": torch.tensor([1.0, 2.0])}
    assert weights_differ(ours, {"a": ours["a"].clone()}) is None
    assert weights_differ(ours, {"a": torch.tensor([1.0, 2.5])}) == 0.5
    assert weights_differ(ours, {"a": torch.tensor([1.0])}) == weights_differ(ours, {}) == float("inf")


def test_it_is_said_where_two_trainings_part():
    ours = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0, "mAP": 0.2}]
    theirs = [ours[0], {"epoch": 2, "loss": 2.001, "mAP": 0.21}]
    assert drifted(ours, theirs).startswith(
        "epoch 2 is the first whose loss differs, by 1.0e-03; at the end loss 2.001"
    )
    assert drifted(ours, ours).startswith("no epoch's loss differs")


def test_a_sweep_is_judged_by_its_trials():
    rows = {"media": Counter("a")}
    ours = Snapshot(rows, {}, Counter({"one": 1, "two": 1}))
    assert judge(ours, ours)["trials_equal"]
    twice = judge(ours, Snapshot(rows, {}, Counter({"one": 2})))
    assert (twice["trials_equal"], twice["trials_missing"]) == (False, 1)


@pytest.mark.parametrize(
    ("seen", "steps"),
    [
        ([], 0),
        ([1, 7, 13], 0),
        ([1, 15, 11, 20], 5),
        ([1, 12, 11, 12, 30, 21, 22], 12),
        ([1, 9, 10], 0),
        ([5, 1, 6], 5),
    ],
)
def test_steps_of_an_attempt_before_are_repeated(seen, steps):
    assert steps_repeated(seen) == steps


def test_a_standstill_is_counted_from_what_was_finished_last():
    assert longest_gap([1.0, 20.0, 22.0, 30.0], 21.0) == 8.0
    assert longest_gap([30.0, 1.0, 20.0, 22.0], 15.0) == 19.0
    assert longest_gap([1.0, 2.0], 3.0) is None


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        ([start()], "went on by itself"),
        ([start(-9), start()], "went on when run again"),
        ([start(1, "The disk is full", "StoreError"), start()], "clear error, went on when run again"),
        ([start(1, "KeyError", "Defect"), start()], "unclear error, went on when run again"),
        ([start(1), start()], "unclear error, went on when run again"),
        ([start(1, "no", "StageError")], "failed"),
        ([start(None), start()], "hung"),
    ],
)
def test_outcome(starts, words):
    assert outcome(record(starts=starts)) == words


def test_the_page_counts_runs_and_names_what_is_missing():
    records = [
        record(),
        record(
            number=1,
            lost=3,
            weights_equal=False,
            largest_difference=0.25,
            starts=[start(-9), start()],
            repeated={"media": 0, "shards": 0, "steps": 0, "trials": 1},
        ),
        record(number=2, came=False, lost=99),
        record("node-sweep", trials_equal=True, repeated={"media": 0, "shards": 0, "steps": 0, "trials": 2}),
    ]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in page(records).splitlines() if "|" in line}
    cells = lines[FAULTS["driver"].title].strip("| ").split(" | ")
    assert len(cells) == len(HEADER)
    assert cells[1] == "2", "the fault that came too late says nothing"
    assert cells[3:5] == ["0 (1 of 2), 3 (1 of 2)", "0 (2 of 2)"]
    assert cells[5:8] == ["nothing", "2, 2", "95, 95 (80)"]
    assert cells[8] == "bit by bit (1 of 2), differ by up to 0.25 (1 of 2)"
    assert "trials begun: 2" in lines[FAULTS["node-sweep"].title]
    assert "not yet run" in lines[FAULTS["drain"].title]
    assert counted(["x"]) == "x (1 of 1)"


def test_the_page_names_no_folder_of_the_machine():
    starts = [
        start(1, "Writing /home/me/runs/disk-0/store/crops/a failed: the disk is full", "StoreError"),
        start(),
    ]
    text = page([record("disk", starts=starts)])
    assert "Writing STORE/crops/a failed" in text
    assert "/home" not in text


def test_a_study_that_was_stopped_goes_on(tmp_path):
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(record(number=number)) + "\n" for number in (0, 1, 1)))
    assert [found["number"] for found in read(results)] == [0, 1]
    study(["driver"], times=2, folder=tmp_path / "work", results=results)  # nothing is left, and nothing is started
    assert not (tmp_path / "work").exists()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_lost_node_costs_no_row(tmp_path):
    study(["node-detect"], times=1, folder=tmp_path / "work", results=tmp_path / "results.jsonl")
    (found,) = read(tmp_path / "results.jsonl")
    assert found["came"], found
    assert outcome(found) == "went on by itself"
    assert (found["lost"], found["duplicated"], found["weights_equal"]) == (0, 0, True)

"""Records of trials, and who has the last word."""

import json

import pytest

from wildray.errors import StoreError
from wildray.store import Store
from wildray.trials import Ledger, TrialRecord

HISTORY = [{"epoch": epoch, "mAP": 0.1 * epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(Store.open(tmp_path / "s", create=True), "halved")
    ledger.write(TrialRecord("a", "a", 0, {"mine.min_iou": 0.2}, status="running", num_epochs=3))
    ledger.store.write_text(json.dumps(HISTORY[:1]), "models", "a", "history.json")
    return ledger


def test_a_record_outlives_its_process(ledger):
    ledger.change("a", seconds=3.0, startup_s=(1.0, 2.0))
    (record,) = Ledger(ledger.store, "halved").all()
    assert (record.seconds, record.startup_s, record.status, record.ended) == (3.0, (1.0, 2.0), "running", False)
    ledger.end("a", "finished")
    record = ledger.read("a")
    assert (record.status, record.ended, list(record.history)) == ("finished", True, HISTORY[:1])


@pytest.mark.parametrize("late", ["failed", "finished", "running"])
def test_what_a_stopped_trial_still_writes_changes_nothing_of_its_end(ledger, late):
    ledger.stop("a", "by the scheduler", after=1)
    before = ledger.read("a")
    ledger.store.write_text(json.dumps(HISTORY), "models", "a", "history.json")
    if late == "running":
        ledger.write(TrialRecord("a", "a", 0, {"mine.min_iou": 0.2}, status="running", num_epochs=3))
    else:
        ledger.end("a", late, "it was being ended")
    after = ledger.read("a")
    assert after.ended
    assert (after.status, after.reason, after.ended_at) == ("stopped", "by the scheduler", before.ended_at)
    assert after.history == before.history == tuple(HISTORY[:1])


def test_an_altered_record_is_named(ledger):
    ledger.store.write_text('{"trial": "a"}', "sweeps", "halved", "trials", "a.json")
    with pytest.raises(StoreError, match="no record of a trial"):
        ledger.read("a")
    ledger.store.write_text("{}", "sweeps", "halved", "stopped", "a.json")
    ledger.write(TrialRecord("a", "a", 0, {}))
    with pytest.raises(StoreError, match=r"stopped.*a\.json"):
        ledger.read("a")

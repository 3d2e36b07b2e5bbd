import pytest

from wildray.errors import StoreError
from wildray.store import Store
from wildray.sweep.dimension import Dimension
from wildray.sweep.outcome import not_better_than, ranked
from wildray.sweep.spec import Budget, Objective, SweepSpec
from wildray.trials import Ledger, TrialRecord

SPEC = SweepSpec(name="s", search={"a": Dimension(grid=(1,))}, budget=Budget(images=1), seeds=(0, 1))


def record(setting, seed, value, *, status="finished", width=0.05):
    history = (
        {"epoch": 1, "mAP": value - 0.1},
        {"epoch": 2, "mAP": value, "mAP_low": value - width, "mAP_high": value + width},
    )
    return TrialRecord(f"{setting}-{seed}", setting, seed, {"a": setting}, status=status, history=history, seconds=10.0)


def test_the_best_has_the_best_mean_over_all_seeds():
    records = [
        record("lucky", 0, 0.9), record("lucky", 1, 0.1),
        record("good", 0, 0.6), record("good", 1, 0.7),
        record("half", 0, 0.99), record("half", 1, 0.99, status="stopped"),
    ]  # fmt: skip
    settings = ranked(records, SPEC)
    assert [one.setting for one in settings] == ["good", "lucky"]
    assert settings[0].value == pytest.approx(0.65)
    assert settings[0].trials[0].seed == 1, "its better seed comes first"
    assert settings[0].figures["mAP_low"] == pytest.approx(0.6)


def test_less_may_be_better():
    spec = SPEC.model_copy(update={"objective": (Objective(metric="seconds", mode="min"),), "seeds": (0,)})
    slow, fast = record("slow", 0, 0.9), record("fast", 0, 0.1)
    slow = TrialRecord(**{**slow.__dict__, "seconds": 99.0})
    assert [one.setting for one in ranked([slow, fast], spec)] == ["fast", "slow"]


def test_intervals_that_overlap_decide_nothing():
    spec = SPEC.model_copy(update={"seeds": (0,)})
    settings = ranked([record("a", 0, 0.6), record("b", 0, 0.52), record("c", 0, 0.3)], spec)
    assert not_better_than(settings[0], settings) == ["b"]


def test_records_outlive_processes(tmp_path):
    ledger = Ledger(Store.open(tmp_path / "s", create=True), "s")
    assert ledger.read("x") is None
    assert ledger.all() == []
    written = ledger.write(record("a", 0, 0.5))
    assert ledger.read("a-0") == written
    assert written.metrics["mAP"] == 0.5
    assert ledger.end("a-0", "failed", "why").reason == "why"
    assert not ledger.read("a-0").ended, "it is tried again"
    (ledger.folder / "trials" / "a-0.json").write_text('{"trial": 1}')
    with pytest.raises(StoreError, match="no record of a trial"):
        ledger.all()

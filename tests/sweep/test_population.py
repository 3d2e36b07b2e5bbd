"""A population of trials, trained in this process: without Ray, with real runs and checkpoints."""

import json

import numpy as np
import pytest
import yaml
from learning_store import PAIRS_DIGEST, TINY, make_store

from wildray.errors import StageError
from wildray.learning.checkpoint import checkpoints
from wildray.learning.job import Job, Place
from wildray.learning.loop import run_training
from wildray.learning.run import claim_run
from wildray.sweep import population, trial
from wildray.sweep.population import boundaries, evolve, moved, near
from wildray.sweep.shared import Shared
from wildray.sweep.space import all_settings, key_of
from wildray.sweep.spec import SweepSpec
from wildray.sweep.splits import Part, Parts
from wildray.sweep.trial import Context, run_trial, trial_of
from wildray.trials import Ledger

RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01]


class KilledError(BaseException):
    """Stands for a signal that no handler sees."""


def spec_of(folder, **parts) -> SweepSpec:
    base = {}
    for name, value in TINY.items():
        section, _, field = name.partition(".")
        base.setdefault(section, {})[field] = value
    content = {
        "base": base,
        "search": {"train.learning_rate": RATES[:4], "method.temperature": {"uniform": [0.05, 0.5]}},
        "algorithm": {"kind": "random"},
        "scheduler": {"kind": "pbt"},
        "budget": {"images": 192, "images_per_step": 32, "measurements": 3, "trials": 4},
        **parts,
    }
    path = folder / "evolved.yaml"
    path.write_text(yaml.safe_dump(content))
    return SweepSpec.load(path)


class World:
    """A store, a sweep over it, and trainings that run here; the higher the learning rate, the better the mAP."""

    def __init__(self, folder, monkeypatch, **parts):
        self.store = make_store(str(folder / "store"), num_pairs=48)
        part = Part("0" * 16, 4, 16)
        self.spec = spec_of(folder, **parts)
        self.context = Context(self.spec, self.store, Shared(Parts(None, part, part), "d" * 16, {}))
        self.ledger = Ledger(self.store, self.spec.name)
        self.ran: list[tuple[str, int]] = []
        self.broken: set[float] = set()
        self.reports: list[dict] = []
        monkeypatch.setattr(population, "tune_trials", self.tune)
        monkeypatch.setattr(trial, "pretrain", self.pretrain)
        monkeypatch.setattr(trial, "with_samples", self.with_samples)
        monkeypatch.setattr(trial, "make_probe", lambda *_: None)
        monkeypatch.setattr(trial, "trial_tags", lambda *_: {})
        monkeypatch.setattr(trial.tune, "report", self.reports.append)

    @property
    def founders(self):
        return [trial_of(settings, 0, self.context) for settings in all_settings(self.spec)]

    def with_samples(self, config, store):
        return config.model_copy(update={"train": config.train.model_copy(update={"pairs": PAIRS_DIGEST})}), 48

    def tune(self, context, search, **_):
        while (point := search.suggest("")) != "FINISHED":
            run_trial(point, context=context)

    def pretrain(self, config, store, *, run, until, on_epoch, **_):
        if config.train.learning_rate in self.broken:
            raise StageError("the loss is not finite")
        self.ran.append((run, until))
        claim_run(config, store, run)
        value = config.train.learning_rate
        run_training(Job(config, store, run, PAIRS_DIGEST, until), Place(), probe=lambda _: {"mAP": value},
                     on_epoch=lambda metrics: on_epoch({"seconds": 1.0, **metrics}))  # fmt: skip

    def exchanges(self):
        return json.loads((self.ledger.folder / "exchanges.json").read_text())


def test_the_worse_go_on_from_the_better(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    evolve(world.founders, world.context)
    records = {record.trial: record for record in world.ledger.all()}
    exchanges = world.exchanges()
    assert list(exchanges) == ["1", "2"]
    assert all(len(moves) == 1 for moves in exchanges.values()), "a quarter of four"
    assert len(records) == 6
    finished = [record for record in records.values() if record.status == "finished"]
    assert len(finished) == 4
    assert all(len(record.history) == 3 for record in finished)
    for epoch, (move,) in exchanges.items():
        ended, donor, branch = (records[move[name]] for name in ("ended", "donor", "branch"))
        assert ended.status == "stopped"
        assert f"after measurement {epoch}" in ended.reason
        assert len(ended.history) == int(epoch)
        assert branch.origin.donor == donor.trial
        assert branch.history[: int(epoch)] == donor.history[: int(epoch)], "it is the donor's past"
        peers = [record.history[int(epoch) - 1]["mAP"] for record in records.values() if len(record.history) > 1]
        assert donor.history[int(epoch) - 1]["mAP"] == max(peers)
    # every measurement of every run was made once: nothing was trained again
    assert len(world.ran) == len(set(world.ran)) == 12
    told = list(world.ran)
    evolve(world.founders, world.context)
    assert world.ran == told, "nothing is left"


@pytest.mark.parametrize("moment", ["take_over", "_keep"])
def test_killed_at_an_exchange_it_goes_on_with_the_same_population(tmp_path, monkeypatch, moment):
    (tmp_path / "a").mkdir()
    whole = World(tmp_path / "a", monkeypatch)
    evolve(whole.founders, whole.context)
    (tmp_path / "b").mkdir()
    world = World(tmp_path / "b", monkeypatch)
    function, calls = getattr(population, moment), []

    def dies(*arguments, **named):
        function(*arguments, **named)
        calls.append(1)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(population, moment, dies)
        with pytest.raises(KilledError):
            evolve(world.founders, world.context)
    evolve(world.founders, world.context)
    assert calls == [1]
    assert world.exchanges() == whole.exchanges()
    for one, other in zip(whole.ledger.all(), world.ledger.all(), strict=True):
        assert (one.trial, one.status, one.settings) == (other.trial, other.status, other.settings)
        assert [epoch["loss"] for epoch in one.history] == [epoch["loss"] for epoch in other.history]


def test_a_trial_that_fails_is_replaced(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    first = world.founders[0]
    world.broken = {first.settings["train.learning_rate"]}
    evolve(world.founders, world.context)
    records = world.ledger.all()
    assert world.ledger.read(first.name).status == "failed"
    assert {"trial": first.name, "failed": "the loss is not finite"} in world.reports
    assert first.name in [move["ended"] for move in world.exchanges()["1"]]
    assert sum(record.status == "finished" for record in records) >= 1


def test_where_all_fail_it_ends(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    world.broken = set(RATES)
    evolve(world.founders, world.context)
    assert {record.status for record in world.ledger.all()} == {"failed"}


def test_a_branch_is_the_donor_with_other_settings(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    evolve(world.founders, world.context)
    (move,) = world.exchanges()["1"]
    configs = {
        name: yaml.safe_load(world.store.path("models", move[name], "config.yaml").read_text())
        for name in ("donor", "branch")
    }
    for name, value in move["settings"].items():
        section, _, field = name.partition(".")
        assert configs["branch"][section][field] == value
        configs["branch"][section][field] = configs["donor"][section][field]
    assert configs["branch"] == configs["donor"]
    assert checkpoints(world.store.path("models", move["branch"]))
    with pytest.raises(StageError, match="no checkpoint of step 77"):
        population.take_over(world.store, move["donor"], "other", move["settings"], step=77)


def test_settings_move_near_and_stay_inside(tmp_path):
    search = spec_of(tmp_path).search
    rates, temperature = search["train.learning_rate"], search["method.temperature"]
    assert moved(rates, 0.001, factor=2, up=True) == 0.003
    assert moved(rates, 0.003, factor=2, up=True) == 0.003
    assert moved(rates, 0.0001, factor=2, up=False) == 0.0001
    assert moved(temperature, 0.1, factor=2, up=True) == 0.2
    assert moved(temperature, 0.4, factor=2, up=True) == 0.5
    assert moved(temperature, 0.06, factor=2, up=False) == 0.05


def test_near_settings_are_others_than_those_taken(tmp_path):
    spec = spec_of(tmp_path, search={"train.learning_rate": RATES})
    rng = np.random.default_rng(0)
    taken = {key_of({"train.learning_rate": rate}) for rate in RATES[1:]}
    assert near({"train.learning_rate": RATES[2]}, spec, rng, taken=taken) == {"train.learning_rate": RATES[0]}


def test_boundaries_end_with_the_budget():
    assert boundaries(5, 2) == [2, 4, 5]
    assert boundaries(4, 2) == [2, 4]
    assert boundaries(0, 2) == []

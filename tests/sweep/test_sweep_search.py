import pytest
import yaml

from wildray.errors import ConfigError
from wildray.sweep.search import OptunaStudy, PlannedSearch
from wildray.sweep.space import key_of
from wildray.sweep.spec import Resources, SweepSpec
from wildray.sweep.tuner import Halving, room_for, trial_resources, worker_cpus
from wildray.trials import TrialRecord


def spec(tmp_path, **parts):
    content = {
        "search": {"mine.min_iou": {"uniform": [0.1, 0.5]}, "train.views": ["self", "temporal"]},
        "budget": {"images": 100, "measurements": 9, "trials": 4},
        "algorithm": {"kind": "optuna"},
        **parts,
    }
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    return SweepSpec.load(path)


def test_planned_points_come_in_order_and_end(tmp_path):
    points = [{"settings": {"a": number}, "seed": 0} for number in range(2)]
    search = PlannedSearch(points, spec(tmp_path))
    found = [search.suggest("1"), search.suggest("2")]
    assert all(point.pop("asked_at") > 0 for point in found)
    assert [*found, search.suggest("3")] == [*points, "FINISHED"]


def run_all(search, judge):
    seen = []
    while (point := search.suggest(str(len(seen)))) != "FINISHED":
        seen.append(point)
        search.on_trial_complete(str(len(seen) - 1), judge(point))
    return seen


def test_optuna_gets_every_seed_and_hears_the_mean(tmp_path):
    search = OptunaStudy(spec(tmp_path, seeds=[0, 5]), known=[], done=[])
    seen = run_all(search, lambda point: {"mAP": point["settings"]["mine.min_iou"] + point["seed"]})
    assert len(seen) == 8
    assert [point["seed"] for point in seen] == [0, 5] * 4
    told = [trial.value for trial in search._study.trials]
    assert told == pytest.approx([point["settings"]["mine.min_iou"] + 2.5 for point in seen[::2]])


def test_optuna_goes_on_where_it_was(tmp_path):
    sweep = spec(tmp_path)
    known = [
        ({"mine.min_iou": 0.2, "train.views": "self"}, [0.3]),
        ({"mine.min_iou": 0.4, "train.views": "self"}, None),
    ]
    done = [key_of({"settings": known[0][0], "seed": 0})]
    search = OptunaStudy(sweep, known=known, done=done)
    seen = run_all(search, lambda point: {"mAP": 0.1})
    assert len(seen) == 3, "one of the four was finished before"
    assert seen[0]["settings"] == known[1][0], "what was begun comes first"
    assert len(search._study.trials) == 4


def test_optuna_hears_of_failures_and_of_several_objectives(tmp_path):
    objectives = [{"metric": "mAP"}, {"metric": "seconds", "mode": "min"}]
    search = OptunaStudy(spec(tmp_path, objective=objectives), known=[], done=[])
    point = search.suggest("a")
    search.on_trial_complete("a", None, error=True)
    search.suggest("b")
    search.on_trial_complete("b", {"mAP": 0.5, "seconds": 7.0})
    search.suggest("c")
    search.on_trial_complete("c", {"mAP": 0.5, "seconds": 7.0, "failed": "the loss is not finite"})
    states = [trial.state.name for trial in search._study.trials]
    assert states == ["FAIL", "COMPLETE", "FAIL"]
    assert search._study.trials[1].values == [0.5, 7.0]
    assert set(point) == {"settings", "seed", "asked_at"}


def known(name, *values):
    history = tuple({"epoch": epoch, "mAP": value} for epoch, value in enumerate(values, 1))
    return TrialRecord(name, name, 0, {}, history=history)


def halving(tmp_path, records):
    return Halving(spec(tmp_path, scheduler={"kind": "asha", "grace": 1, "reduction": 3}), records)


def result(scheduler, name, epoch, value):
    return scheduler.on_trial_result(None, None, {"trial": name, "epoch": epoch, "mAP": value})


def test_halving_ends_the_worse_of_those_that_reach_a_rung(tmp_path):
    scheduler = halving(tmp_path, [])
    assert result(scheduler, "a", 1, 0.5) == "CONTINUE"
    assert result(scheduler, "b", 1, 0.1) == "STOP"
    assert result(scheduler, "c", 1, 0.6) == "CONTINUE"
    assert scheduler.ended == {"b": 1}
    assert result(scheduler, "c", 2, 0.0) == "CONTINUE", "there is no rung at two"
    assert scheduler.on_trial_result(None, None, {"epoch": 1}) == "CONTINUE"


def test_halving_knows_trials_of_earlier_starts(tmp_path):
    scheduler = halving(tmp_path, [known("a", 0.5, 0.6, 0.7), known("b", 0.1)])
    assert result(scheduler, "c", 1, 0.3) == "STOP"
    assert result(scheduler, "d", 1, 0.55) == "CONTINUE"
    assert result(scheduler, "d", 3, 0.65) == "STOP"
    assert result(scheduler, "a", 1, 0.5) == "CONTINUE", "told again as it goes on, it is not judged again"


@pytest.mark.parametrize(
    ("resources", "nodes", "room"),
    [
        ({}, [{"CPU": 2.0}], 2),
        ({"cpus": 2.0}, [{"CPU": 2.0}], 1),
        ({"concurrency": 1}, [{"CPU": 8.0}], 1),
        ({"workers": 2, "gpus": 1, "cpus": 4.0}, [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 4.0, "GPU": 4.0}], 2),
        ({"cpus": 0.5}, [{"CPU": 2.0}], 4),
    ],
)
def test_room_for_trials(resources, nodes, room):
    assert room_for(Resources(**resources), nodes) == room


def test_no_room_is_said_before_anything_waits():
    with pytest.raises(ConfigError, match="ask for less"):
        room_for(Resources(cpus=4.0), [{"CPU": 2.0}])


def test_drivers_and_workers_find_a_place_together():
    for resources, cpus in ((Resources(), 2.0), (Resources(cpus=0.5), 2.0), (Resources(workers=2), 4.0)):
        room = room_for(resources, [{"CPU": cpus}])
        assert room * (resources.workers * worker_cpus(resources) + 0.01) <= cpus


def test_a_trial_of_one_worker_holds_all_it_gets_and_one_of_several_next_to_nothing(tmp_path):
    alone = spec(tmp_path, resources={"workers": 1, "cpus": 4, "gpus": 1})
    assert alone.in_process
    assert trial_resources(alone) == {"cpu": 3.98, "gpu": 1.0}
    several = spec(tmp_path, resources={"workers": 2, "cpus": 4})
    assert not several.in_process
    assert trial_resources(several) == {"cpu": 0.01}
    shared_out = spec(tmp_path, base={"scale": {"strategy": "zero2"}})
    assert not shared_out.in_process, "DeepSpeed wants a process group"

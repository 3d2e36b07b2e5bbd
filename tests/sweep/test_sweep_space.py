import optuna
import pytest
import yaml

from wildray.errors import ConfigError
from wildray.sweep.space import all_settings, holds, key_of, suggested
from wildray.sweep.spec import SweepSpec

CONDITIONAL = {
    "train.method": ["arcface", "supcon"],
    "method.margin": {"grid": [10, 20], "when": {"train.method": "arcface"}},
    "method.temperature": {"grid": [0.1, 0.2, 0.3], "when": {"train.method": ["supcon", "simclr"]}},
}


def spec(tmp_path, search, *, budget=None, **parts):
    path = tmp_path / "s.yaml"
    content = {"search": search, "budget": {"images": 100, **(budget or {})}, **parts}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return SweepSpec.load(path)


def test_a_grid_is_every_combination_once(tmp_path):
    settings = all_settings(spec(tmp_path, {"mine.min_iou": [0.1, 0.3, 0.5], "mine.interval": ["0.5s", "1s"]}))
    assert len(settings) == len({key_of(one) for one in settings}) == 6
    assert settings[1] == {"mine.min_iou": 0.1, "mine.interval": "1s"}


def test_settings_that_do_not_matter_make_no_further_trials(tmp_path):
    settings = all_settings(spec(tmp_path, CONDITIONAL))
    assert len(settings) == 2 + 3
    assert all(("method.margin" in one) == (one["train.method"] == "arcface") for one in settings)


def test_huge_grids_are_slips(tmp_path):
    search = {f"augment.{name}": [i / 1000 for i in range(101)] for name in ("blur", "erase", "flip")}
    with pytest.raises(ConfigError, match="1,030,301 combinations"):
        all_settings(spec(tmp_path, search))


def test_random_settings_are_within_bounds_and_the_same_for_a_seed(tmp_path):
    search = {
        "train.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "mine.min_iou": {"uniform": [0.1, 0.5]},
        "train.batch_size": {"integers": [8, 16]},
        "train.views": {"choice": ["self", "temporal"]},
    }
    random = {"algorithm": {"kind": "random", "seed": 3}, "budget": {"trials": 200}}
    settings = all_settings(spec(tmp_path, search, **random))
    assert settings == all_settings(spec(tmp_path, search, **random))
    assert len(settings) == 200
    assert all(1e-4 <= one["train.learning_rate"] <= 1e-2 for one in settings)
    assert 80 < sum(one["train.learning_rate"] < 1e-3 for one in settings) < 120  # half of them in each power of ten
    assert {one["train.batch_size"] for one in settings} == set(range(8, 17))
    assert {one["train.views"] for one in settings} == {"self", "temporal"}


def test_a_small_space_is_not_drawn_twice(tmp_path):
    settings = all_settings(
        spec(tmp_path, {"train.views": ["self", "temporal"]}, algorithm={"kind": "random"}, budget={"trials": 9})
    )
    assert len(settings) == 2


def test_optuna_suggests_within_conditions(tmp_path):
    search = CONDITIONAL | {
        "train.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "train.batch_size": {"integers": [8, 9]},
    }
    found = spec(tmp_path, search, algorithm={"kind": "optuna"}, budget={"trials": 30})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [suggested(found.search, study.ask()) for _ in range(30)]
    assert {one["train.method"] for one in settings} == {"arcface", "supcon"}
    for one in settings:
        assert ("method.margin" in one) == (one["train.method"] == "arcface")
        assert 1e-4 <= one["train.learning_rate"] <= 1e-2
        found.config(one)  # plain values that the configuration takes


@pytest.mark.parametrize(
    ("when", "expected"), [({}, True), ({"a": 1}, True), ({"a": [2, 1]}, True), ({"a": 2}, False), ({"b": 1}, False)]
)
def test_conditions(when, expected):
    assert holds(when, {"a": 1}) is expected

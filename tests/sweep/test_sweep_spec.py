from pathlib import Path

import pytest
import yaml

from wildray.errors import ConfigError
from wildray.sweep.dimension import Dimension, ordered
from wildray.sweep.spec import SweepSpec

TUNING = Path(__file__).parent.parent.parent / "tuning"
# pair_quality.yaml is for "wildray purity"
SWEEPS = sorted(path for path in TUNING.glob("*.yaml") if path.stem != "pair_quality")
LEAST = {"search": {"mine.min_iou": [0.1, 0.3]}, "budget": {"images": 1000}}

POPULATION = {"search": {"train.learning_rate": [0.1, 0.2]}, "scheduler": {"kind": "pbt"}}


def load(tmp_path, content, **overrides):
    path = tmp_path / "some_sweep.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return SweepSpec.load(path, overrides)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_file_of_ours_holds(path):
    assert SweepSpec.load(path).name == path.stem


def test_there_are_the_promised_files():
    names = {path.stem for path in TUNING.glob("*.yaml")}
    assert names >= {"smoke", "iou_interval_backbone", "supervised_grid", "method_comparison", "fine_grained"}


def test_defaults_and_the_short_form_of_a_list(tmp_path):
    spec = load(tmp_path, LEAST)
    assert spec.name == "some_sweep"
    assert spec.search["mine.min_iou"].grid == (0.1, 0.3)
    assert spec.seeds == (0,)
    assert spec.objective[0].metric == "mAP"
    assert load(tmp_path, LEAST | {"objective": {"metric": "cmc_1"}}).objective[0].metric == "cmc_1"


def test_settings_lie_over_base_and_base_over_the_preset(tmp_path):
    content = LEAST | {"preset": "demo", "base": {"train": {"epochs": 3}, "mine": {"interval": "1s"}}}
    spec = load(tmp_path, content, **{"train.batch-size": "16"})
    config = spec.config({"mine.min_iou": 0.4})
    assert (config.train.epochs, str(config.mine.interval), config.train.batch_size) == (3, "1s", 16)
    assert (config.mine.min_iou, config.backbone.name) == (0.4, "resnet18")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("- a list", "expected parts such as search"),
        ("search: {", "is not YAML"),
        ({"serch": {}}, "no part 'serch'. Did you mean 'search'"),
        ({"search": {"mine.min_iuo": [1]}}, "Did you mean 'mine.min_iou'"),
        ({"search": {"mine.min_iou": [0.1, 7]}}, "mine.min_iou: got 7"),
        ({"search": {"mine.min_iou": []}}, "empty grid"),
        ({"search": {"mine.min_iou": {"grid": [0.1], "choice": [0.2]}}}, "got grid and choice"),
        ({"search": {"mine.min_iou": {"uniform": [0.3, 0.1]}}}, "a smaller and a larger number"),
        ({"search": {"train.learning_rate": {"loguniform": [0, 1]}}}, "above 0"),
        ({"search": {"mine.min_iou": {"uniform": [0.1, 0.3]}}}, "an interval, of which a grid has no list"),
        ({"search": {"detect.detector": ["motion"]}}, "the same for all trials"),
        ({"search": {"train.epochs": [1, 2]}}, "the same for all trials"),
        ({"search": {"mine.min_iou": {"grid": [0.1], "when": {"mine.linker": "direct"}}}}, "which is not searched"),
        ({"algorithm": {"kind": "random"}}, "needs budget.trials"),
        ({"budget": {"images": 0}}, "budget.images"),
        ({"budget": {"images": 10, "measurements": 2}, "scheduler": {"kind": "asha", "grace": 3}}, "at most budget"),
        ({"objective": [{"metric": "mAP"}, {"metric": "seconds", "mode": "min"}]}, "go with algorithm optuna"),
        ({"objective": {"metric": "loss"}}, "expected mAP, cmc_1 or seconds"),
        ({"base": {"train": {"labels": "x.csv"}}}, "give the individuals as data"),
        ({"base": {"train": {"epoch": 3}}}, "train.epoch"),
        ({"name": "a/b"}, "cannot be the name"),
        ({"scheduler": {"kind": "pbt"}}, "mine.min_iou cannot change in the middle of a training"),
        (POPULATION | {"seeds": [0, 1]}, "pbt goes with algorithm grid or random, one seed"),
        (POPULATION | {"scheduler": {"kind": "pbt", "interval": 5}}, "expected less than budget.measurements"),
    ],
)
def test_what_does_not_hold_is_told(tmp_path, changes, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changes if isinstance(changes, str) else LEAST | changes)
    assert words in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="Give the path of a YAML file"):
        SweepSpec.load(tmp_path / "none.yaml")


def test_order_follows_conditions():
    search = {
        "c": Dimension(grid=(1,), when={"b": 1}),
        "b": Dimension(grid=(1,), when={"a": 1}),
        "a": Dimension(grid=(1,)),
    }
    assert ordered(search) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="depend on each other"):
        ordered({"a": Dimension(grid=(1,), when={"b": 1}), "b": Dimension(grid=(1,), when={"a": 1})})

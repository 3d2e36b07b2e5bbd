import json
import logging

import pytest

from wildray.config import Config
from wildray.errors import ConfigError, StoreError
from wildray.learning.run import claim_run, finished_result
from wildray.store import Store, check_run_name

BASE = {"backbone.name": "resnet18", "train.pairs": "a" * 16, "train.epochs": 5}


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "s", create=True)


def begin(store, config, trace="history.json"):
    """Claim a run and leave a trace of training in it."""
    claim_run(config, store, "r")
    store.write_text("[]", "models", "r", *trace.split("/"))


@pytest.mark.parametrize("trace", ["history.json", "backbone.safetensors", "checkpoints/step-000000001.pt"])
def test_settings_hold_from_the_first_trace_of_training_on(store, trace):
    claim_run(Config.load(overrides=BASE), store, "r")
    other = Config.load(overrides=BASE | {"train.batch_size": 32})
    begin(store, other, trace)
    assert "batch_size: 32" in store.path("models", "r", "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"train\.batch_size was 32, now 64"):
        claim_run(Config.load(overrides=BASE), store, "r")


def test_a_run_whose_settings_were_altered_is_refused(store):
    begin(store, Config.load(overrides=BASE))
    for text in ("- 1", "train: {", "train: {}"):
        store.write_text(text, "models", "r", "config.yaml")
        with pytest.raises(StoreError, match="give another --run"):
            claim_run(Config.load(overrides=BASE), store, "r")


def test_a_name_used_again_with_other_settings_is_refused_and_they_are_named(store):
    begin(store, Config.load(overrides=BASE))
    claim_run(Config.load(overrides=BASE), store, "r")
    for name, value in (("backbone.image_size", 64), ("train.pairs", "b" * 16), ("method.temperature", 0.5)):
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as caught:
            claim_run(Config.load(overrides=BASE | {name: value}), store, "r")
        assert str(value) in str(caught.value)


def test_epochs_may_grow_only_and_what_weights_do_not_depend_on_is_free(store):
    begin(store, Config.load(overrides=BASE))
    free = {"train.epochs": 7, "train.checkpoint_steps": 3, "mine.min_iou": 0.5, "train.probe_every": 2}
    claim_run(Config.load(overrides=BASE | free), store, "r")
    with pytest.raises(ConfigError, match=r"train\.epochs was 7, now 5"):
        claim_run(Config.load(overrides=BASE), store, "r")


def test_another_number_of_workers_is_said(store, caplog):
    begin(store, Config.load(overrides=BASE))
    with caplog.at_level(logging.WARNING):
        claim_run(Config.load(overrides=BASE | {"scale.workers": 2}), store, "r")
    assert "1 workers and goes on with 2" in caplog.text


@pytest.mark.parametrize("name", ["", "../r", "../../x", "a/b", ".hidden", "a b", "a\n", "-r"])
def test_names_that_are_no_folder_are_refused(store, name):
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        check_run_name(name)
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        claim_run(Config.load(overrides=BASE), store, name)


def test_a_result_counts_once_all_epochs_are_done(store):
    assert finished_result(store, "r", epochs=5) is None
    result = {"epochs": 5, "num_steps": 9, "loss": 1.0, "images_per_s": 2.0, "seconds": 3.0}
    store.write_text(json.dumps(result), "models", "r", "result.json")
    assert finished_result(store, "r", epochs=5) == result
    assert finished_result(store, "r", epochs=6) is None

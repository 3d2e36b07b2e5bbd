import json

import pytest
import yaml
from learning_store import DETECTIONS_DIGEST, PAIRS_DIGEST, add_backgrounds, make_store, tiny_config

from wildray.learning.settled import with_settled_background, with_settled_places

AUTO = tiny_config(train__pairs=PAIRS_DIGEST)


def settled(config, store, run="new"):
    return with_settled_background(config, store, run).augment.background


def begin(store, run, **augment):
    """A run that has an epoch behind it."""
    content = {**AUTO.model_dump(mode="json"), "augment": augment}
    store.write_text(yaml.safe_dump(content), "models", run, "config.yaml")
    store.write_text(json.dumps([{}]), "models", run, "history.json")


def test_backgrounds_that_are_known_are_swapped(tmp_path):
    store = add_backgrounds(make_store(str(tmp_path)))
    assert AUTO.augment.background == "auto"
    assert settled(AUTO, store) == "swap"


@pytest.mark.parametrize("every", [1, None])
def test_where_hardly_any_is_known_scenery_is_kept(tmp_path, every):
    store = make_store(str(tmp_path))
    if every is not None:  # no crop has one, though their packs could
        add_backgrounds(store, every=every)
    assert settled(AUTO, store) == "keep"


def test_one_camera_has_nobody_to_swap_with(tmp_path):
    store = add_backgrounds(make_store(str(tmp_path), num_animals=1))
    assert settled(AUTO, store) == "keep"


def test_what_is_asked_for_and_labelled_images_are_let_be(tmp_path):
    store = add_backgrounds(make_store(str(tmp_path)))
    for asked in ("keep", "blur", "swap"):
        assert settled(tiny_config(train__pairs=PAIRS_DIGEST, augment__background=asked), store) == asked
    assert settled(tiny_config(train__labels="1" * 16), store) == "keep"


def test_what_is_recorded_is_what_the_pairs_were_made_with(tmp_path, monkeypatch):
    store = make_store(str(tmp_path))
    mined = {"detections": DETECTIONS_DIGEST, "mine": {"interval": "7s", "min_iou": 0.4}}
    store.collection("pairs", PAIRS_DIGEST).begin(mined)
    store.collection("detections", DETECTIONS_DIGEST).begin({"detect": {"detector": "motion", "crop_padding": 0.1}})
    monkeypatch.chdir(tmp_path)
    config = with_settled_places(tiny_config(train__pairs=PAIRS_DIGEST, backbone__weights="w.pth"), store)
    assert (str(config.mine.interval), config.mine.min_iou, config.detect.detector) == ("7s", 0.4, "motion")
    assert config.mine.detections == DETECTIONS_DIGEST
    assert config.backbone.weights == str(tmp_path / "w.pth")
    assert with_settled_places(AUTO, store).backbone.weights == "none"


def test_a_run_goes_on_as_it_was_begun(tmp_path):
    store = add_backgrounds(make_store(str(tmp_path)))
    begin(store, "blurred", background="blur")
    begin(store, "old")  # from before there was a choice
    assert settled(AUTO, store, "blurred") == "blur"
    assert settled(AUTO, store, "old") == "keep"

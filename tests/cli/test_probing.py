import json
import logging

import cv2
import numpy as np
import pytest

from wildray.cli.probing import probe_for
from wildray.config import Config
from wildray.errors import ConfigError, DataError
from wildray.store import Store

CONFIG = Config.load(overrides={"backbone.image_size": 32})


def table(folder, animals):
    """A metadata table of two images of each animal."""
    folder.mkdir()
    rows = ["image_id,identity,path"]
    for number, animal in enumerate(animals):
        for view in range(2):
            name = f"{animal}-{view}"
            cv2.imwrite(str(folder / f"{name}.png"), np.full((20, 20, 3), 20 * number + view, np.uint8))
            rows.append(f"{name},{animal},{name}.png")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "metadata.csv")


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "s", create=True)


def test_a_run_is_measured_on_one_set_of_animals(store, tmp_path, caplog):
    first, second = table(tmp_path / "a", "abc"), table(tmp_path / "b", "def")
    with caplog.at_level(logging.INFO):
        assert probe_for(CONFIG, store, "r", first) is not None
    assert "measured on the 6 labelled images" in caplog.text
    digest = json.loads(store.path("models", "r", "probe.json").read_text())["labelled"]
    store.write_text("[{}]", "models", "r", "history.json")
    with pytest.raises(ConfigError, match="was measured on the labelled images"):
        probe_for(CONFIG, store, "r", second)
    probe_for(CONFIG, store, "r", None)  # not the newest, which is the second now
    assert json.loads(store.path("models", "r", "probe.json").read_text())["labelled"] == digest
    assert probe_for(CONFIG, store, "r", "none") is None
    assert probe_for(CONFIG, store, "other", second) is not None
    assert probe_for(CONFIG, store, "by-digest", digest) is not None
    assert store.read_json("models", "by-digest", "probe.json")["labelled"] == digest


def test_the_newest_import_is_taken_only_where_it_will_do(store, tmp_path, caplog):
    assert probe_for(CONFIG, store, "r", None) is None
    single = table(tmp_path / "a", "a")
    with pytest.raises(DataError, match="individual"):
        probe_for(CONFIG, store, "r", single)
    with caplog.at_level(logging.WARNING):
        assert probe_for(CONFIG, store, "r", None) is None
    assert "mAP is not measured" in caplog.text

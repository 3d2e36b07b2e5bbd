import os

from wildray.config import Config
from wildray.report.gather import gather
from wildray.store import Store


def test_a_run_that_failed_at_once_is_not_the_newest(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    for second, (run, name) in enumerate(
        [("old", "history.json"), ("trained", "backbone.safetensors"), ("dead", "config.yaml")]
    ):
        path = store.write_text("[]", "models", run, name)
        os.utime(path, (second, second))
    newest = gather(Config(), store, run=None, detections=None, pairs=None)
    assert newest.run == "trained"
    store.path("models", "trained", "backbone.safetensors").unlink()
    assert gather(Config(), store, run=None, detections=None, pairs=None).run == "old"
    store.path("models", "old", "history.json").unlink()
    assert gather(Config(), store, run=None, detections=None, pairs=None).run is None

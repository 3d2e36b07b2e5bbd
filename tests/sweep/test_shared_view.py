import base64
import json
import zlib

from mlflow.tracking import MlflowClient

from wildray import runlog
from wildray.config import TrackingConfig
from wildray.store import Store
from wildray.sweep.dimension import Dimension
from wildray.sweep.shared_view import KEY, TAG, address_of, tag_of, view_of
from wildray.sweep.spec import Budget, SweepSpec

MAX_TAG_CHARS = 5000
"""Of an experiment's tag (mlflow 3.17, utils/validation.py)."""


def spec_of(num: int) -> SweepSpec:
    search = {f"augment.some_setting_{place}": Dimension(grid=(1, 2)) for place in range(num)}
    return SweepSpec(name="s", search=search, budget=Budget(images=1))


def test_the_view_shows_what_was_searched_and_the_best_first():
    view = view_of(spec_of(2))
    assert view["selectedColumns"][:2] == ["params.`augment.some_setting_0`", "params.`augment.some_setting_1`"]
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`final/mAP`", False)
    charts = view["compareRunCharts"]
    assert {chart["metricSectionId"] for chart in charts} == {view["compareRunSections"][0]["uuid"]}
    assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_the_tag_is_short_and_holds_the_view():
    spec = spec_of(30)
    value = tag_of(spec)
    assert len(value) < MAX_TAG_CHARS
    assert json.loads(zlib.decompress(base64.b64decode(value.removeprefix("deflate;")))) == view_of(spec)


def test_it_is_logged_with_the_experiment(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    settings = TrackingConfig(experiment="s")
    with runlog.open_in(settings, store.root, "s", {}) as log:
        log.experiment_tag(TAG, "first")
        log.experiment_tag(TAG, tag_of(spec_of(1)))
        address = address_of(log.experiment_url)
    experiment = MlflowClient(runlog.uri_of(settings, store.root)).get_experiment_by_name("s")
    assert experiment.tags[TAG] == tag_of(spec_of(1))
    expected = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={KEY}"
    assert address.startswith(expected)

from types import SimpleNamespace

import numpy as np
import pytest
from bench_targets import finish

from bench.experiments import Bench, Run, budgeted, command, work_through
from bench.methods import Spec, specs
from bench.record import read_results
from wildray.config import Config
from wildray.store import Store


def runs(*names, seconds=0.0):
    return [SimpleNamespace(name=name, seconds=seconds) for name in names]


def test_runs_go_in_the_order_of_priority_and_the_finished_are_left_alone(tmp_path):
    (tmp_path / "b.json").write_text('{"name": "b"}')
    assert work_through(lambda results: runs("c", "b", "a"), tmp_path, jobs=1, target=finish) == 0
    results = read_results(tmp_path)
    assert results["b"] == {"name": "b"}
    assert results["c"]["ended"] <= results["a"]["began"]


def test_as_many_run_at_a_time_as_asked(tmp_path):
    work_through(lambda results: runs("a", "b", seconds=2.0), tmp_path, jobs=2, target=finish)
    first, second = read_results(tmp_path).values()
    assert max(first["began"], second["began"]) < min(first["ended"], second["ended"])


def test_a_run_that_died_is_told_and_does_not_keep_the_others(tmp_path):
    assert work_through(lambda results: runs("dies", "lives"), tmp_path, jobs=1, target=finish) == 1
    assert set(read_results(tmp_path)) == {"lives"}


def test_the_time_limit_stops_what_is_under_way_and_the_next_call_goes_on(tmp_path):
    work_through(lambda results: runs("slow", seconds=60.0), tmp_path, max_minutes=0.01, target=finish)
    assert read_results(tmp_path) == {}
    work_through(lambda results: runs("slow"), tmp_path, target=finish)
    assert set(read_results(tmp_path)) == {"slow"}


def test_the_plan_is_asked_again_after_each_run(tmp_path):
    work_through(lambda results: runs("a", *(["b"] if "a" in results else [])), tmp_path, jobs=2, target=finish)
    assert set(read_results(tmp_path)) == {"a", "b"}


def test_a_page_is_written_of_what_there_is_without_running_anything(tmp_path):
    folder = tmp_path / "results" / "words"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"name": "a", "seed": 0}')
    bench = Bench("words", plan=None, page=lambda results: " ".join(results), figures=lambda results: {"a.png": b"png"})
    page = tmp_path / "docs" / "words.md"
    assert command(bench, ["--work", str(tmp_path), "--max-minutes", "0", "--table", str(page)]) == 0
    assert page.read_text() == "a"
    assert (page.parent / "a.png").read_bytes() == b"png"


@pytest.mark.parametrize(
    ("method", "views", "per_sample", "batch_size"),
    [
        ("simclr", "temporal", 2, 32),
        ("simclr", "combined", 4, 16),
        ("arcface", "temporal", 1, 64),
        ("dino", "self", 4, 16),
    ],
)
def test_every_method_sees_the_same_number_of_images(tmp_path, method, views, per_sample, batch_size):
    settings = {"train.method": method, "train.views": views, "backbone.name": "resnet18", "backbone.image_size": 64}
    config = Config.load(overrides={**settings, "method.local_views": 8})
    run = Run(
        "x", config, Store(str(tmp_path)), "0" * 16, num_samples=320, num_images=6400, measure=lambda backbone: None
    )
    found, images = budgeted(run)
    assert images == per_sample
    seen = found.train.epochs * (320 // batch_size) * batch_size * per_sample
    assert (found.train.batch_size, seen) == (batch_size, 6400)
    assert (found.train.labels if method == "arcface" else found.train.pairs) == "0" * 16


def test_twice_the_views_have_the_same_learning_rate(tmp_path):
    rates = []
    for views in ("temporal", "combined"):
        overrides = {"train.views": views, "backbone.name": "resnet18", "backbone.image_size": 64}
        run = Run(
            "x", Config.load(overrides=overrides), Store(str(tmp_path)), "0", 320, 6400, lambda backbone: None, 0.5
        )
        rates.append(budgeted(run)[0].train.learning_rate)
    assert rates[0] == rates[1]
    assert np.isclose(rates[0], 0.5 * 1e-3 * np.sqrt(32 / 64))  # half of SimCLR's recipe at 32 pairs


def test_the_plan_of_methods_names_every_run_once_and_the_first_seeds_first():
    names = [spec.name for spec in specs()]
    assert len(names) == len(set(names)) == 46
    assert [spec.seed for spec in specs()] == sorted(spec.seed for spec in specs())
    assert specs()[0] == Spec("simclr")

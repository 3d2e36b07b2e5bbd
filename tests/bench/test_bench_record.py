import json

import numpy as np
import pytest
from test_bench_pages import IDENTITY, result

from bench import methods
from bench.experiments import Bench, command
from bench.measures import Measured, each_query, interval, per_individual
from bench.record import page_of_runs, read_results, restore, runs_of_page


def of_machine(**changes):
    return {**result(0.3, **changes), "machine": "a | b, AVX2"}


def test_runs_are_read_back_from_their_page():
    failed = {"name": "b", "seed": 1, "commit": "abc", "machine": "m", "error": "The loss became nan\nin step 3 | 4"}
    before = {"a": of_machine(), "b": failed}
    after = runs_of_page(page_of_runs(before, bench="methods"))
    assert list(after) == ["a", "b"]
    assert after["b"]["error"] == "The loss became nan in step 3 / 4"
    assert after["a"]["machine"] == "a / b, AVX2"
    for key in ("seed", "commit", "error", "num_steps", "num_seen_images"):
        assert after["a"][key] == before["a"][key]
        assert isinstance(after["a"][key], type(before["a"][key]))
    for part in ("before", "after", "gain"):
        read = after["a"][part]
        assert {"mAP"} <= read.keys() <= before["a"][part].keys()
        assert np.allclose(list(read.values()), [before["a"][part][key] for key in read], rtol=1e-4)
    assert {"either_flank_mAP", "cmc_5_low", "chance_cmc_1", "rank"} <= after["a"]["after"].keys()
    assert after["a"]["individuals"] == before["a"]["individuals"]


def test_a_page_of_recorded_runs_is_the_page_of_the_runs():
    runs = {
        methods.Spec(method, seed=seed).name: result(0.3, seed=seed)
        for method in (*methods.LABEL_FREE, *methods.SUPERVISED)
        for seed in methods.SEEDS
    }
    assert methods.page(runs_of_page(page_of_runs(runs, bench="methods"))) == methods.page(runs)


def test_means_of_individuals_have_the_interval_of_their_queries():
    rng = np.random.default_rng(0)
    identity = np.sort(np.concatenate([IDENTITY, rng.integers(0, 30, 57)]))
    precision = rng.random(len(identity))
    expected = interval(precision, identity)
    found = interval(*each_query(per_individual(Measured({}, precision, identity))))
    assert np.allclose(found, expected, atol=1e-4)


def test_a_row_that_was_cut_off_is_told():
    page = page_of_runs({"a": of_machine()}, bench="methods")
    with pytest.raises(ValueError, match="expected 7"):
        runs_of_page(page[:-400])


def test_a_bench_goes_on_from_its_page_on_a_new_machine(tmp_path):
    page, new = tmp_path / "docs" / "words.md", tmp_path / "new"
    bench = Bench("words", plan=None, page=lambda results: " ".join(results), figures=lambda results: {"a.png": b"png"})
    old = tmp_path / "old" / "results" / "words"
    old.mkdir(parents=True)
    (old / "a.json").write_text(json.dumps(of_machine()))
    for work in ("old", "new"):
        assert command(bench, ["--work", str(tmp_path / work), "--max-minutes", "0", "--table", str(page)]) == 0
        assert page.read_text() == "a"
    results = read_results(new / "results" / "words")
    assert results["a"]["individuals"] == of_machine()["individuals"]
    assert restore(tmp_path / "docs" / "runs" / "words.md", new / "results" / "words") == 0

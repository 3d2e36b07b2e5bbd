import numpy as np
import pytest

from bench import background, methods, nyala
from bench.measures import Measured, each_query, per_individual
from bench.verdicts import SeedSpread, contrast, left_out, mean_weights, pooled_std, status

IDENTITY = np.repeat(np.arange(30), 4)


def result(mean, *, seed=0, spread=0.05, gain=0.02, gain_low=0.01, rank=(20.0, 30.0), embedding_rank=20.0, error=None):
    precision = np.random.default_rng(7).normal(mean, spread, 30)[IDENTITY]
    names = [
        f"{part}{name}"
        for part in ("", "either_flank_", "background_", "camera_", "validation_")
        for name in ("mAP", "chance_mAP")
    ]
    figures = dict.fromkeys(
        [*names, "cmc_1", "cmc_5", "chance_cmc_1", *(f"cmc_{k}_{end}" for k in (1, 5) for end in ("low", "high"))], 0.1
    )
    return {
        "error": error,
        "seed": seed,
        "commit": "abc",
        "machine": "some CPU, AVX2",
        "before": {**figures, "rank": rank[0]},
        "after": {**figures, "rank": rank[1], "mAP": float(precision.mean()), "validation_mAP": mean},
        "gain": {"mAP": gain, "mAP_low": gain_low, "mAP_high": 0.1},
        "loss_first": 4.0,
        "loss_last": 3.0,
        "embedding_rank": embedding_rank,
        "embedding_std": 0.5,
        "seconds": 100.0,
        "images_per_s": 80.0,
        "num_steps": 430,
        "num_seen_images": 27520,
        "individuals": per_individual(Measured({}, precision, IDENTITY)),
    }


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "learned"),
        ({"gain_low": -0.01}, "no gain"),
        ({"gain_low": -0.01, "rank": (20.0, 9.0)}, "no gain"),
        ({"gain_low": -0.01, "gain": -0.001, "rank": (20.0, 9.0)}, "did not learn"),
        ({"gain_low": -0.01, "gain": -0.001, "rank": (20.0, 11.0)}, "no gain"),
        ({"embedding_rank": 1.1}, "did not learn"),
        ({"error": "The loss became nan"}, "failed"),
    ],
)
def test_status(changes, word):
    assert status(result(0.3, **changes)) == word


def test_contrast_against_a_naive_sum():
    results = {"a": result(0.4), "b": result(0.3), "c": result(0.2)}
    found = contrast(results, {"a": 1.0, "b": -0.5, "c": -0.5}, spread=SeedSpread(0.01, 6))
    naive = [
        a - (b + c) / 2
        for a, b, c in zip(*(each_query(results[name]["individuals"])[0] for name in "abc"), strict=True)
    ]
    assert np.isclose(found.value, sum(naive) / len(naive), atol=1e-4)
    assert np.isclose(found.seed_error, 0.01 * np.sqrt(1.5))
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


@pytest.mark.parametrize(
    ("difference", "seed_std", "verdict"),
    [
        (0.1, 0.01, "held"),
        (-0.1, 0.01, "not held"),
        (0.1, 0.2, "undecided"),
        (0.1, 0.025, "held"),
        (0.1, 0.04, "undecided"),  # 1.77 errors
        (0.1, np.nan, "undecided"),
        (0.0, 0.01, "undecided"),
    ],
)
def test_verdict(difference, seed_std, verdict):
    results = {"a": result(0.3 + difference), "b": result(0.3)}
    assert contrast(results, {"a": 1.0, "b": -1.0}, spread=SeedSpread(seed_std, 6)).verdict == verdict


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_five_of_a_hundred_verdicts_on_nothing_are_false(ratio):
    """Individuals and seeds vary, and nothing else: three seeds of two settings, 40 individuals."""
    rng = np.random.default_rng(int(10 * ratio))
    weights = {f"{side}{seed}": sign / 3 for side, sign in (("a", 1.0), ("b", -1.0)) for seed in range(3)}
    groups = [[name for name in weights if name.startswith(side)] for side in "ab"]
    num_false = 0
    for _ in range(400):
        own = {"a": rng.normal(0, 0.05, 30), "b": rng.normal(0, 0.05, 30)}  # how a setting fares with each animal
        seed_std = ratio * 0.05 * np.sqrt(2 / 30) / np.sqrt(2 / 3)
        results = {}
        for name in weights:
            values = 0.5 + own[name[0]] + rng.normal(0, seed_std)
            one = result(0.3)
            one["individuals"] = [[float(value), 4] for value in values]
            one["after"]["mAP"] = float(values.mean())
            results[name] = one
        num_false += contrast(results, weights, spread=pooled_std(results, groups)).verdict != "undecided"
    assert 0.02 <= num_false / 400 <= 0.08


def test_what_was_not_trained_has_no_error_over_seeds():
    results = {"a": result(0.4), "start": result(0.3)}
    del results["start"]["seconds"]
    assert np.isclose(contrast(results, {"a": 1.0, "start": -1.0}, spread=SeedSpread(0.01, 6)).seed_error, 0.01)


def test_individuals_that_disagree_leave_it_undecided():
    results = {"a": result(0.3), "b": result(0.3)}
    noise = np.random.default_rng(1).normal(0.01, 0.3, 30)[IDENTITY]
    precision = each_query(results["b"]["individuals"])[0] + noise
    results["a"]["individuals"] = per_individual(Measured({}, precision, IDENTITY))
    assert contrast(results, {"a": 1.0, "b": -1.0}, spread=SeedSpread(1e-6, 6)).verdict == "undecided"


def test_runs_that_collapsed_decide_nothing():
    results = {"a0": result(0.4), "a1": result(0.9, embedding_rank=1.0), "b0": result(0.2)}
    assert mean_weights([["a0", "a1"], ["b0", "b1"], ["c0"]], results, sign=1.0) == {"a0": 0.5, "b0": 0.5}
    assert left_out([["a0", "a1"], ["b0"]], results).endswith("failed: a1.")
    assert left_out([["a0"], ["b0"]], results) == ""


def test_spread_between_seeds_is_pooled_within_settings():
    results = {"a0": result(0.4), "a1": result(0.5), "b0": result(0.1), "b1": result(0.1), "c0": result(0.9)}
    means = {name: one["after"]["mAP"] for name, one in results.items()}
    naive = np.sqrt((np.var([means["a0"], means["a1"]], ddof=1) + 0) / 2)
    found = pooled_std(results, [["a0", "a1"], ["b0", "b1"], ["c0", "c1"]])
    assert np.isclose(found.std, naive)
    assert found.freedom == 2
    assert np.isnan(pooled_std(results, [["c0"]]).std)


@pytest.mark.parametrize("bench", [methods, background, nyala], ids=lambda bench: bench.__name__)
def test_a_page_of_nothing_says_so(bench):
    page = bench.page({})
    assert "not yet run" in page
    assert "nan" not in page


def test_the_page_of_methods_decides_by_its_rule():
    results = {}
    for seed in methods.SEEDS:
        for method in methods.LABEL_FREE:
            results[methods.Spec(method, seed=seed).name] = result(0.4 + 0.001 * seed, seed=seed)
        for method in methods.SUPERVISED:
            results[methods.Spec(method, seed=seed).name] = result(0.3 + 0.001 * seed, seed=seed)
    results[methods.Spec("moco", seed=1).name] = result(0.0, embedding_rank=1.0)
    verdicts = list(methods.claims(results).values())
    assert verdicts[0].startswith("**Held**")
    assert "26 runs. Left out, since they did not learn or failed: moco-resnet18-temporal-whole-s1." in verdicts[0]
    assert all(verdict.startswith("**Undecided**") for verdict in verdicts[1:])
    page = methods.page(results)
    assert "| moco | 1 did not learn, 2 learned | 3 |" in page
    assert "27,520 in 430" in page


def test_validation_chooses_the_rate_and_failures_do_not_count():
    names = [nyala.name_of("simclr", rate, 0) for rate in nyala.RATES]
    assert nyala.best_rate("simclr", {names[0]: result(0.3)}) is None
    assert nyala.best_rate("simclr", {names[0]: result(0.3), names[1]: result(0.4)}) == nyala.RATES[1]
    assert nyala.best_rate("simclr", {names[0]: result(0.3), names[1]: result(0.4, error="nan")}) == nyala.RATES[0]
    assert "| simclr | 0.1 | 1 |" in nyala.page({names[0]: result(0.3), names[1]: result(0.4)})


def test_painting_over_leaves_the_rim_and_nothing_of_the_animal():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    images[:, :, 2:6, 2:6] = 200  # the animal
    images[0, 0] += 10
    out = background.without_animals(images, np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]]))
    assert out[0, 0].tolist() == np.full((8, 8), 10).tolist()
    assert (out[0, 1:] == 0).all()
    assert (out[1] == 128).all()


def test_the_boxes_of_labelled_crops():
    columns = {"bbox": ["[100, 100, 100, 50]", "[0, 0, 100, 50]"]}
    boxes = background.animal_boxes(columns, padding=0.1, frame_size=(640, 360))
    assert np.allclose(boxes[0], [10 / 120, 5 / 60, 110 / 120, 55 / 60])
    assert np.allclose(boxes[1], [0, 0, 100 / 110, 50 / 55])  # the frame ends there


def test_each_remedy_is_on_its_page_and_compared_with_none():
    results = {
        background.name_of("resnet18", remedy, seed): result(0.4 if remedy == "swap" else 0.3 + 0.001 * seed, seed=seed)
        for remedy in background.REMEDIES
        for seed in background.SEEDS
    }
    page = background.page(results)
    assert "- ResNet-18, 64 px, animal onto other cameras' empty frames: **helps**" in page
    assert "- ResNet-18, 64 px, scenery grey: **undecided**" in page
    assert "- ViT-Tiny/16, 64 px, scenery grey: not yet run" in page


def test_seconds_of_another_machine_are_left_out():
    results = {methods.Spec("simclr", seed=seed).name: result(0.3, seed=seed) for seed in methods.SEEDS}
    results[methods.Spec("simclr", seed=2).name] |= {"machine": "a faster CPU", "seconds": 1.0, "images_per_s": 8000.0}
    results[methods.Spec("moco").name] = result(0.3) | {"machine": "a faster CPU"}
    results[methods.Spec("byol").name] = result(0.3)
    page = methods.page(results)
    assert "| 100 ± 0, 80 ± 0 |" in page
    assert "another machine" in page
    assert "are of the runs on some CPU, AVX2 alone" in page

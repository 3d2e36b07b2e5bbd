"""Intervals against a loop that draws identities, and their coverage."""

import numpy as np
import pytest

from wildray.bootstrap import intervals


def bootstrap(figures, identities, **options):
    return intervals(figures, identities, **{"num_bootstrap": 1000, "confidence": 0.95, "seed": 0, **options})


def test_against_a_loop_over_drawn_identities():
    rng = np.random.default_rng(0)
    identities = rng.integers(10, 30, 200)
    values = rng.random(200)
    names = np.unique(identities)
    means = []
    for _ in range(4000):
        drawn = rng.choice(names, len(names))
        means.append(np.concatenate([values[identities == name] for name in drawn]).mean())
    low, high = bootstrap({"x": values}, identities, num_bootstrap=4000)["x"]
    wanted = np.quantile(means, [0.025, 0.975])
    assert abs(low - wanted[0]) < 0.1 * (wanted[1] - wanted[0])
    assert abs(high - wanted[1]) < 0.1 * (wanted[1] - wanted[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        level = rng.normal(0.5, 0.1, 40)  # animals differ; photographs of one hardly do
        identities = np.repeat(np.arange(40), 8)
        low, high = bootstrap({"x": level[identities]}, identities, num_bootstrap=300, seed=trial)["x"]
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_all_figures_share_the_drawn_identities():
    rng = np.random.default_rng(2)
    before = rng.random(100)
    found = bootstrap({"before": before, "after": before + 0.1, "gain": np.full(100, 0.1)}, np.arange(100) // 5)
    assert found["gain"] == pytest.approx((0.1, 0.1))
    assert np.subtract(found["after"], found["before"]) == pytest.approx([0.1, 0.1])


def test_the_same_seed_gives_the_same_interval_and_wider_ones_contain_it():
    rng = np.random.default_rng(3)
    values, identities = {"x": rng.random(60)}, np.arange(60) // 3
    assert bootstrap(values, identities) == bootstrap(values, identities)
    assert bootstrap(values, identities) != bootstrap(values, identities, seed=1)
    low, high = bootstrap(values, identities)["x"]
    wide_low, wide_high = bootstrap(values, identities, confidence=0.99)["x"]
    assert wide_low < low < high < wide_high


def test_names_of_identities_are_of_no_account():
    rng = np.random.default_rng(4)
    values, identities = {"x": rng.random(60)}, np.arange(60) // 3
    assert bootstrap(values, identities) == bootstrap(values, identities * 7 + 100)


def test_one_identity_says_nothing():
    found = bootstrap({"mAP": np.array([0.5, 0.6]), "gain": np.array([-0.1, 0.2])}, np.array([4, 4]))
    assert found == {"mAP": (0.0, 1.0), "gain": (-1.0, 1.0)}

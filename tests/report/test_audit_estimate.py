"""The estimate is unbiased, its interval covers, and what is recommended holds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from wildray.report.audit.agreement import agreement
from wildray.report.audit.estimate import estimate
from wildray.report.audit.rules import Rule, Sample, recommend, rules
from wildray.report.audit.strata import allocate
from wildray.verdicts import WORDS, VerdictFile

POPULATIONS = {
    "alike": ([1000] * 6, [0.95] * 6),
    "skewed": ([5000, 500, 200, 80, 20, 6], [0.99, 0.97, 0.95, 0.9, 0.8, 0.5]),
    "crowds are bad": ([3000, 1500, 800, 300, 100], [0.99, 0.9, 0.7, 0.4, 0.2]),
    "nearly pure": ([5000, 1000, 300, 50], [0.999, 0.99, 0.98, 0.9]),
    "bad corners": ([5000, 100, 100, 100, 100, 100], [0.97, 0.3, 0.3, 0.3, 0.3, 0.3]),
}


@pytest.mark.parametrize("num_pairs", [50, 150])
@pytest.mark.parametrize("name", POPULATIONS)
def test_the_interval_covers_the_truth_and_the_estimate_is_unbiased(name: str, num_pairs: int) -> None:
    size, right = np.array(POPULATIONS[name][0]), None
    right = np.round(size * POPULATIONS[name][1]).astype(int)
    truth, given, rng = right.sum() / size.sum(), allocate(size, num_pairs), np.random.default_rng(3)
    samples = rng.hypergeometric(right, size - right, given, size=(500, len(size)))
    found = [estimate(size, given, given, hits) for hits in samples]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.94
    values = np.array([one.value for one in found])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values)) + 1e-9


@pytest.mark.parametrize("num_pairs", [50, 150])
def test_a_share_among_some_of_the_pairs_is_covered_too(num_pairs: int) -> None:
    size = np.array([3000, 1500, 800, 300])
    kinds = np.round(size[:, None] * [[0.8, 0.02, 0.18], [0.7, 0.1, 0.2], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]).astype(int)
    kinds[:, 2] = size - kinds[:, :2].sum(axis=1)  # same, different, not an animal
    truth, given, rng = kinds[:, 1].sum() / kinds[:, :2].sum(), allocate(size, num_pairs), np.random.default_rng(4)
    draws = [rng.multivariate_hypergeometric(row, n, size=500) for row, n in zip(kinds, given, strict=True)]
    found = [estimate(size, given, counts[:, :2].sum(axis=1), counts[:, 1]) for counts in np.stack(draws, axis=1)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.94
    assert abs(np.mean([one.value for one in found if one.value is not None]) - truth) < 0.01


def test_one_large_stratum_has_the_interval_of_clopper_and_pearson() -> None:
    for hits in (50, 47, 25, 0):
        found = estimate(np.array([10**9]), np.array([50]), np.array([50]), np.array([hits]))
        known = binomtest(hits, 50).proportion_ci(method="exact")
        assert found.value == pytest.approx(hits / 50)
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.012)


def test_weights_are_the_sizes_of_strata() -> None:
    found = estimate(np.array([900, 100]), np.array([10, 10]), np.array([10, 10]), np.array([10, 0]))
    assert found.value == pytest.approx(0.9)
    assert (found.hits, found.members) == (10, 20)


def test_a_set_that_was_judged_whole_is_known() -> None:
    found = estimate(np.array([7, 3]), np.array([7, 3]), np.array([7, 3]), np.array([6, 2]))
    assert found.low == found.value == found.high == pytest.approx(0.8)


def test_what_nobody_could_tell_is_not_known() -> None:
    found = estimate(np.array([7]), np.array([3]), np.array([0]), np.array([0]))
    assert (found.value, found.low, found.high) == (None, 0.0, 1.0)


def file(reviewer: str, words: list[str]) -> VerdictFile:
    verdicts = {(number, -number): word for number, word in enumerate(words)}
    return VerdictFile("v.json", "s", "p", reviewer, verdicts, dict.fromkeys(verdicts, 0.0), 0)


def test_kappa_is_cohens() -> None:
    rng = np.random.default_rng(0)
    one = rng.choice(WORDS, 80, p=[0.7, 0.2, 0.05, 0.05]).tolist()
    other = [word if rng.random() < 0.8 else str(rng.choice(WORDS)) for word in one]
    found = agreement(file("Ada", one), file("Ben", [*other, "same"]))
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other))
    assert found.num_pairs == 80
    assert found.agreed == pytest.approx(np.mean([a == b for a, b in zip(one, other, strict=True)]))
    assert found.conflicts == sum({a, b} == {"same", "different"} for a, b in zip(one, other, strict=True))


def test_kappa_is_unknown_where_both_say_one_thing() -> None:
    assert agreement(file("Ada", ["same"] * 3), file("Ben", ["same"] * 3)).kappa is None
    assert agreement(file("Ada", ["same"]), file("Ben", [])).agreed is None


def population(rng: np.random.Generator, number: int = 3000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Facts, and which pairs are right: nearly all of one box in the frame, fewer in company."""
    density = rng.choice([1.0, 2.0, 3.0, 5.0], number, p=[0.5, 0.2, 0.2, 0.1])
    facts = {"density": density, "iou": rng.uniform(0.2, 1, number), "margin": rng.uniform(0.1, 0.9, number)}
    facts |= {"gap_s": np.full(number, 2.0), "min_score": np.ones(number)}
    return facts, rng.random(number) < np.where(density == 1, 0.995, 0.6)


def sampled(facts: dict[str, np.ndarray], right: np.ndarray, number: int, rng: np.random.Generator) -> Sample:
    rows = rng.choice(len(right), number, replace=False)
    everything = np.ones(number, dtype=bool)
    code = np.zeros(number, dtype=np.int64)
    return Sample(
        np.array([len(right)]), code, right[rows], everything, {name: fact[rows] for name, fact in facts.items()}
    )


def test_of_tracklets_no_overlap_of_a_pair_is_asked_for() -> None:
    facts, _ = population(np.random.default_rng(0), 400)
    assert any("mine.min_iou" in rule.limits for rule in rules(facts, "assigned"))
    assert not any("mine.min_iou" in rule.limits for rule in rules(facts, "chained"))


def test_rules_keep_what_they_say() -> None:
    facts, _ = population(np.random.default_rng(0), 400)
    found = rules(facts)
    assert found[0] == Rule({}, 400)
    assert [rule.num_pairs for rule in found] == sorted((rule.num_pairs for rule in found), reverse=True)
    for rule in found:
        kept = np.ones(400, dtype=bool)
        for name, value in rule.limits.items():
            kept &= {
                "mine.min_iou": facts["iou"] >= value,
                "mine.min_margin": facts["margin"] >= value,
                "mine.interval": facts["gap_s"] <= value + 0.05,
                "mine.max_animals": facts["density"] <= value,
            }[name]
        assert rule.num_pairs == kept.sum() > 0
    assert not any("mine.interval" in rule.limits for rule in found), "all gaps are 2 s: an interval keeps all or none"


def test_a_cap_on_density_is_recommended_where_company_is_the_trouble() -> None:
    rng = np.random.default_rng(1)
    facts, right = population(rng)
    found = recommend(rules(facts), sampled(facts, right, 600, rng), 0.9)
    assert found["supported"]
    assert found["limits"]["mine.max_animals"] == 1
    assert found["purity_low"] >= 0.9
    assert "fresh sheet" in found["sentence"]


def test_what_the_sample_does_not_support_is_said() -> None:
    rng = np.random.default_rng(2)
    facts, right = population(rng)
    found = recommend(rules(facts), sampled(facts, right, 50, rng), 0.97)
    assert not found["supported"]
    assert "not supported" in found["sentence"]
    assert "raise audit.num_pairs" in found["sentence"]
    none = recommend(rules(facts), sampled(facts, np.zeros_like(right), 50, rng), 0.9)
    assert (none["rule"], none["supported"]) == (None, False)


def test_settings_that_are_pure_enough_stay() -> None:
    rng = np.random.default_rng(3)
    facts, right = population(rng)
    found = recommend(rules(facts), sampled(facts, np.ones_like(right), 50, rng), 0.9)
    assert found["supported"]
    assert found["limits"] == {}
    assert found["num_pairs"] == 3000


def test_a_recommendation_is_seldom_truly_below_the_target() -> None:
    """Chosen among many settings on the same verdicts, near the target, where luck would choose wrongly."""
    rng = np.random.default_rng(4)
    number = 3000
    facts = {"density": rng.choice([1.0, 1, 1, 2, 2, 3, 4, 6], number), "iou": rng.beta(2, 2, number) * 0.8 + 0.2}
    facts |= {"margin": rng.uniform(0, 0.8, number), "gap_s": rng.choice([1.0, 2, 5, 30], number)}
    chance = 0.88 + 0.4 * (facts["iou"] - 0.6) - 0.03 * (facts["density"] - 2) - 0.003 * facts["gap_s"]
    right = rng.random(number) < np.clip(chance, 0, 1)
    tried, wrong = rules(facts), 0
    for _ in range(60):
        found = recommend(tried, sampled(facts, right, 200, rng), 0.9)
        if found["supported"]:
            wrong += bool(right[Rule(found["limits"], 0).keeps(facts)].mean() < 0.9)
    assert wrong <= 4

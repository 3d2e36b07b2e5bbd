"""Average precision, matching and chance against naive loops, enumerated orders of ties, and scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from wildray.errors import DataError
from wildray.retrieval import metrics
from wildray.retrieval.metrics import CMC_RANKS, chance, columns, score


def units(rng, number, dim=8):
    vectors = rng.normal(size=(number, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fixed(allowed, right):
    return lambda block: (allowed[block], right[block])


def ordered_precision(right):
    """Average precision of answers in order: the mean, over right ones, of the share of right ones up to there."""
    places = np.flatnonzero(right)
    return float(np.mean([(found + 1) / (place + 1) for found, place in enumerate(places)]))


def expected_over_ties(similarity, right):
    """Mean precision and hits over all orders that sort the similarities, by enumeration."""
    values = sorted(set(similarity), reverse=True)
    groups = [[i for i, s in enumerate(similarity) if s == value] for value in values]
    precision, hits = [], []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        in_order = np.array([right[i] for order in orders for i in order])
        precision.append(ordered_precision(in_order))
        hits.append([in_order[:k].any() for k in CMC_RANKS])
    return np.mean(precision), np.mean(hits, axis=0)


def test_against_a_naive_loop_with_exclusions():
    rng = np.random.default_rng(0)
    queries, gallery = units(rng, 40), units(rng, 70)
    allowed = rng.random((40, 70)) < 0.7
    right = allowed & (rng.random((40, 70)) < 0.1)
    right[3] = False
    scores = score(queries, gallery, masks=fixed(allowed, right))
    for row in range(40):
        order = np.argsort(-(gallery @ queries[row]).astype(np.float64))
        order = order[allowed[row][order]]
        hit = right[row][order]
        assert scores.num_right[row] == right[row].sum()
        assert scores.num_allowed[row] == allowed[row].sum()
        if not hit.any():
            assert np.isnan(scores.average_precision[row])
            assert np.isnan(scores.hits[row]).all()
            continue
        assert scores.average_precision[row] == pytest.approx(ordered_precision(hit), abs=1e-12)
        assert scores.hits[row].tolist() == [float(hit[:k].any()) for k in CMC_RANKS]
    assert not scores.answerable[3]
    assert len(columns(scores)["mAP"]) == scores.answerable.sum() < 40


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_against_scikit_learn_without_ties(seed, size):
    rng = np.random.default_rng(seed)
    queries, gallery = units(rng, 1), units(rng, size)
    right = rng.random((1, size)) < 0.4
    right[0, rng.integers(size)] = True
    scores = score(queries, gallery, masks=fixed(np.ones((1, size), dtype=bool), right))
    similarity = gallery.astype(np.float64) @ queries[0].astype(np.float64)
    assert scores.average_precision[0] == pytest.approx(average_precision_score(right[0], similarity), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=7))
def test_ties_count_as_their_expectation_over_all_orders(answers):
    levels = np.array([level for level, _ in answers], dtype=float)
    right = np.array([is_right for _, is_right in answers])
    if not right.any():
        right[0] = True
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, len(answers) + 1))])
    precision, hits = metrics._score_query(levels, levels[right], harmonic)
    wanted_precision, wanted_hits = expected_over_ties(levels.tolist(), right)
    assert precision == pytest.approx(wanted_precision, abs=1e-12)
    np.testing.assert_allclose(hits, wanted_hits, atol=1e-12)


def test_chance_is_the_mean_over_random_rankings():
    rng = np.random.default_rng(1)
    allowed = np.zeros((2, 60), dtype=bool)
    allowed[0, :50], allowed[1, 5:30] = True, True
    right = np.zeros_like(allowed)
    right[0, [3, 20, 40, 41]], right[1, 7] = True, True
    lucky = chance(2, 60, masks=fixed(allowed, right))
    for row in range(2):
        drawn = [rng.permutation(right[row][allowed[row]]) for _ in range(20_000)]
        precision = np.array([ordered_precision(order) for order in drawn])
        error = precision.std() / np.sqrt(len(drawn))
        assert abs(precision.mean() - lucky.average_precision[row]) < 4 * error
        for index, k in enumerate(CMC_RANKS):
            hit = np.array([order[:k].any() for order in drawn], dtype=float)
            assert abs(hit.mean() - lucky.hits[row, index]) < 4 * hit.std() / np.sqrt(len(drawn))
    assert lucky.hits[1, 0] == pytest.approx(1 / 25)


def test_a_collapsed_network_scores_chance():
    rng = np.random.default_rng(2)
    vectors = np.repeat(units(rng, 1, 192), 90, axis=0)
    identities = rng.integers(0, 9, 90)
    allowed = ~np.eye(90, dtype=bool)
    masks = fixed(allowed, allowed & (identities[:, None] == identities))
    collapsed, lucky = score(vectors, vectors, masks=masks), chance(90, 90, masks=masks)
    np.testing.assert_allclose(collapsed.average_precision, lucky.average_precision, atol=1e-12)
    np.testing.assert_allclose(collapsed.hits, lucky.hits, atol=1e-12)


def test_the_order_of_rows_is_of_no_account_even_with_copies():
    rng = np.random.default_rng(3)
    gallery = units(rng, 50, 64)
    gallery[10:20] = gallery[0]
    queries = units(rng, 5, 64)
    right = rng.random((5, 50)) < 0.2
    right[:, 0] = True
    allowed = np.ones_like(right)
    scores = score(queries, gallery, masks=fixed(allowed, right))
    order = rng.permutation(50)
    shuffled = score(queries, gallery[order], masks=fixed(allowed, right[:, order]))
    np.testing.assert_allclose(scores.average_precision, shuffled.average_precision, atol=1e-12)
    np.testing.assert_allclose(scores.hits, shuffled.hits, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    vectors = units(rng, 30)
    allowed = ~np.eye(30, dtype=bool)
    masks = fixed(allowed, allowed & (rng.random((30, 30)) < 0.2))
    whole = score(vectors, vectors, masks=masks)
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 8 * 30 * 7)
    blocked = score(vectors, vectors, masks=masks)
    np.testing.assert_array_equal(whole.average_precision, blocked.average_precision)
    np.testing.assert_array_equal(whole.num_right, blocked.num_right)


def test_nearly_equal_cosines_are_told_apart():
    """Cosines that float32 rounds to one number: an untrained network gives such."""
    base = np.zeros(512)
    base[0] = 1
    near, far = base.copy(), base.copy()
    near[1], far[1] = 1e-4, 2e-4
    vectors = np.stack([base, far, near]).astype(np.float32)
    assert np.float32(vectors[1] @ vectors[0]) == np.float32(vectors[2] @ vectors[0])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    allowed, right = np.array([[False, True, True]]), np.array([[False, False, True]])
    assert score(vectors[:1], vectors, masks=fixed(allowed, right)).average_precision[0] == 1.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (2.0, "norm"), (0.0, "norm")],
)
def test_bad_vectors_are_refused(bad, message):
    good = np.eye(4, dtype=np.float32)
    worse = good.copy()
    worse[2, 2] = bad
    allowed = np.ones((4, 4), dtype=bool)
    for queries, gallery in ((good, worse), (worse, good)):
        with pytest.raises(DataError, match=message):
            score(queries, gallery, masks=fixed(allowed, allowed))


def test_other_dimensions_are_refused():
    allowed = np.ones((4, 3), dtype=bool)
    with pytest.raises(DataError, match="4 dimensions and the gallery 3"):
        score(np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32), masks=fixed(allowed, allowed))

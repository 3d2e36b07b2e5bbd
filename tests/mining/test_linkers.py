import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildray.mining import linkers
from wildray.mining.boxes import iou_matrix
from wildray.mining.linkers import aligned_iou, assigned, crossings, direct, overlapping, seen_twice


def herd(rng: np.random.Generator, counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (4, N) crowded enough to overlap, and the rows of each frame."""
    corner = rng.uniform(0, 40, size=(2, sum(counts)))
    size = rng.uniform(5, 30, size=(2, sum(counts)))
    return np.concatenate([corner, corner + size]), np.concatenate([[0], np.cumsum(counts)])


def link_all(xyxy: np.ndarray, starts: np.ndarray, category: np.ndarray | None = None) -> linkers.Links:
    frames = np.arange(len(starts) - 2)
    category = np.zeros(xyxy.shape[1], dtype=np.int64) if category is None else category
    return overlapping(xyxy, category, starts, first_frame=frames, second_frame=frames + 1)


@given(st.integers(0, 2**32 - 1))
def test_aligned_iou_equals_the_matrix(seed: int) -> None:
    xyxy, _ = herd(np.random.default_rng(seed), [12])
    np.testing.assert_allclose(aligned_iou(xyxy[:, :6], xyxy[:, 6:]), np.diag(iou_matrix(xyxy.T[:6], xyxy.T[6:])))


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[1.0], [1.0], [1.0], [1.0]])
    assert aligned_iou(point, point).tolist() == [0.0]


@pytest.mark.parametrize("block", [1, 5, 1000])
def test_crossings_in_any_block_size_are_every_row_with_every_row(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(linkers, "BLOCK", block)
    a, na = np.array([0, 5, 2, 9]), np.array([2, 0, 3, 1])
    b, nb = np.array([4, 1, 0, 7]), np.array([3, 2, 1, 2])
    expected = [(g, i, j) for g in range(4) for i in range(a[g], a[g] + na[g]) for j in range(b[g], b[g] + nb[g])]
    found = [tuple(map(int, item)) for part in crossings(a, na, b, nb) for item in zip(*part, strict=True)]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 6), min_size=2, max_size=5))
def test_overlaps_and_margins_equal_naive_loops(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    xyxy, starts = herd(rng, counts)
    category = rng.integers(0, 2, xyxy.shape[1])
    expected = []
    for frame in range(len(counts) - 1):
        rows = range(starts[frame], starts[frame + 1]), range(starts[frame + 1], starts[frame + 2])
        overlap = {
            (i, j): iou_matrix(xyxy[:, i], xyxy[:, j])[0, 0]
            for i, j in itertools.product(*rows)
            if category[i] == category[j]
        }
        for (i, j), iou in overlap.items():
            rivals = [other for (a, b), other in overlap.items() if (a == i) != (b == j)]
            if iou > 0:
                expected.append((frame, i, j, iou, iou - max(rivals, default=0.0)))
    links = link_all(xyxy, starts, category)
    found = list(zip(links.group, links.first, links.second, links.iou, links.margin, strict=True))
    assert [item[:3] for item in found] == [item[:3] for item in expected]
    np.testing.assert_allclose([item[3:] for item in found], [item[3:] for item in expected], atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.05, 0.2]))
def test_assigned_is_the_best_of_all_one_to_one_links(seed: int, num_a: int, num_b: int, min_margin: float) -> None:
    xyxy, starts = herd(np.random.default_rng(seed), [num_a, num_b])
    links = link_all(xyxy, starts)
    edges = {(i, j): iou for i, j, iou in zip(links.first, links.second, links.iou, strict=True) if iou >= 0.2}
    margins = {(i, j): m for i, j, m in zip(links.first, links.second, links.margin, strict=True)}
    best: tuple[tuple[int, int], ...] = ()
    for size in range(1, min(num_a, num_b) + 1):
        for chosen in itertools.combinations(edges, size):
            alone = len({i for i, _ in chosen}) == len({j for _, j in chosen}) == size
            if alone and sum(edges[e] for e in chosen) > sum(edges[e] for e in best):
                best = chosen
    found = assigned(links, min_iou=0.2, min_margin=min_margin)
    expected = sorted(e for e in best if min_margin == 0 or margins[e] >= min_margin)
    assert sorted(zip(found.first, found.second, strict=True)) == expected


def test_direct_takes_every_overlap_and_assigned_refuses_an_ambiguous_herd() -> None:
    # two animals side by side, each overlapping both boxes of the next frame about equally
    first = np.array([[0, 0, 20, 20], [10, 0, 30, 20]])
    second = np.array([[5, 0, 25, 20], [6, 0, 26, 20]])
    alone = np.array([[100, 0, 120, 20], [101, 0, 121, 20]])
    xyxy = np.concatenate([first, alone[:1], second, alone[1:]]).T.astype(float)
    links = link_all(xyxy, np.array([0, 3, 6]))
    assert len(direct(links, min_iou=0.2)) == 5
    chosen = assigned(links, min_iou=0.2, min_margin=0.1)
    assert (chosen.first.tolist(), chosen.second.tolist()) == ([2], [5])
    assert chosen.margin[0] == chosen.iou[0] == pytest.approx(19 / 21)
    assert len(assigned(links, min_iou=0.2, min_margin=0.0)) == 3


def test_a_rival_below_the_threshold_still_makes_a_match_ambiguous() -> None:
    xyxy = np.array([[0, 0, 10, 10], [6, 0, 16, 10], [0, 7, 10, 17]], dtype=float).T  # IoU 0.25 and 0.18
    links = link_all(xyxy, np.array([0, 1, 3]))
    assert len(assigned(links, min_iou=0.2, min_margin=0.0)) == 1
    assert len(assigned(links, min_iou=0.2, min_margin=0.1)) == 0


def test_of_two_boxes_on_one_animal_the_lower_score_is_the_second_look() -> None:
    xyxy = np.array([[0, 0, 20, 20], [1, 0, 20, 20], [12, 0, 32, 20], [0, 0, 20, 20]], dtype=float).T
    score, starts = np.array([0.5, 0.9, 0.4, 0.1]), np.array([0, 3, 4])
    same = np.zeros(4, dtype=np.int64)
    doubled, company = seen_twice(xyxy, same, score, starts)
    assert doubled.tolist() == [True, False, False, False]
    assert company.tolist() == [True, True, True, False]
    assert not np.any(seen_twice(xyxy, np.arange(4), score, starts))
    equal = np.full(4, 0.5)
    assert seen_twice(xyxy, same, equal, starts)[0].tolist() == [False, True, False, False]
    alone = xyxy[:, [0, 1, 3]]
    assert not seen_twice(alone, same[:3], score[[0, 1, 3]], np.array([0, 2, 3]))[1].any()  # with itself


def test_no_boxes_no_links() -> None:
    links = link_all(np.zeros((4, 0)), np.zeros(3, dtype=np.int64))
    assert len(direct(links, min_iou=0.2)) == len(assigned(links, min_iou=0.2, min_margin=0.1)) == 0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wildray.mining.boxes import Boxes, box_area, box_iou_rows, iou_matrix, nms


def random_corners(rng: np.random.Generator, count: int) -> np.ndarray:
    start = rng.uniform(0, 80, (count, 2))
    return np.concatenate([start, start + rng.uniform(1, 40, (count, 2))], axis=1)


def naive_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


def naive_nms(rows: list[tuple[tuple[float, ...], float, str]], limit: float) -> set[tuple[tuple[float, ...], str]]:
    kept: list[tuple[tuple[float, ...], float, str]] = []
    for box in sorted(rows, key=lambda row: -row[1]):
        if all(k[2] != box[2] or naive_iou(np.array(k[0]), np.array(box[0])) <= limit for k in kept):
            kept.append(box)
    return {(box, category) for box, _, category in kept}


def test_iou_equals_the_naive_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = random_corners(rng, 23), random_corners(rng, 17)
    expected = [[naive_iou(x, y) for y in b] for x in a]
    np.testing.assert_allclose(iou_matrix(a, b), expected, atol=1e-12)
    assert np.max(expected) > 0.3


@given(st.integers(0, 1000), st.floats(0.1, 50), st.floats(-100, 100))
def test_iou_does_not_depend_on_order_place_or_scale(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_corners(rng, 5), random_corners(rng, 4)
    matrix = iou_matrix(a, b)
    np.testing.assert_allclose(matrix, iou_matrix(b, a).T)
    np.testing.assert_allclose(matrix, iou_matrix(a * scale + shift, b * scale + shift), atol=1e-9)
    np.testing.assert_allclose(np.diag(iou_matrix(a, a)), 1)


def test_iou_of_rows_is_the_diagonal() -> None:
    rng = np.random.default_rng(1)
    a, b = random_corners(rng, 30), random_corners(rng, 30)
    np.testing.assert_allclose(box_iou_rows(a, b), np.diag(iou_matrix(a, b)))


def test_boxes_without_area_overlap_nothing() -> None:
    flat, inside_out = [10, 10, 10, 20], [20, 20, 10, 10]
    assert iou_matrix([flat, inside_out], [[0, 0, 50, 50], flat, inside_out]).max() == 0
    assert box_area([flat, inside_out]).tolist() == [0, 0]


def test_half_open_neighbours_do_not_overlap() -> None:
    assert iou_matrix([[0, 0, 10, 10]], [[10, 0, 20, 10]])[0, 0] == 0


def test_empty_input() -> None:
    none = np.zeros((0, 4))
    assert iou_matrix(none, [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou_matrix([[0, 0, 1, 1]], none).shape == (1, 0)
    assert box_iou_rows(none, none).shape == (0,)
    assert len(nms(Boxes.empty(), 0.5)) == 0
    assert len(Boxes.empty().clipped(10, 10).sorted()[np.zeros(0, bool)]) == 0


def test_nms_equals_the_naive_loop_in_any_order() -> None:
    rng = np.random.default_rng(2)
    corners = random_corners(rng, 60).astype(np.float32)
    boxes = Boxes(corners, rng.uniform(0, 1, 60), rng.choice(["animal", "person"], 60))
    kept = nms(boxes, 0.3)
    rows = [
        (tuple(map(float, c)), float(s), str(k)) for c, s, k in zip(corners, boxes.score, boxes.category, strict=True)
    ]
    got = {(tuple(map(float, c)), str(k)) for c, k in zip(kept.xyxy_px, kept.category, strict=True)}
    assert got == naive_nms(rows, 0.3)
    assert len(got) < 60
    assert nms(boxes[rng.permutation(60)], 0.3) == kept
    assert (np.diff(kept.score) <= 0).all()


def test_nms_with_equal_scores_does_not_depend_on_order() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [40, 40, 50, 50]], np.float32)
    boxes = Boxes.of_category(corners, np.full(4, 0.5), "animal")
    results = [nms(boxes[np.random.default_rng(seed).permutation(4)], 0.45) for seed in range(10)]
    assert all(result == results[0] for result in results)
    assert results[0].xyxy_px.tolist() == [[0, 0, 10, 10], [40, 40, 50, 50]]


def test_nms_keeps_overlapping_boxes_of_different_categories() -> None:
    boxes = Boxes(np.tile(np.array([[0, 0, 9, 9]], np.float32), (2, 1)), np.array([0.9, 0.8]), np.array(["a", "b"]))
    assert nms(boxes, 0.5).category.tolist() == ["a", "b"]


def test_clipping_leaves_out_what_lies_outside() -> None:
    corners = [[-5, -5, 5, 5], [90, 90, 120, 130], [200, 0, 210, 10], [0, 0, np.nan, 5], [0, 0, np.inf, 5]]
    clipped = Boxes.of_category(corners, [0.1, 0.2, 0.3, 0.4, 0.5], "animal").clipped(100, 95)
    assert clipped.xyxy_px.tolist() == [[0, 0, 5, 5], [90, 90, 100, 95]]
    np.testing.assert_allclose(clipped.score, [0.1, 0.2])


def test_selection_by_mask_and_types() -> None:
    boxes = Boxes.of_category([[0, 0, 1, 1], [1, 1, 2, 2]], [0.9, 0.1], "animal")
    chosen = boxes[boxes.score >= 0.5]
    assert len(chosen) == 1
    assert (chosen.xyxy_px.dtype, chosen.score.dtype, chosen.xyxy_px.shape) == (np.float32, np.float32, (1, 4))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(AssertionError, match="2, 1, 2 rows"):
        Boxes(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.array(["a", "b"]))

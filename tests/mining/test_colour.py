"""The colour signature of a box equals one that is computed cell by cell, and survives being stored."""

import math

import numpy as np
import pyarrow as pa
import pytest

from wildray.mining.colour import LONGEST_PX, NUM_VALUES, colour_arrays, colour_signature
from wildray.schema import DETECTIONS


def by_loops(image, box):
    """The same, pixel by pixel, for boxes that are not shrunk."""
    height, width = image.shape[:2]
    left, top = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    right, bottom = min(math.ceil(box[2]), width), min(math.ceil(box[3]), height)
    found = []
    for row in range(3):
        first = top + row * (bottom - top) // 3
        last = max(top + (row + 1) * (bottom - top) // 3, first + 1)
        for column in range(3):
            begin = left + column * (right - left) // 3
            end = max(left + (column + 1) * (right - left) // 3, begin + 1)
            for channel in range(3):
                seen = [float(image[y, x, channel]) for y in range(first, last) for x in range(begin, end)]
                mean = sum(seen) / len(seen)
                found += [mean, math.sqrt(sum((value - mean) ** 2 for value in seen) / len(seen))]
    return np.array(found)


@pytest.mark.parametrize(
    "box", [(3, 5, 51, 53), (0.4, 2.2, 30.7, 44.9), (10, 10, 11, 11), (4, 4, 6, 9), (-8, 20, 9.5, 70), (56, 1, 60, 3)]
)
def test_it_is_that_of_a_loop_over_cells(box):
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    found = colour_signature(image, box)
    assert found.shape == (NUM_VALUES,)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, by_loops(image, box), atol=0.5 + 1e-6)


def test_a_large_box_has_the_means_of_a_small_one():
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    image = np.kron(patches, np.ones((120, 90, 1), np.uint8)).astype(np.uint8)
    assert max(image.shape) > LONGEST_PX
    found = colour_signature(image, (0, 0, 270, 360)).reshape(3, 3, 3, 2)
    np.testing.assert_array_equal(found[..., 0], patches)
    np.testing.assert_array_equal(found[..., 1], 0)


def test_only_what_is_inside_counts():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    other[20:80, 30:90] = image[20:80, 30:90]
    np.testing.assert_array_equal(colour_signature(image, (30, 20, 90, 80)), colour_signature(other, (30, 20, 90, 80)))


def test_stored_signatures_come_back_as_arrays(tmp_path):
    field = DETECTIONS.field("colour")
    signature = np.arange(NUM_VALUES, dtype=np.uint8)
    column = pa.chunked_array([pa.array([None, signature], field.type), pa.array([signature[::-1]], field.type)])
    values, known = colour_arrays(column)
    assert known.tolist() == [False, True, True]
    np.testing.assert_array_equal(values, [np.zeros(NUM_VALUES), signature, signature[::-1]])
    values, known = colour_arrays(pa.chunked_array([pa.nulls(2, field.type)]))
    assert values.shape == (2, NUM_VALUES)
    assert not known.any()

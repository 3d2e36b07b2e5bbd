"""Neighbours against brute force under exclusions; an index belongs to one model."""

import json

import numpy as np
import pytest

from wildray.errors import DataError, StoreError
from wildray.retrieval.index import VectorIndex
from wildray.store import Store


def units(rng, number, dim=8):
    vectors = rng.normal(size=(number, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def index():
    rng = np.random.default_rng(0)
    return VectorIndex(units(rng, 500), [f"i{number}" for number in range(500)], model="m1")


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
def test_search_against_brute_force(share):
    rng = np.random.default_rng(1)
    gallery, queries = units(rng, 500), units(rng, 300)
    allowed = rng.random((300, 500)) < share
    found = VectorIndex(gallery, [str(n) for n in range(500)], model="m").search(
        queries, 5, allowed=lambda block: allowed[block]
    )
    for row in range(300):
        similarity = np.where(allowed[row], gallery @ queries[row], -np.inf)
        wanted = np.argsort(-similarity)[: min(5, allowed[row].sum())]
        assert found.rows[row].tolist() == wanted.tolist() + [-1] * (5 - len(wanted))
        np.testing.assert_allclose(found.similarity[row, : len(wanted)], similarity[wanted], atol=1e-6)
        assert np.isnan(found.similarity[row, len(wanted) :]).all()


def test_more_answers_than_there_are(index):
    queries = units(np.random.default_rng(2), 2)
    found = index.search(queries, 600)
    assert sorted(found.rows[0][:500].tolist()) == list(range(500))
    assert (found.rows[0][500:] == -1).all()


def test_saved_and_loaded(index, tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    index.save(store, "animals")
    loaded = VectorIndex.load(store, "animals", model="m1")
    queries = units(np.random.default_rng(3), 4)
    np.testing.assert_array_equal(loaded.search(queries, 7).rows, index.search(queries, 7).rows)
    assert loaded.ids == index.ids
    with pytest.raises(StoreError, match="made by the model m1, the queries by m2"):
        VectorIndex.load(store, "animals", model="m2")


def test_an_altered_or_missing_index_is_refused(index, tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    with pytest.raises(StoreError, match="cannot be read"):
        VectorIndex.load(store, "animals", model="m1")
    index.save(store, "animals")
    path = store.path("index", "animals.faiss")
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(StoreError, match="altered or cut short"):
        VectorIndex.load(store, "animals", model="m1")
    path.write_bytes(content)
    assert VectorIndex.load(store, "animals", model="m1").dim == 8
    assert json.loads(store.path("index", "animals.json").read_text())["dim"] == 8


def test_what_does_not_fit_is_refused(index):
    with pytest.raises(DataError, match="3 dimensions, expected 8"):
        index.search(np.eye(3, dtype=np.float32), 1)
    with pytest.raises(DataError, match="not finite"):
        index.search(np.full((1, 8), np.nan, dtype=np.float32), 1)
    with pytest.raises(DataError, match="2 vectors and 1 ids"):
        VectorIndex(np.eye(2, dtype=np.float32), ["a"], model="m")

"""The same vectors come from Ray's actors as from this process, and so do the errors."""

import cv2
import numpy as np
import pytest

from wildray.config import Config
from wildray.errors import StoreError
from wildray.labelled import labelled_digest
from wildray.retrieval import embed as embedding
from wildray.store import Store

CONFIG = Config.load(overrides={"backbone.name": "test_resnet", "backbone.image_size": 32, "scale.use_gpu": False})


@pytest.fixture
def metadata(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["image_id,identity,path"]
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        rows.append(f"i{number},{number // 4},{number}.png")
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.mark.slow
def test_actors_give_the_same_vectors(ray_here, metadata, tmp_path, monkeypatch):
    monkeypatch.setattr("wildray.retrieval.sources.CHUNK_ROWS", 1024)
    here = Store.open(tmp_path / "here", create=True)
    one = embedding.embed(CONFIG, here, data=str(metadata))
    monkeypatch.setattr(embedding, "RAY_IMAGES", 1)
    there = Store.open(tmp_path / "there", create=True)
    called = []
    honest = embedding._embed_on_ray
    monkeypatch.setattr(embedding, "_embed_on_ray", lambda *args: (called.append(1), honest(*args)))
    two = embedding.embed(CONFIG, there, data=str(metadata))
    assert called == [1]
    (ids, vectors), (other_ids, others) = (
        embedding.read_embeddings(here, one.digest),
        embedding.read_embeddings(there, two.digest),
    )
    assert ids == other_ids
    np.testing.assert_allclose(vectors, others, atol=1e-6)
    assert two.num == 20


@pytest.mark.slow
def test_an_error_of_an_actor_is_the_users_own(ray_here, metadata, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "RAY_IMAGES", 1)
    store = Store.open(tmp_path / "store", create=True)
    digest = labelled_digest(CONFIG, store, str(metadata))
    store.path("labelled", digest, "images-000.arrow").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        embedding.embed(CONFIG, store)

"""Unit vectors are the same however they are made, and are made once."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from wildray.config import Config
from wildray.errors import ConfigError, DataError, StageError, StoreError, WildrayError
from wildray.labelled import import_labelled
from wildray.packs import PackWriter, encode_jpeg
from wildray.retrieval import embed as embedding
from wildray.retrieval.embed import embed, read_embeddings
from wildray.retrieval.forward import load_images, unit_vectors
from wildray.retrieval.sources import open_source
from wildray.schema import DETECTIONS
from wildray.store import Store

CONFIG = Config.load(
    overrides={"backbone.name": "test_resnet", "backbone.image_size": 32, "eval.batch_size": 4, "scale.use_gpu": False}
)


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def metadata(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["image_id,identity,path,camera_id,encounter"]
    for number in range(22):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        rows.append(f"i{number},{number // 4},{number}.png,c{number % 2},{number // 2}")
    path = folder / "metadata.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("wildray.retrieval.sources.CHUNK_ROWS", 6)


def test_vectors_are_those_of_the_backbone(store, metadata):
    result = embed(CONFIG, store, data=str(metadata))
    ids, vectors = read_embeddings(store, result.digest)
    assert ids == [f"i{number}" for number in range(22)]
    assert (result.num, result.num_new) == (22, 22)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    backbone = embedding.frozen_backbone(CONFIG, store, None)
    labelled = import_labelled(store, metadata, padding=0.1, longest_px=640)
    image = labelled.reader().image("images-000", 7)
    image = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0].numpy()
    np.testing.assert_allclose(vectors[7], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_vectors_are_made_once_and_others_apart(store, metadata):
    first = embed(CONFIG, store, data=str(metadata))
    again = embed(CONFIG, store)
    assert (again.digest, again.num, again.num_new) == (first.digest, 22, 0)
    seeded = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"seed": 1})})
    assert embed(seeded, store).digest != first.digest


def test_chunks_and_kills_change_nothing(store, metadata, tmp_path, monkeypatch, small_chunks):
    whole = embed(CONFIG, store, data=str(metadata))
    other = Store.open(tmp_path / "other", create=True)
    honest = embedding.ChunkEmbedder.embed_chunk

    def die_at_the_third(self, name):
        if name == "000002":
            raise KeyboardInterrupt
        return honest(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(embedding.ChunkEmbedder, "embed_chunk", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            embed(CONFIG, other, data=str(metadata))
    resumed = embed(CONFIG, other, data=str(metadata))
    assert resumed.num_new == 10
    assert resumed.digest == whole.digest
    for (ids, vectors), (wanted_ids, wanted) in [
        (read_embeddings(other, resumed.digest), read_embeddings(store, whole.digest))
    ]:
        assert ids == wanted_ids
        np.testing.assert_array_equal(vectors, wanted)


def test_crops_of_detections_come_with_their_camera_and_without_the_purged(store):
    writer = PackWriter(store, ("crops", "d1"), "c0")
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    addresses = [writer.add(1, encode_jpeg(image)), writer.add(2, b"")]
    writer.close()
    rows = [_detection(1, *addresses[0]), _detection(2, *addresses[1]), _detection(3, None, None)]
    collection = store.collection("detections", "d1")
    collection.begin({})
    collection.write("detections", "c0", pa.Table.from_pylist(rows, schema=DETECTIONS))
    collection.done("c0", {})
    assert open_source(store, "detections/d1").num_rows == 2
    result = embed(CONFIG, store, data="detections/d1")
    ids, vectors = read_embeddings(store, result.digest)
    assert ids == ["1"]
    assert vectors.shape[0] == result.num == 1


def _detection(number, pack, row):
    box = {"x1_px": 0.0, "y1_px": 0.0, "x2_px": 9.0, "y2_px": 9.0}
    place = {"media_id": "m", "camera_id": "cam", "frame_index": 0, "time_s": 0.0}
    crop = {"crop_pack": pack, "crop_row": row}
    return {"detection_id": number, "score": 0.5, "category": "animal", **place, **box, **crop}


def test_sources_that_do_not_exist_are_named(store):
    with pytest.raises(DataError, match="give --data"):
        embed(CONFIG, store)
    with pytest.raises(DataError, match="expected labelled/DIGEST"):
        open_source(store, "videos/1")
    with pytest.raises(WildrayError, match="labelled/none"):
        open_source(store, "labelled/none")
    with pytest.raises(StageError, match="run 'wildray detect"):
        embed(CONFIG, store, data="detections")
    store.collection("detections", "d1").begin({})
    with pytest.raises(ConfigError, match="Did you mean 'd1'"):
        embed(CONFIG, store, data="detections/d2")
    with pytest.raises(DataError, match="detections/d1 has no crops"):
        embed(CONFIG, store, data="detections")


def test_a_run_that_does_not_exist_is_named(store, metadata):
    with pytest.raises(StoreError, match=r"'first' does not exist. 'wildray pretrain"):
        embed(CONFIG, store, run="first", data=str(metadata))
    store.write_text("x", "models", "second", "backbone.safetensors")
    with pytest.raises(StoreError, match="Did you mean 'second'"):
        embed(CONFIG, store, run="seconds", data=str(metadata))


class Constant(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, images):
        return self.values.repeat(len(images), 1)


def test_a_vector_of_zeros_takes_the_diagonal_and_extremes_stay_finite():
    images = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    np.testing.assert_allclose(unit_vectors(Constant(0.0, 0.0, 0.0, 0.0), images, batch_size=8), 0.5)
    for scale in (1e30, 1e-30, 1.0):
        vectors = unit_vectors(Constant(3 * scale, 4 * scale), images, batch_size=1)
        np.testing.assert_allclose(vectors, [[0.6, 0.8]] * 2, atol=1e-6)


def test_values_that_are_not_finite_are_named():
    with pytest.raises(DataError, match=r"not finite for 2 of 2 images.*train.learning_rate"):
        unit_vectors(Constant(float("nan"), 1.0), np.zeros((2, 3, 4, 4), dtype=np.uint8), batch_size=8)


def test_the_backbone_is_left_as_it_was():
    backbone = Constant(1.0, 2.0).train()
    backbone.norm.eval()  # frozen by its owner
    unit_vectors(backbone, np.zeros((2, 3, 4, 4), dtype=np.uint8), batch_size=8)
    assert backbone.training
    assert not backbone.norm.training
    assert backbone.values.requires_grad


def test_crops_are_squashed_not_cut(store):
    writer = PackWriter(store, ("crops", "d1"), "c0")
    image = np.zeros((20, 80, 3), dtype=np.uint8)
    image[:, :8], image[:, 72:] = (255, 0, 0), (0, 0, 255)
    pack, row = writer.add(1, encode_jpeg(image))
    writer.close()
    source = open_source_of_one(store)
    images = load_images(source, [pack], [row], image_size=10)
    assert images.shape == (1, 3, 10, 10)
    assert images[0, 0, :, 0].min() > 200
    assert images[0, 2, :, 9].min() > 200


def open_source_of_one(store):
    from wildray.packs import PackReader

    return PackReader(store, ("crops", "d1"))

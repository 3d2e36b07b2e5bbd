"""Known pictures give known figures; chance, the untrained network and intervals stand beside them."""

import json
import pickle

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from wildray.config import Config
from wildray.errors import DataError
from wildray.labelled import import_labelled
from wildray.learning.first_backbone import load_backbone
from wildray.retrieval import evaluate as evaluation
from wildray.retrieval import probe as probing
from wildray.retrieval.evaluate import evaluate
from wildray.retrieval.probe import make_probe
from wildray.schema import MATCHES
from wildray.store import Store

CONFIG = Config.load(
    overrides={
        "backbone.name": "test_resnet",
        "backbone.image_size": 32,
        "scale.use_gpu": False,
        "eval.num_bootstrap": 50,
    }
)
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
KEYS = {"mAP", "cmc_1", "cmc_5", "cmc_10", "chance_mAP", "untrained_mAP", "num_queries", "num_identities", "seconds"}


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def metadata(tmp_path):
    """Five animals of one colour each, two encounters of two images; a sixth with a single image, a nameless one."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image_id,identity,path,encounter,species"]

    def add(name, identity, encounter, color, species):
        image = np.clip(np.array(color) + rng.normal(0, 4, (24, 24, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), image)
        rows.append(f"{name},{identity},{name}.png,{encounter},{species}")

    for animal, color in enumerate(COLORS):
        for number in range(4):
            species = "lynx" if animal < 2 else "kudu"
            add(f"a{animal}-{number}", f"animal{animal}", f"{animal}-{number // 2}", color, species)
    add("single", "animal9", "9", (120, 120, 120), "kudu")
    add("nobody", "unknown", "10", COLORS[0], "lynx")
    path = folder / "metadata.csv"
    path.write_text("\n".join(rows))
    return path


class Colors(nn.Module):
    """A network that sees the mean colour: it knows these animals."""

    name, image_size, dim = "colors", 8, 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.scale

    def digest(self):
        return "colors"


def perfect(monkeypatch):
    monkeypatch.setattr(evaluation, "frozen_backbone", lambda config, store, run: Colors().eval())


def test_a_network_that_knows_the_animals_finds_them_all(store, metadata, monkeypatch):
    perfect(monkeypatch)
    result = evaluate(CONFIG, store, data=str(metadata))
    metrics = result.metrics
    assert set(metrics) >= KEYS
    assert metrics["mAP"] == metrics["cmc_1"] == metrics["mAP_low"] == metrics["mAP_high"] == 1.0
    assert metrics["num_queries"] == 20  # the single image has no answer, the nameless one does not ask
    assert metrics["num_unanswerable"] == 1
    assert metrics["num_identities"] == 5
    assert metrics["num_gallery"] == 21
    # two right answers among 21 less the query and its companion of the encounter
    assert metrics["chance_cmc_1"] == pytest.approx(2 / 19)
    assert set(result.per_species) == {"lynx", "kudu"}
    assert result.per_species["lynx"]["num_queries"] == 8
    assert set(result.per_identity) == {f"animal{n}" for n in range(5)}
    assert all(isinstance(value, float) for value in metrics.values())


def test_answers_are_kept_for_the_report(store, metadata, monkeypatch):
    perfect(monkeypatch)
    result = evaluate(CONFIG, store, data=str(metadata))
    place = store.path("reports", f"backbone-colors-{result.embeddings}")
    assert result.uri == str(place)
    matches = pq.read_table(place / "matches.parquet")
    assert matches.schema.equals(MATCHES)
    first = matches.filter(matches["rank"].to_numpy() <= 2).to_pylist()
    assert len(first) == 42
    for match in first:
        animal = match["query_id"].partition("-")[0]
        if animal != "single":
            assert match["identity"] == animal.replace("a", "animal")
            assert match["gallery_id"] != match["query_id"]
    written = json.loads((place / "evaluation.json").read_text())
    assert written["mAP"] == 1.0
    assert written["num_queries"] == 20
    assert written["labelled"] == result.labelled
    assert written["protocol"]["exclude"] is None


def test_encounters_can_be_kept_and_other_columns_dropped(store, metadata, monkeypatch):
    perfect(monkeypatch)
    kept = evaluate(_eval(exclude=()), store, data=str(metadata)).metrics
    assert kept["chance_cmc_1"] == pytest.approx(3 / 20)
    with pytest.raises(DataError, match=r"None of 21 queries has a right answer.*--eval.exclude"):
        evaluate(_eval(exclude=("species",)), store)
    same = evaluate(_eval(same=("species",)), store).metrics
    assert same["chance_cmc_1"] > 2 / 19
    with pytest.raises(DataError, match="no column 'camera_id'"):
        evaluate(_eval(exclude=("camera_id",)), store)


def _eval(**options):
    return CONFIG.model_copy(update={"eval": CONFIG.eval.model_copy(update=options)})


def test_an_untrained_network_stands_for_itself(store, metadata):
    metrics = evaluate(CONFIG, store, data=str(metadata)).metrics
    assert metrics["untrained_mAP"] == metrics["mAP"]
    assert metrics["gain_mAP"] == metrics["gain_mAP_low"] == 0.0
    assert metrics["mAP_low"] <= metrics["mAP"] <= metrics["mAP_high"]


def test_a_run_is_compared_with_its_own_beginning(store, metadata):
    """The beginning is that of the run's configuration, not of the one that evaluate is called with."""
    rng = np.random.default_rng(0)
    for path in sorted(metadata.parent.glob("*.png")):  # noise, so that every network ranks otherwise
        cv2.imwrite(str(path), rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    trained = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"seed": 5})})
    assert load_backbone(trained.backbone, seed=5).digest() != load_backbone(trained.backbone, seed=0).digest()
    backbone = load_backbone(trained.backbone, seed=5)
    untouched = evaluate(trained, store, data=str(metadata)).metrics["mAP"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = store.path("models", "first")
    folder.mkdir(parents=True)
    backbone.save(folder / "backbone.safetensors")
    (folder / "config.yaml").write_text(trained.to_yaml())
    result = evaluate(CONFIG, store, run="first")
    assert evaluate(CONFIG, store).metrics["mAP"] != untouched
    assert result.metrics["untrained_mAP"] == untouched
    assert result.metrics["mAP"] != untouched
    assert result.metrics["gain_mAP"] == pytest.approx(result.metrics["mAP"] - untouched)
    assert (folder / "evaluation.json").is_file()
    assert (folder / "matches.parquet").is_file()
    assert result.to_json()["num_queries"] == 20
    assert isinstance(result.to_json()["num_queries"], int)


def test_the_probe_pickles_and_agrees_with_evaluate(store, metadata, monkeypatch):
    perfect(monkeypatch)
    wanted = evaluate(CONFIG, store, data=str(metadata)).metrics
    digest = import_labelled(store, metadata, padding=0.1, longest_px=640).digest
    probe = pickle.loads(pickle.dumps(make_probe(CONFIG, store, digest)))
    expected = {name: wanted[name] for name in ("mAP", "mAP_low", "mAP_high", "cmc_1")}
    species = evaluate(CONFIG, store, data=str(metadata)).per_species
    expected |= {f"mAP/{name}": figures["mAP"] for name, figures in species.items()}
    assert len(expected) == 6
    assert probe(Colors()) == expected
    decoded = []
    honest = probing.load_images
    monkeypatch.setattr(probing, "load_images", lambda *args, **kw: (decoded.append(1), honest(*args, **kw))[1])
    probe(Colors())
    assert not decoded  # the images stayed in memory
    monkeypatch.setattr(probing, "_MAX_CACHED_BYTES", 0)
    monkeypatch.setattr(probing, "_PART", 5)
    assert probe(Colors()) == expected
    assert decoded


def test_the_probe_leaves_training_as_it_was(store, metadata):
    digest = import_labelled(store, metadata, padding=0.1, longest_px=640).digest
    backbone = load_backbone(CONFIG.backbone).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    random_state = torch.get_rng_state()
    figures = make_probe(CONFIG, store, digest)(backbone)
    assert 0 < figures["mAP"] <= 1
    assert backbone.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_probe_with_nothing_to_find_is_refused_before_training(store, tmp_path):
    for name in "12":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((9, 9, 3), dtype=np.uint8))
    path = tmp_path / "metadata.csv"
    path.write_text("image_id,identity,path\n1,a,1.png\n2,b,2.png\n")
    digest = import_labelled(store, path, padding=0.1, longest_px=640).digest
    with pytest.raises(DataError, match="No labelled image has another of the same animal"):
        make_probe(CONFIG, store, digest)


def test_without_data_there_is_nothing_to_evaluate(store):
    with pytest.raises(DataError, match="give --data"):
        evaluate(CONFIG, store)

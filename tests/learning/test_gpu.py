"""What must hold on a GPU as it does on the processor; skipped where there is none."""

import numpy as np
import pytest
import safetensors.torch
import torch
from learning_store import PAIRS_DIGEST, TINY

from wildray.config import Config
from wildray.learning import loop
from wildray.learning.first_backbone import first_backbone
from wildray.learning.job import Job, Place
from wildray.learning.methods import METHODS
from wildray.retrieval.forward import unit_vectors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.fixture(scope="module", autouse=True)
def full_float32():
    """No TF32, which keeps ten bits of a factor: the processor has nothing like it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def job_of(both_stores, run, method, **settings):
    store, labels = both_stores
    given = {"train.method": method, "train.epochs": 2, "train.views": "self" if method == "dino" else "temporal"}
    if METHODS[method].supervised:
        given["train.labels"] = labels
    if method == "dinov2":
        given["backbone.name"] = "test_vit"
    named = {name.replace("__", "."): value for name, value in settings.items()}
    config = Config.load(overrides=TINY | given | named)
    return Job(config, store, run, labels if METHODS[method].supervised else PAIRS_DIGEST)


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_measures_are_those_of_the_processor(both_stores, method):
    places = {"cpu": Place(), "cuda": Place(device=torch.device("cuda"))}
    histories = {
        name: loop.run_training(job_of(both_stores, f"{method}-{name}", method), place).history
        for name, place in places.items()
    }
    for ours, theirs in zip(histories["cuda"], histories["cpu"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3, abs=2e-3)
        if method != "lejepa":  # its random directions are drawn where they are used: others on another device
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=2e-2, abs=2e-3)
        assert ours["embedding_rank"] == pytest.approx(theirs["embedding_rank"], rel=2e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_gone_on_with_ends_with_the_same_weights(both_stores, monkeypatch, method):
    place = Place(device=torch.device("cuda"))
    jobs = [job_of(both_stores, f"{method}-{name}", method, train__precision="auto") for name in ("whole", "cut")]
    loop.run_training(jobs[0], place)
    step = loop.Trainer.step

    def dies_at_the_fourth(trainer, batch):
        if trainer.state.step == 3:
            raise KeyboardInterrupt
        step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "step", dies_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            loop.run_training(jobs[1], place)
    loop.run_training(jobs[1], place)
    whole, cut = (safetensors.torch.load_file(job.run_dir / "backbone.safetensors") for job in jobs)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_transformer_learns_in_bfloat16(both_stores, compiled):
    settings = {"backbone__name": "vit_tiny_patch16_224", "train__epochs": 4, "train__precision": "bf16"}
    job = job_of(
        both_stores, f"vit{compiled}", "simclr", train__compile=compiled, train__recompute=not compiled, **settings
    )
    history = loop.run_training(job, Place(device=torch.device("cuda"))).history
    assert np.isfinite([epoch["loss"] for epoch in history]).all()
    assert history[-1]["loss"] < history[0]["loss"]


def test_vectors_are_those_of_the_processor():
    config = Config.load(overrides={"backbone.name": "resnet18", "backbone.image_size": 64})
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 64, 64), np.uint8)
    backbone = first_backbone(config)
    on_cpu = unit_vectors(backbone, images, batch_size=4)
    np.testing.assert_allclose(unit_vectors(backbone.cuda(), images, batch_size=4), on_cpu, atol=1e-4)

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from learning_store import PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import StageError
from wildray.learning import loop
from wildray.learning.checkpoint import checkpoints
from wildray.learning.job import Job, Place


class KilledError(Exception):
    """Stands for a signal that no handler sees."""


def weights(store, run):
    return safetensors.torch.load_file(store.path("models", run, "backbone.safetensors"))


def job_of(store, run, **overrides):
    return Job(tiny_config(**overrides), store, run, PAIRS_DIGEST)


@pytest.mark.parametrize(("method", "views"), [("simclr", "temporal"), ("dino", "self")])
def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(pair_store, monkeypatch, method, views):
    settings = {"train__method": method, "train__views": views}
    whole = loop.run_training(job_of(pair_store, "whole", **settings), Place())
    assert whole.step == 18
    step = loop.Trainer.step
    rng = np.random.default_rng(0)
    for attempt in range(2):
        deadly = int(rng.integers(3, 7))

        def step_until(self, loss, *, left=[deadly]):  # noqa: B006 - counts down over calls
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return step(self, loss)

        monkeypatch.setattr(loop.Trainer, "step", step_until)
        with pytest.raises(KilledError):
            loop.run_training(job_of(pair_store, "parts", **settings), Place())
        assert not pair_store.path("models", "parts", "backbone.safetensors").exists(), attempt
    monkeypatch.setattr(loop.Trainer, "step", step)
    parts = loop.run_training(job_of(pair_store, "parts", **settings), Place())
    first, second = weights(pair_store, "whole"), weights(pair_store, "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["loss"] == other["loss"]
        assert one["embedding_rank"] == other["embedding_rank"]


def test_a_run_leaves_weights_history_result_and_two_checkpoints(pair_store):
    job = job_of(pair_store, "r")
    seen = []

    def probe(backbone):
        assert not backbone.training
        return {"mAP": 0.25, "cmc_1": 0.5}

    state = loop.run_training(job, Place(), probe=probe, on_epoch=seen.append)
    history = json.loads((job.run_dir / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert history == state.history == seen
    assert all(epoch["mAP"] == 0.25 for epoch in history)
    wanted = {"loss", "learning_rate", "embedding_rank", "embedding_std", "images_per_s", "seconds", "cmc_1"}
    assert wanted <= history[0].keys()
    assert history[-1]["learning_rate"] == 0
    result = json.loads((job.run_dir / "result.json").read_text())
    assert (result["epochs"], result["num_steps"]) == (3, 18)
    assert result["loss"] == history[-1]["loss"]
    assert len(checkpoints(job.run_dir)) == 2
    assert json.loads((job.run_dir / ".progress.json").read_text())["num_steps"] == 18


def test_the_probe_comes_every_so_many_epochs_and_after_the_last(pair_store):
    for every, expected in ((2, [False, True, True]), (0, [False, False, True])):
        job = job_of(pair_store, f"every{every}", train__probe_every=every)
        history = loop.run_training(job, Place(), probe=lambda backbone: {"mAP": 0.1}).history
        assert ["mAP" in epoch for epoch in history] == expected


def test_measuring_does_not_change_training(pair_store):
    def probe(backbone):
        torch.rand(7)
        backbone(torch.rand(4, 3, 32, 32))
        return {}

    loop.run_training(job_of(pair_store, "plain"), Place())
    loop.run_training(job_of(pair_store, "probed"), Place(), probe=probe)
    first, second = weights(pair_store, "plain"), weights(pair_store, "probed")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_loss_that_is_not_finite_ends_training_before_the_weights_change(pair_store, monkeypatch):
    job = job_of(pair_store, "nan")
    trainer = loop.Trainer(job, Place(), None)
    before = {name: value.clone() for name, value in trainer.method.state_dict().items()}
    bad = next(p for p in trainer.method.parameters() if p.requires_grad).sum() * float("nan")
    with pytest.raises(StageError, match="learning_rate"):
        trainer.step(bad)
    assert trainer.state.step == 0
    assert all(torch.equal(before[name], value) for name, value in trainer.method.state_dict().items())


def test_bf16_and_balanced_batches_and_the_stock_recipe_run(pair_store):
    for recipe in ("adamw", "stock"):
        overrides = {
            "train__precision": "bf16",
            "train__balance": "camera",
            "train__recipe": recipe,
            "train__epochs": 1,
        }
        state = loop.run_training(job_of(pair_store, recipe, **overrides), Place())
        assert np.isfinite(state.history[0]["loss"])


def test_too_few_pairs_are_said(tmp_path):
    store = make_store(str(tmp_path / "few"), num_pairs=5)
    with pytest.raises(StageError, match="5 pairs do not fill a batch of 16"):
        loop.run_training(job_of(store, "r"), Place())


def test_the_loss_falls(tmp_path):
    store = make_store(str(tmp_path / "s"), num_pairs=240, num_animals=40)
    history = loop.run_training(job_of(store, "r", train__epochs=4, train__batch_size=24), Place()).history
    assert history[-1]["loss"] < history[0]["loss"] - 0.2

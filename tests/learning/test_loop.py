import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from learning_store import PAIRS_DIGEST, make_store, tiny_config

from wildray.errors import StageError
from wildray.learning import loop
from wildray.learning.checkpoint import checkpoints
from wildray.learning.crops import read_crops
from wildray.learning.job import Job, Place
from wildray.learning.methods import METHODS


class KilledError(Exception):
    """Stands for a signal that no handler sees."""


def weights(store, run):
    return safetensors.torch.load_file(store.path("models", run, "backbone.safetensors"))


def job_of(store, run, **overrides):
    return Job(tiny_config(**overrides), store, run, PAIRS_DIGEST)


class DeadlyStep:
    """Stands in for ``Trainer.step``: after so many steps the next one raises."""

    def __init__(self, num_left: int) -> None:
        self.num_left, self.step = num_left, loop.Trainer.step

    def __get__(self, trainer, kind):
        def step(batch):
            if not self.num_left:
                raise KilledError
            self.num_left -= 1
            self.step(trainer, batch)

        return step


@pytest.mark.parametrize("method", METHODS)
def test_every_method_interrupted_and_resumed_equals_uninterrupted(both_stores, monkeypatch, method):
    store, labels = both_stores
    supervised = METHODS[method].supervised
    settings = {
        "train__method": method,
        "train__views": "self" if method == "dino" else "temporal",
        "train__epochs": 2,
        "train__labels": labels if supervised else None,
        "backbone__name": "test_vit" if method == "dinov2" else "test_resnet",
    }
    config = tiny_config(**settings)
    jobs = {run: Job(config, store, f"{method}-{run}", labels if supervised else PAIRS_DIGEST) for run in ("a", "b")}
    whole = loop.run_training(jobs["a"], Place())
    assert whole.step == 6
    for num_steps in (3, 2):  # in the middle of both epochs; a checkpoint is written every two steps
        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "step", DeadlyStep(num_steps))
            with pytest.raises(KilledError):
                loop.run_training(jobs["b"], Place())
    assert not (jobs["b"].run_dir / "backbone.safetensors").exists()
    parts = loop.run_training(jobs["b"], Place())
    first, second = (weights(store, job.run) for job in jobs.values())
    assert all(torch.equal(first[key], second[key]) for key in first)
    ends = [torch.load(checkpoints(job.run_dir)[0], weights_only=True)["method"] for job in jobs.values()]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    for one, other in zip(whole.history, parts.history, strict=True):
        for key in ("loss", "gradient_norm", "embedding_rank", "alignment", "uniformity"):
            assert one[key] == other[key]


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
    measured = {"embedding_rank", "embedding_std", "alignment", "uniformity", "cmc_1"}
    assert measured | {"loss", "gradient_norm", "learning_rate", "images_per_s", "seconds"} <= history[0].keys()
    assert history[-1]["learning_rate"] == 0
    result = json.loads((job.run_dir / "result.json").read_text())
    assert (result["epochs"], result["num_steps"]) == (3, 18)
    assert result["loss"] == history[-1]["loss"]
    assert len(checkpoints(job.run_dir)) == 2
    assert json.loads((job.run_dir / ".progress.json").read_text())["num_steps"] == 18


def test_a_run_that_stops_on_the_way_and_goes_on_equals_one_that_does_not(pair_store):
    whole = job_of(pair_store, "whole")
    loop.run_training(whole, Place())
    for until in (1, 2, None):
        job = replace(job_of(pair_store, "parts"), until=until)
        assert loop.run_training(job, Place()).epoch == (until or 3)
        assert json.loads((job.run_dir / "result.json").read_text())["epochs"] == (until or 3)
    first, second = weights(pair_store, "whole"), weights(pair_store, "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_killed_between_its_last_checkpoint_and_its_history_has_both(pair_store, monkeypatch):
    job = job_of(pair_store, "between", train__epochs=1)

    def killed(trainer):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "write_history", killed)
        with pytest.raises(KilledError):
            loop.run_training(job, Place())
    assert not (job.run_dir / "history.json").exists()
    state = loop.run_training(job, Place())
    assert json.loads((job.run_dir / "history.json").read_text()) == state.history


def test_a_machine_that_is_about_to_go_leaves_a_checkpoint_of_its_last_steps(pair_store, monkeypatch):
    monkeypatch.setattr(loop, "LEAVING_EVERY_S", 0.0)
    asked = []

    def leaving():
        asked.append(1)
        return len(asked) > 1

    whole = loop.run_training(job_of(pair_store, "whole"), Place(), leaving=lambda: False)
    monkeypatch.setattr(loop.Trainer, "step", DeadlyStep(3))
    with pytest.raises(KilledError):
        loop.run_training(job_of(pair_store, "left"), Place(), leaving=leaving)
    names = [path.stem for path in checkpoints(pair_store.path("models", "left"))]
    assert names == ["step-000000003", "step-000000002"], "no checkpoint was due before the end of the epoch"
    monkeypatch.undo()
    after = loop.run_training(job_of(pair_store, "left"), Place())
    assert after.step == whole.step
    one, other = weights(pair_store, "whole"), weights(pair_store, "left")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_probe_comes_every_so_many_epochs_and_after_the_last(pair_store):
    for every, expected in ((2, [False, True, True]), (0, [False, False, True])):
        job = job_of(pair_store, f"every{every}", train__probe_every=every)
        history = loop.run_training(job, Place(), probe=lambda backbone: {"mAP": 0.1}).history
        assert ["mAP" in epoch for epoch in history] == expected


@pytest.mark.parametrize("steps", [4, 9])
def test_epochs_of_another_size_divide_the_same_training(pair_store, monkeypatch, steps):
    settings = {"train__checkpoint_steps": 2, "train__probe_every": 0}
    whole = loop.run_training(job_of(pair_store, f"whole{steps}", train__epochs=6, **settings), Place())
    assert whole.step == 36
    divided = {**settings, "train__epochs": 36 // steps, "train__epoch_size": 16 * steps + 3}
    job = job_of(pair_store, f"divided{steps}", **divided)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "step", DeadlyStep(7))
        with pytest.raises(KilledError):
            loop.run_training(job, Place())
    state = loop.run_training(job, Place())
    assert (state.step, len(state.history)) == (36, 36 // steps)
    first, second = weights(pair_store, f"whole{steps}"), weights(pair_store, f"divided{steps}")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_measuring_does_not_change_training(pair_store):
    def probe(backbone):
        torch.rand(7)
        backbone(torch.rand(4, 3, 32, 32))
        return {}

    loop.run_training(job_of(pair_store, "plain"), Place())
    loop.run_training(job_of(pair_store, "probed"), Place(), probe=probe)
    first, second = weights(pair_store, "plain"), weights(pair_store, "probed")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_ends_training_before_the_weights_change(pair_store, monkeypatch, what):
    job = job_of(pair_store, "nan")
    trainer = loop.Trainer(job, Place(), None)
    job.run_dir.mkdir(parents=True)
    before = {name: value.clone() for name, value in trainer.method.state_dict().items()}
    weight = next(p for p in trainer.method.parameters() if p.requires_grad)

    def forward(batch):
        # the root's slope is infinite at 0, its value is not
        return weight.sum() * float("nan") if what == "loss" else (weight * 0).abs().sqrt().sum()

    monkeypatch.setattr(trainer.method, "forward", forward)
    crops = read_crops(trainer.cache, trainer.samples, np.arange(16), seed=0, epoch=0, num_sources=2)
    batch = trainer.method.views.batch(crops, seed=0, epoch=0, device=torch.device("cpu"))
    with pytest.raises(StageError, match=r"learning_rate") as caught:
        trainer.step(batch)
    assert trainer.state.step == 0
    assert all(torch.equal(before[name], value) for name, value in trainer.method.state_dict().items())
    written = json.loads((job.run_dir / ".nonfinite.json").read_text())
    assert sorted(written["detection_ids"]) == sorted(trainer.samples.detection_id[:16].flatten().tolist())
    assert written["step"] == 1
    assert all(str(number) in str(caught.value) for number in written["detection_ids"][:4])
    trainer.cache.close()


def test_accumulation_recomputing_and_compiling_train(pair_store):
    plain = loop.run_training(job_of(pair_store, "plain", train__epochs=1), Place())
    again = loop.run_training(job_of(pair_store, "again", train__epochs=1, train__recompute=True), Place())
    parts = loop.run_training(job_of(pair_store, "parts", train__epochs=1, train__accumulate=2), Place())
    assert plain.step == again.step == parts.step == 6
    # recomputed activations are the same, up to a batch normalisation's running mean
    assert again.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-5)
    assert parts.history[0]["loss"] != plain.history[0]["loss"]
    first, second = weights(pair_store, "plain"), weights(pair_store, "again")
    trained = [key for key in first if "running" not in key and "num_batches" not in key]
    for key in trained:
        torch.testing.assert_close(first[key], second[key], atol=1e-4, rtol=1e-3)


def test_compiling_concerns_the_backbone_and_keeps_its_names(pair_store, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(type(self).__name__))
    loop.run_training(job_of(pair_store, "c", train__epochs=1, train__compile=True), Place())
    assert compiled == ["Backbone"]
    assert set(weights(pair_store, "c")) == set(
        loop.Trainer(job_of(pair_store, "d"), Place(), None).method.backbone.net.state_dict()
    )


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

"""ZeRO trains as DistributedDataParallel does, goes on where it stopped, and refuses what it cannot do."""

import importlib.util

import pytest
import torch
import torch.multiprocessing as mp
from learning_store import tiny_config
from learning_strategy import Run, strategy_config, strategy_worker

from wildray.errors import ConfigError
from wildray.learning.job import Place
from wildray.learning.strategy import check_strategy

STRATEGIES = ("zero1", "zero2", "zero3")
CASES = ("simclr", "dino", "convolutional")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is an extra")


def case_config(strategy: str, case: str):
    if case == "convolutional":
        return strategy_config(strategy, "simclr", backbone__name="test_resnet")
    return strategy_config(strategy, case)


def train_everywhere(folder: str, jobs) -> dict:
    mp.spawn(strategy_worker, args=(2, folder, jobs), nprocs=2)
    return torch.load(f"{folder}/rank0.pt", weights_only=True)


def far(first: dict, second: dict) -> float:
    """Distance of two sets of weights over the length of the second."""
    assert first.keys() == second.keys()
    assert first
    gap = torch.cat([(first[key].double() - second[key].double()).flatten() for key in first])
    return float(gap.norm() / torch.cat([value.double().flatten() for value in second.values()]).norm())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    jobs = [(f"{strategy} {case}", case_config(strategy, case)) for case in CASES for strategy in ("ddp", *STRATEGIES)]
    jobs += [(f"{strategy} poisoned", strategy_config(strategy, "simclr")) for strategy in ("ddp", *STRATEGIES)]
    jobs += [
        (f"{strategy} parts", strategy_config(strategy, "simclr", train__accumulate=2)) for strategy in ("ddp", "zero2")
    ]
    return train_everywhere(str(tmp_path_factory.mktemp("strategies")), jobs)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_deepspeed
class TestZero:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_losses_norms_and_weights_are_those_of_ddp(self, trained, strategy, case):
        zero, ddp = trained[f"{strategy} {case}"], trained[f"ddp {case}"]
        assert zero["losses"] == pytest.approx(ddp["losses"], rel=1e-4)
        assert zero["norms"] == pytest.approx(ddp["norms"], rel=1e-3)
        assert far(zero["weights"], ddp["weights"]) < 1e-3

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("strategy", ["ddp", *STRATEGIES])
    def test_stopped_and_gone_on_with_equals_uninterrupted(self, trained, strategy, case):
        result = trained[f"{strategy} {case}"]
        assert result["resumed_losses"] == result["losses"][2:]
        assert all(torch.equal(result["weights"][key], value) for key, value in result["resumed"].items())
        assert result["resumed"]

    @pytest.mark.parametrize("strategy", ["ddp", *STRATEGIES])
    def test_a_gradient_that_is_not_finite_changes_no_weight(self, trained, strategy):
        result = trained[f"{strategy} poisoned"]
        assert not abs(result["norm"]) < float("inf")
        statistics = ("running_mean", "running_var", "num_batches_tracked")  # the forward pass has changed them
        learned = {key: value for key, value in result["before"].items() if not key.endswith(statistics)}
        assert learned
        assert all(torch.equal(result["weights"][key], value) for key, value in learned.items())

    def test_parts_add_up_alike(self, trained):
        zero, ddp = trained["zero2 parts"], trained["ddp parts"]
        assert zero["losses"] == pytest.approx(ddp["losses"], rel=1e-4)
        assert far(zero["weights"], ddp["weights"]) < 1e-3
        assert ddp["losses"] != trained["ddp simclr"]["losses"]


def test_parts_of_a_batch_give_the_mean_of_their_gradients():
    config = strategy_config("ddp", "simclr", train__accumulate=2, train__clip_norm=1e9)
    run = Run(config, Place())
    run.method.eval()  # no statistics that differ between the ways of computing it
    from learning_strategy import random_batch

    batch = random_batch(len(run.method.views.views), 0, rank=0, num_workers=1)
    parts = batch.split(2)
    assert [part.num_samples for part in parts] == [4, 4]
    assert torch.equal(torch.cat([part.facts.detection_id for part in parts], 1), batch.facts.detection_id)
    for number, part in enumerate(parts):
        run.strategy.backward(part, num_parts=2, last=number == 1)
    got = {name: p.grad.clone() for name, p in run.method.named_parameters() if p.grad is not None}
    run.optimizer.zero_grad()
    (sum(run.method(part) for part in parts) / 2).backward()
    expected = {name: p.grad for name, p in run.method.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4)


def test_gradients_are_clipped_to_the_norm():
    run = Run(strategy_config("ddp", "simclr", train__clip_norm=0.5), Place())
    seen = {}
    step = run.optimizer.step

    def watched():
        gradients = [p.grad.flatten() for g in run.optimizer.param_groups for p in g["params"] if p.grad is not None]
        seen["norm"] = float(torch.cat(gradients).norm())
        return step()

    run.optimizer.step = watched
    run.train(1)
    assert run.norms[0] > 1
    assert seen["norm"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"scale__min_workers": 1}, r"scale\.min_workers 1: a state that is shared out among 2"),
        ({"train__recipe": "stock"}, "whose LARS needs whole layers"),
        ({"train__compile": True}, "take --train.compile false"),
    ],
)
@needs_deepspeed
def test_what_does_not_go_with_zero_is_refused(overrides, message):
    check_strategy(tiny_config(workers=2, scale__strategy="zero2"))
    with pytest.raises(ConfigError, match=message):
        check_strategy(tiny_config(workers=2, scale__strategy="zero2", **overrides))
    check_strategy(tiny_config(workers=2, **overrides))


def test_without_deepspeed_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'wildray\[deepspeed\]', or take ddp"):
        check_strategy(tiny_config(workers=2, scale__strategy="zero3"))
    check_strategy(tiny_config(workers=2))

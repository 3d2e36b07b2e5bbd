"""Two gloo workers train as one process does on the joined batch."""

import pytest
import torch
import torch.multiprocessing as mp
from learning_ddp import CASES, make_case, train_case, worker

from wildray.learning.batchnorm import SharedBatchNorm, share_batchnorm
from wildray.learning.job import make_method


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ddp"))
    mp.spawn(worker, args=(2, folder), nprocs=2)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in range(2)]


def of_kind(result, kind: str):
    return {key: value.double() for key, value in result.items() if key.startswith(kind) and value.is_floating_point()}


def assert_near(got, expected, *, within: float, floor: float) -> None:
    """Every tensor within a share of its own norm, or of a share ``floor`` of the norm of all together."""
    assert got.keys() == expected.keys()
    overall = torch.cat([value.flatten() for value in expected.values()]).norm()
    for key, value in expected.items():
        scale = max(float(value.norm()), floor * float(overall))
        assert float((got[key] - value).norm()) <= within * scale, key


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_every_gradient_equal_the_single_process(case, two_workers):
    single = train_case(case, rank=0, num_workers=1)
    trained = {f"grad.{name}" for name, parameter in make_case(*case).named_parameters() if parameter.requires_grad}
    assert set(of_kind(single, "grad")) == trained
    for result in two_workers:
        for kind, within, floor in (
            ("loss", 1e-4, 0.0),
            # a bias before a normalisation has a gradient of nothing but rounding
            ("grad", 1e-4, 1e-4),
            ("weight", 1e-4, 1e-4),
        ):
            assert_near(of_kind(result[case], kind), of_kind(single, kind), within=within, floor=floor)
        for key, value in single.items():
            if not value.is_floating_point():
                assert torch.equal(result[case][key], value), key


@pytest.mark.parametrize("case", CASES, ids=str)
def test_workers_end_with_equal_weights(case, two_workers):
    first, second = (result[case] for result in two_workers)
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_shared_batchnorm_takes_every_layers_place_and_keys(name):
    from wildray.learning.backbone import new_backbone

    network = new_backbone(name, 32)
    keys = list(network.net.state_dict())
    images = torch.rand(2, 3, 32, 32)
    network.eval()
    expected = network(images)
    share_batchnorm(network, num_workers=2)
    network.eval()
    assert list(network.net.state_dict()) == keys
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert sum(isinstance(module, SharedBatchNorm) for module in network.modules()) >= 20
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-5)


def test_one_worker_keeps_its_layers():
    from wildray.config import Config

    method = make_method(Config.load(overrides={"backbone.name": "resnet18", "backbone.image_size": 32}))
    assert share_batchnorm(method, num_workers=1) is method
    assert not any(isinstance(module, SharedBatchNorm) for module in method.modules())

import math

import pytest
import torch

from wildray.learning.backbone import new_backbone
from wildray.learning.monitor import collapse_warning, effective_rank, embed_images, embedding_std, spread


def test_rank_of_known_vectors():
    assert abs(effective_rank(torch.eye(5)) - 5) < 1e-6
    assert abs(effective_rank(torch.ones(9, 5)) - 1) < 1e-6
    # singular values sqrt(3) and 1: shares p, q
    vectors = torch.tensor([[1.0, 0], [2, 0], [1, 0], [0, 3]])
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    assert abs(effective_rank(vectors) - math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))) < 1e-6


def test_rank_and_std_do_not_see_length_or_rotation():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 6, generator=generator)
    turned = vectors @ torch.linalg.qr(torch.randn(6, 6, generator=generator))[0] * 7
    for measure in (effective_rank, embedding_std):
        assert abs(measure(vectors) - measure(turned)) < 1e-5


def test_std_is_one_without_a_mean_and_zero_when_all_are_alike():
    assert abs(embedding_std(torch.cat([torch.eye(4), -torch.eye(4)])) - 1) < 1e-6
    assert embedding_std(torch.ones(4, 3)) < 1e-6


def test_a_collapse_is_said_and_a_fresh_network_is_none():
    backbone = new_backbone("resnet18", 32)
    images = torch.randint(0, 256, (64, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert collapse_warning({"embedding_rank": 20.0, "embedding_std": 0.3}) is None
    warning = collapse_warning({"embedding_rank": 1.2, "embedding_std": 0.3})
    assert warning is not None
    assert "COLLAPSED" in warning
    assert "1.20" in warning
    with torch.no_grad():
        backbone.net.layer4[1].bn2.weight.zero_()
        backbone.net.layer4[1].bn2.bias.fill_(1.0)
        backbone.net.layer4[0].bn2.weight.zero_()
        backbone.net.layer4[0].downsample[1].weight.zero_()
    assert collapse_warning(spread(backbone, images)) is not None


def test_measuring_leaves_the_network_as_it_was():
    backbone = new_backbone("resnet18", 32).train()
    before = backbone.digest()
    images = torch.randint(0, 256, (5, 3, 40, 40), dtype=torch.uint8)
    embedded = embed_images(backbone, images, batch_size=2)
    assert embedded.shape == (5, 512)
    assert backbone.training
    assert backbone.digest() == before
    torch.testing.assert_close(embedded, embed_images(backbone, images, batch_size=5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_untrained_networks_are_not_called_collapsed(name):
    images = torch.randint(0, 256, (64, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:32] //= 3
    assert collapse_warning(spread(new_backbone(name, 32), images)) is None

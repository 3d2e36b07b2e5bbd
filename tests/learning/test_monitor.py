import dataclasses
import math

import numpy as np
import pytest
import torch
from learning_store import PAIRS_DIGEST

from wildray.errors import StageError
from wildray.learning.backbone import new_backbone
from wildray.learning.methods import METHODS
from wildray.learning.monitor import (
    HINTS,
    alignment,
    collapse_warning,
    effective_rank,
    embed_images,
    embedding_std,
    health,
    monitored_crops,
    uniformity,
)
from wildray.learning.pairs import read_pairs


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
    assert collapse_warning(health(backbone, images)) is not None


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
    assert collapse_warning(health(new_backbone(name, 32), images)) is None


def test_alignment_and_uniformity_equal_plain_loops():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 7, 5, generator=generator).double()
    units = [[vector / vector.norm() for vector in group] for group in (first, second)]
    gaps = [float((a - b).norm()) ** 2 for a, b in zip(*units, strict=True)]
    assert alignment(first, second) == pytest.approx(sum(gaps) / 7)
    potentials = [math.exp(-2 * float((units[0][i] - units[0][j]).norm()) ** 2) for i in range(7) for j in range(i)]
    assert uniformity(first) == pytest.approx(math.log(sum(potentials) / len(potentials)))
    assert alignment(first, 3 * first) == pytest.approx(0)
    assert uniformity(torch.ones(4, 5)) == pytest.approx(0)
    # two opposite directions, half of the pairs of which are alike
    opposite = torch.tensor([[1.0, 0], [-1, 0]])
    assert uniformity(opposite) == pytest.approx(-8)


def test_the_pairs_that_are_measured_are_positives_and_always_the_same(pair_store):
    samples = read_pairs(pair_store, PAIRS_DIGEST)
    crops = monitored_crops(samples, seed=3)
    assert np.array_equal(crops, monitored_crops(samples, seed=3))
    assert not np.array_equal(crops, monitored_crops(samples, seed=4))
    first, second = np.split(crops, 2)
    pairs = {tuple(pair) for pair in samples.crop.tolist()}
    assert {(int(a), int(b)) for a, b in zip(first, second, strict=True)} == pairs


def test_where_nobody_has_two_images_rank_and_spread_are_measured_all_the_same(pair_store):
    samples = read_pairs(pair_store, PAIRS_DIGEST)
    labels = np.arange(96, dtype=np.int64)
    single = dataclasses.replace(samples, crop=samples.crop[:, [0, 0]], labels=labels)
    crops = monitored_crops(single, seed=0)
    assert np.array_equal(*np.split(crops, 2))
    images = torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    measured = health(new_backbone("resnet18", 32), torch.cat([images, images]))
    assert set(measured) == {"embedding_rank", "embedding_std", "uniformity"}


def test_weights_that_have_grown_out_of_bounds_are_said(pair_store):
    backbone = new_backbone("resnet18", 32)
    with torch.no_grad():
        next(backbone.parameters()).fill_(float("nan"))
    with pytest.raises(StageError, match="not finite, though the loss still was"):
        health(backbone, torch.zeros(4, 3, 40, 40, dtype=torch.uint8))


def test_single_images_are_paired_with_another_of_the_individual(pair_store):
    samples = read_pairs(pair_store, PAIRS_DIGEST)
    labels = np.array([0] * 40 + [1] * 55 + [2]).astype(np.int64)
    shuffled = np.random.default_rng(0).permutation(labels)
    single = dataclasses.replace(samples, crop=samples.crop[:, [0, 0]], labels=shuffled)
    first, second = np.split(monitored_crops(single, seed=0), 2)
    label_of = dict(zip(single.crop[:, 0].tolist(), shuffled.tolist(), strict=True))
    assert len(first) == 95  # the third individual has one image
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        assert one != other
        assert label_of[one] == label_of[other]


def test_every_method_has_a_hint_that_names_a_setting():
    assert HINTS.keys() == METHODS.keys()
    warning = collapse_warning({"embedding_rank": 1.0, "embedding_std": 0.0}, method="byol")
    assert warning is not None
    assert "With byol, raise method.momentum" in warning

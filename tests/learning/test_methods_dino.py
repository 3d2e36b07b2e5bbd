import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from learning_ddp import make_case, part_of_batch, tiny_backbone, tiny_transformer
from lightly.loss import KoLeoLoss
from torch import nn

from wildray.config import Config, TrainConfig
from wildray.errors import ConfigError
from wildray.learning.backbone import new_backbone
from wildray.learning.checkpoint import State
from wildray.learning.heads import Teacher
from wildray.learning.job import Place
from wildray.learning.methods import METHODS
from wildray.learning.methods.dino import prototypes_stand_still, teacher_temperature
from wildray.learning.methods.dinov2 import SharedCenter, koleo
from wildray.learning.multicrop import local_size_px, multicrop_views
from wildray.learning.optim import make_optimizer
from wildray.learning.patch_tokens import block_masks, vectors_and_patches
from wildray.learning.strategy import Replicated

SIDE = 4
"""Patches along a side of the tiny transformer's images."""


def dino_reference(teacher, student, *, center, teacher_temp: float, student_temp: float) -> float:
    """Algorithm 1 of arXiv 2104.14294 with several views: every teacher view against every other student view."""
    total, terms = 0.0, 0
    for t, teacher_out in enumerate(teacher):
        for s, student_out in enumerate(student):
            if s == t:
                continue
            terms += 1
            target = F.softmax((teacher_out - center) / teacher_temp, dim=1)
            total += float(-(target * F.log_softmax(student_out / student_temp, dim=1)).sum(dim=1).mean())
    return total / terms


def ibot_reference(teacher, student, masks, *, center, teacher_temp: float, student_temp: float) -> float:
    """iBOT (arXiv 2111.07832): the mean over an image's hidden patches, then over all images; (images, N, K)."""
    total = 0.0
    for i, mask in enumerate(masks):
        hidden = [n for n in range(len(mask)) if mask[n]]
        for n in hidden:
            target = F.softmax((teacher[i, n] - center) / teacher_temp, dim=0)
            total -= float((target * F.log_softmax(student[i, n] / student_temp, dim=0)).sum()) / len(hidden)
    return total / len(masks)


def koleo_reference(vectors, tracklets) -> float:
    """KoLeo of arXiv 1806.03198 on unit vectors, pair by pair; vectors of one tracklet are no neighbours."""
    units = [vector / vector.norm() for vector in vectors]
    losses = []
    for i, unit in enumerate(units):
        distances = [float((unit - other).norm()) for j, other in enumerate(units) if tracklets[j] != tracklets[i]]
        if distances:
            losses.append(-float(torch.tensor(min(distances)).log()))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize(("views", "num_global"), [("self", 2), ("temporal", 2), ("combined", 4)])
def test_dino_equals_the_formula_and_moves_its_centre(views, num_global):
    method = make_case("dino", views, norm=False)
    method.loss.center.normal_(generator=torch.Generator().manual_seed(3))
    center = method.loss.center.clone()[0]
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    assert len(batch.views) == num_global + 2
    with torch.no_grad():
        student = [method.head(method.backbone(view)) for view in batch.views]
        loss = float(method(batch))
    teacher = student[:num_global]  # teacher and student are equal before the first step
    expected = dino_reference(teacher, student, center=center, teacher_temp=0.04, student_temp=0.1)
    assert abs(loss - expected) < 1e-5 * max(1, abs(expected))
    moved = 0.9 * center + 0.1 * torch.stack(teacher).mean(dim=(0, 1))
    torch.testing.assert_close(method.loss.center[0, 0], moved[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("views", "num_global"), [("temporal", 2), ("combined", 4)])
def test_dinov2_equals_the_formulas_and_moves_its_centres(views, num_global):
    method = make_case("dinov2", views, norm=False)
    generator = torch.Generator().manual_seed(3)
    method.vector_loss.center.normal_(generator=generator)
    method.patch_loss.center.value.normal_(generator=generator)
    nn.init.normal_(method.mask_token)
    centers = method.vector_loss.center.clone()[0, 0], method.patch_loss.center.value.clone()
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    masks = block_masks(batch.seeds, num_views=num_global, side=SIDE).flatten(2)
    assert masks.any(dim=2).sum() >= 3
    assert not masks.any(dim=2).all()
    images = batch.views[:num_global]
    with torch.no_grad():
        loss = float(method(batch))
        whole = [vectors_and_patches(method.backbone, view) for view in images]
        seen = [
            vectors_and_patches(method.backbone, view, mask_bn=mask, mask_token_d=method.mask_token)
            for view, mask in zip(images, masks, strict=True)
        ]
        local = [method.backbone(view) for view in batch.views[num_global:]]
        head, temperatures = method.head, {"teacher_temp": 0.04, "student_temp": 0.1}
        teacher = [head(vectors) for vectors, _ in whole]
        student = [head(vectors) for vectors in [*(vectors for vectors, _ in seen), *local]]
        said, guessed = (torch.cat([head(patches) for _, patches in outputs]) for outputs in (whole, seen))
    expected = dino_reference(teacher, student, center=centers[0], **temperatures)
    expected += ibot_reference(said, guessed, masks.flatten(0, 1), center=centers[1], **temperatures)
    expected += 0.1 * sum(koleo_reference(vectors, batch.tracklet_id.tolist()) for vectors, _ in seen)
    assert abs(loss - expected) < 1e-5 * max(1, abs(expected))
    moved = 0.9 * centers[1] + 0.1 * said[masks.flatten(0, 1)].mean(dim=0)
    torch.testing.assert_close(method.patch_loss.center.value, moved, atol=1e-5, rtol=1e-4)


def test_koleo_is_lightlys_where_every_sample_is_another_animal():
    vectors = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(koleo(vectors, torch.arange(9)), KoLeoLoss()(vectors), atol=1e-6, rtol=1e-6)
    tracklets = torch.tensor([0, 0, 1, 1, 2, 3, 0, 4, 5])
    assert abs(float(koleo(vectors, tracklets)) - koleo_reference(vectors, tracklets.tolist())) < 1e-5
    alone = vectors.clone().requires_grad_()
    koleo(alone, torch.zeros(9, dtype=torch.int64)).backward()
    assert torch.equal(alone.grad, torch.zeros_like(alone))


def test_a_centre_stays_where_nothing_is_hidden():
    center = SharedCenter(3)
    center.update(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    torch.testing.assert_close(center.value, torch.full((3,), 0.2))
    center.update(torch.empty(0, 3))
    torch.testing.assert_close(center.value, torch.full((3,), 0.2))


def test_masks_depend_on_each_samples_seed_alone():
    seeds = torch.arange(100, 140)
    random.seed(4)
    expected = random.random()
    random.seed(4)
    masks = block_masks(seeds, num_views=2, side=6)
    assert random.random() == expected
    for part in (slice(0, 20), slice(20, 40)):  # as two workers would
        assert torch.equal(block_masks(seeds[part], num_views=2, side=6), masks[:, part])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks, block_masks(seeds + 1000, num_views=2, side=6))
    hidden = masks.flatten(2).sum(dim=2)
    assert 0.3 < (hidden > 0).float().mean() < 0.7
    assert hidden.max() <= 18
    assert hidden[hidden > 0].min() >= 1
    assert block_masks(torch.arange(8), num_views=1, side=2).shape == (1, 8, 2, 2)


def test_a_batchs_seeds_come_from_seed_epoch_and_index():
    method = make_case("dinov2", "self", norm=False)
    whole = part_of_batch(method, 0, rank=0, num_workers=1).seeds
    assert torch.equal(torch.cat([part_of_batch(method, 0, rank=r, num_workers=2).seeds for r in (0, 1)]), whole)
    assert len(whole.unique()) == len(whole)


def test_hidden_patches_are_not_seen_and_the_token_is():
    backbone = tiny_transformer().eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, SIDE * SIDE, dtype=torch.bool)
    mask[0, 5] = True  # row 1, column 1: pixels 8 to 16 of both axes
    token = torch.randn(backbone.dim)
    other = images.clone()
    other[0, :, 8:16, 8:16] = 0.9
    with torch.no_grad():
        plain = vectors_and_patches(backbone, images)
        hidden, same, another = (
            vectors_and_patches(backbone, pixels, mask_bn=mask, mask_token_d=of)
            for pixels, of in ((images, token), (other, token), (images, 2 * token))
        )
    torch.testing.assert_close(plain[0], backbone(images))
    assert plain[1].shape == (2, SIDE * SIDE, backbone.dim)
    torch.testing.assert_close(hidden, same)
    for before, after in ((plain, hidden), (hidden, another)):
        assert (before[0][0] - after[0][0]).abs().max() > 1e-5
        torch.testing.assert_close(before[0][1], after[0][1])


def test_dinov2_is_for_transformers():
    with pytest.raises(ConfigError, match=r"only vision transformers do: give --backbone\.name"):
        METHODS["dinov2"](tiny_backbone(norm=True), Config.load(overrides={"train.method": "dinov2"}))


def test_the_teacher_follows_by_the_schedule_and_takes_no_gradient():
    method = make_case("dino", "self", norm=False, momentum=0.9)
    name, weight = next(iter(method.backbone.named_parameters()))
    teacher = dict(method.teacher.network[0].named_parameters())[name]
    before = teacher.clone()
    with torch.no_grad():
        weight += 1.0
    method.after_step(0.5)  # half way the momentum has risen half of the way to 1
    torch.testing.assert_close(teacher, before + (1 - 0.95), atol=1e-6, rtol=0)
    method.after_step(1.0)
    torch.testing.assert_close(teacher, before + (1 - 0.95), atol=1e-6, rtol=0)
    method(part_of_batch(method, 0, rank=0, num_workers=1)).backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


@pytest.mark.parametrize(("num_steps", "kept"), [(100, 0.9), (200, 0.95), (10_000, 0.996)])
def test_a_teachers_memory_is_at_most_a_tenth_of_a_run(num_steps, kept):
    network = nn.Linear(1, 1, bias=False)
    teacher = Teacher(network, momentum=0.996, memory=0.1)
    nn.init.zeros_(teacher.network.weight)
    nn.init.ones_(network.weight)
    teacher.follow(network, 1 / num_steps)
    assert abs(float(teacher.network.weight) - (1 - kept)) < 1e-4
    again = Teacher(network, momentum=0.996, memory=0.1)
    again.load_state_dict(teacher.state_dict())  # as a resumed run does
    for each in (teacher, again):
        each.follow(network, 2 / num_steps)
    assert torch.equal(teacher.network.weight, again.network.weight)


def test_dino_prototypes_stand_still_for_the_first_epoch():
    for name in ("dino", "dinov2"):
        method = make_case(name, "self", norm=False)
        prototypes = method.head.last_layer.weight_v
        for progress, moves in ((0.0, False), (0.09, False), (0.11, True)):  # a tenth of a run of one epoch
            method.teacher.progress.fill_(progress)
            method.zero_grad(set_to_none=True)
            method(part_of_batch(method, 0, rank=0, num_workers=1)).backward()
            assert bool(prototypes.grad.abs().sum() > 0) is moves
    long = Config.load(overrides={"train.epochs": 50})
    for progress, still in ((0.0199, True), (0.0201, False)):
        method.teacher.progress.fill_(progress)
        assert prototypes_stand_still(method.teacher, long) is still


def test_held_prototypes_take_ordinary_steps_once_they_are_let_go():
    for name in ("dino", "dinov2"):
        method = make_case(name, "self", norm=False).float()
        optimizer = make_optimizer(method, method.recipe, TrainConfig(learning_rate=1e-3, weight_decay=0.0))
        strategy = Replicated(method, optimizer, place=Place(), bf16=False, state=State())
        prototypes = method.head.last_layer.weight_v
        batch = part_of_batch(method, 0, rank=0, num_workers=1)
        batch = replace(batch, views=[view.float() for view in batch.views])
        for step in range(60):
            method.teacher.progress.fill_(0.0 if step < 50 else 0.5)
            before = prototypes.detach().clone()
            strategy.backward(batch, num_parts=1, last=True)
            strategy.step(clip_norm=3.0)
            moved = float((prototypes.detach() - before).abs().max())
            assert (moved == 0) if step < 50 else (0 < moved < 1.5e-3)


def test_the_teachers_temperature_rises_over_as_many_steps_as_published():
    method = make_case("dino", "self", norm=False)
    for num_steps, temperature in ((0, 0.04), (18_750, 0.055), (37_500, 0.07), (100_000, 0.07)):
        method.teacher.num_steps.fill_(num_steps)
        assert abs(teacher_temperature(method.teacher) - temperature) < 1e-9
    again = make_case("dino", "self", norm=False)
    again.load_state_dict(method.state_dict())  # as a resumed run does
    assert teacher_temperature(again.teacher) == teacher_temperature(method.teacher)
    method.teacher.num_steps.fill_(0)
    method.after_step(0.1)
    assert int(method.teacher.num_steps) == 1


@pytest.mark.parametrize(
    ("kind", "sources", "num_global"),
    [
        ("temporal", [0, 1] + [0, 1] * 3, 2),
        ("self", [0] * 8, 2),
        ("combined", [0, 1] * 2 + [0, 1, 0, 1, 0, 1], 4),
    ],
)
def test_local_views_are_of_the_global_ones_crops_in_turn(kind, sources, num_global):
    config = Config.load(overrides={"train.views": kind, "backbone.image_size": 224})
    views, found = multicrop_views(config, tiny_backbone(norm=False), num_local=6)
    assert found == num_global
    assert [view.source for view in views.views] == sources
    assert [view.size_px for view in views.views] == [224] * num_global + [96] * 6
    assert {(view.min_area, view.max_area) for view in views.views[num_global:]} == {(0.05, 0.4)}


@pytest.mark.parametrize(
    ("name", "image_size", "local"),
    [
        ("vit_tiny_patch16_224", 96, 48),
        ("vit_tiny_patch14_224", 98, 42),
        ("vit_tiny_patch8_224", 64, 32),
        ("resnet18", 64, 32),
        ("gmlp_ti16_224", 64, 64),
    ],
)
def test_local_views_have_whole_patches_and_a_size_that_the_network_takes(name, image_size, local):
    assert local_size_px(image_size, new_backbone(name, image_size)) == local

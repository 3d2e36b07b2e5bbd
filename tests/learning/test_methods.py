import math

import pytest
import torch
import torch.nn.functional as F
from learning_ddp import make_case, part_of_batch

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.methods import METHODS, method_class
from wildray.learning.methods.dino import dino_views


def nt_xent_reference(z0, z1, temperature: float) -> float:
    """Equation 1 of arXiv 2002.05709, term by term."""
    z = [F.normalize(vector, dim=0) for vector in [*z0, *z1]]
    num = len(z0)
    total = 0.0
    for i in range(2 * num):
        positive = i + num if i < num else i - num
        logits = [float(z[i] @ z[k]) / temperature for k in range(2 * num)]
        total -= logits[positive] - math.log(sum(math.exp(logits[k]) for k in range(2 * num) if k != i))
    return total / (2 * num)


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


def test_simclr_equals_the_formula():
    method = make_case("simclr", "temporal", norm=True)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    with torch.no_grad():
        z = method.head(method.backbone(torch.cat(batch.views)))
        loss = float(method(batch))
    num = batch.num_samples
    assert abs(loss - nt_xent_reference(z[:num], z[num:], 0.2)) < 1e-5


def test_simclr_falls_when_pairs_agree_and_does_not_see_the_order_of_samples():
    method = make_case("simclr", "temporal", norm=False)
    z = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    other = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    assert float(method.loss(z, z)) < float(method.loss(z, other))
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(method.loss(z[order], other[order]), method.loss(z, other))
    collapsed = torch.ones(6, 12)
    assert abs(float(method.loss(collapsed, collapsed)) - math.log(2 * 6 - 1)) < 1e-5


def test_dino_equals_the_formula_and_moves_its_centre():
    method = make_case("dino", "temporal", norm=False)
    method.loss.center.normal_(generator=torch.Generator().manual_seed(3))
    center = method.loss.center.clone()[0]
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    assert len(batch.views) == 4
    with torch.no_grad():
        student = [method.head(method.backbone(view)) for view in batch.views]
        loss = float(method(batch))
    expected = dino_reference(student[:2], student, center=center, teacher_temp=0.04, student_temp=0.1)
    assert abs(loss - expected) < 1e-4 * abs(expected)  # teacher and student are equal before the first step
    moved = 0.9 * center + 0.1 * torch.stack(student[:2]).mean(dim=(0, 1))
    torch.testing.assert_close(method.loss.center[0, 0], moved[0], atol=1e-5, rtol=1e-4)


def test_the_teacher_follows_by_the_schedule_and_takes_no_gradient():
    method = make_case("dino", "self", norm=False)
    method.teacher.momentum = 0.9
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


def test_dino_prototypes_stand_still_for_the_first_epoch():
    method = make_case("dino", "self", norm=False)
    prototypes = method.head.last_layer.weight_v
    for progress, moves in ((0.0, False), (0.99, False), (1.0, True)):  # of one epoch
        method.after_step(progress)
        method.zero_grad(set_to_none=True)
        method(part_of_batch(method, 0, rank=0, num_workers=1)).backward()
        assert bool(prototypes.grad.abs().sum() > 0) is moves


def test_dino_takes_crops_of_both_frames_for_temporal_and_of_one_for_self():
    for kind, sources in (("temporal", [0, 1, 0, 1, 0, 1, 0, 1]), ("self", [0] * 8)):
        views = dino_views(Config.load(overrides={"train.views": kind, "backbone.image_size": 224})).views
        assert [view.source for view in views] == sources
        assert [view.size_px for view in views] == [224] * 2 + [96] * 6


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns_to_overfit_one_batch(name):
    method = make_case(name, "temporal", norm=True)
    method.after_step(1.0)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        loss = method(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_an_unknown_method_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'simclr'"):
        method_class("simclr2")

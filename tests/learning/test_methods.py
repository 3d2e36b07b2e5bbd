import logging
import math
from dataclasses import replace

import contrast_reference as reference
import pytest
import torch
import torch.nn.functional as F
from learning_ddp import NUM_IDENTITIES, SAME_CAMERA_S, make_case, part_of_batch, tiny_backbone

from wildray.config import Config, MethodConfig
from wildray.errors import ConfigError
from wildray.learning.ingest import warn_of_unread
from wildray.learning.methods import METHODS, method_class

FALLS_TO = {"dino": 0.97, "dinov2": 0.97}
"""Share of the first loss; these two losses hold the entropy of the teacher, which no student gets under."""
RULES = {"same_frame_negatives": True, "same_camera_s": SAME_CAMERA_S}


def by_sample(z_vb_p: torch.Tensor, num_views: int) -> torch.Tensor:
    """Rows in the order of (view, sample) put into that of (sample, view)."""
    return z_vb_p.unflatten(0, (num_views, -1)).transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize("kind", ["self", "temporal", "combined"])
def test_simclr_equals_the_formula(kind):
    method = make_case("simclr", kind, norm=True)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    with torch.no_grad():
        z = by_sample(method.head(method.backbone(torch.cat(batch.views))), len(batch.views))
        loss = float(method(batch))
    assert abs(loss - reference.nt_xent(z, reference.rows_of(batch), temperature=0.2, **RULES)) < 1e-5


@pytest.mark.parametrize(("kind", "queue_size"), [("temporal", 40), ("combined", 40), ("temporal", 0)])
def test_moco_equals_the_formula_with_the_keys_of_former_steps(kind, queue_size):
    method = make_case("moco", kind, norm=True, queue_size=queue_size)
    queue = []
    for step in range(3):
        batch = part_of_batch(method, step, rank=0, num_workers=1)
        rows, images, num_views = reference.rows_of(batch), torch.cat(batch.views), len(batch.views)
        with torch.no_grad():
            q = by_sample(method.predictor(method.head(method.backbone(images))), num_views)
            k = by_sample(method.teacher(images), num_views)
            loss = float(method(batch))
        assert abs(loss - reference.moco(q, k, rows, queue, temperature=0.2, **RULES)) < 1e-5
        queue = (queue + list(zip(k, rows, strict=True)))[-queue_size:] if queue_size else []


def test_moco_teacher_follows_and_evaluation_leaves_the_queue():
    method = make_case("moco", "self", norm=False, momentum=0.9)
    name, weight = next(iter(method.head.named_parameters()))
    before = dict(method.teacher.network[1].named_parameters())[name].clone()
    with torch.no_grad():
        weight += 1.0
    method.after_step(0.0)
    torch.testing.assert_close(dict(method.teacher.network[1].named_parameters())[name], before + 0.1)
    method.eval()
    method(part_of_batch(method, 0, rank=0, num_workers=1))
    assert int(method.queue.pushed) == 0


def test_moco_queue_does_not_hold_the_keys_of_the_same_tracklets_against_them():
    """A data set of one batch, seen again and again: the queue adds nothing to the loss of the batch alone."""
    with_queue, without = (
        make_case("moco", "temporal", norm=False, queue_size=size, same_frame_negatives=False) for size in (40, 0)
    )
    batch = part_of_batch(without, 0, rank=0, num_workers=1)
    one_tracklet = replace(batch, tracklet_id=torch.zeros_like(batch.tracklet_id))
    for _ in range(2):
        torch.testing.assert_close(with_queue(one_tracklet), without(one_tracklet))
    assert int(with_queue.queue.pushed) == 48
    assert float(with_queue(batch)) > float(without(batch)) + 0.1


def test_supcon_equals_the_formula():
    """Equation 2 of arXiv 2004.11362."""
    method = make_case("supcon", "temporal", norm=True)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    assert len(batch.views) == 2
    with torch.no_grad():
        z = F.normalize(method.head(method.backbone(torch.cat(batch.views))), dim=1)
        loss = float(method(batch))
    labels = batch.labels.tolist() * 2
    total = 0.0
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        denominator = sum(math.exp(float(z[i] @ z[k]) / 0.1) for k in others)
        positives = [k for k in others if labels[k] == labels[i]]
        total -= sum(float(z[i] @ z[p]) / 0.1 - math.log(denominator) for p in positives) / len(positives)
    assert abs(loss - total / len(z)) < 1e-5


@pytest.mark.parametrize("settings", [{}, {"margin": 10.0, "scale": 8.0}], ids=["default", "set"])
def test_arcface_equals_the_formula(settings):
    """Equation 3 of arXiv 1801.07698."""
    method = make_case("arcface", "temporal", norm=True, **settings)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    margin, scale = math.radians(settings.get("margin", 28.6)), settings.get("scale", 64.0)
    with torch.no_grad():
        cosines = F.normalize(method.backbone(batch.views[0]), dim=1) @ F.normalize(method.loss.W, dim=0)
        loss = float(method(batch))
    total = 0.0
    for line, label in zip(cosines.double().tolist(), batch.labels.tolist(), strict=True):
        logits = [scale * cosine for cosine in line]
        logits[label] = scale * math.cos(math.acos(line[label]) + margin)
        largest = max(logits)
        total += largest + math.log(sum(math.exp(logit - largest) for logit in logits)) - logits[label]
    assert abs(loss - total / batch.num_samples) < 1e-5 * max(1.0, total / batch.num_samples)


@pytest.mark.parametrize("margin", [None, 0.05])
def test_triplet_equals_the_formula(margin):
    """Equation 3 of arXiv 1503.03832 over the semi-hard triplets, with cosine distances."""
    method = make_case("triplet", "temporal", norm=True, margin=margin)
    margin = 0.2 if margin is None else margin
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    with torch.no_grad():
        z = F.normalize(method.backbone(batch.views[0]), dim=1)
        loss = float(method(batch))
    distance, labels, num = (1 - z @ z.T).tolist(), batch.labels.tolist(), batch.num_samples
    terms = [
        distance[a][p] - distance[a][n] + margin
        for a in range(num)
        for p in range(num)
        for n in range(num)
        if a != p and labels[a] == labels[p] != labels[n] and 0 < distance[a][n] - distance[a][p] <= margin
    ]
    assert terms
    assert abs(loss - sum(terms) / len(terms)) < 1e-5


def test_triplet_without_a_triplet_is_zero_with_a_gradient_of_zero():
    method = make_case("triplet", "temporal", norm=False)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    loss = method(replace(batch, labels=torch.arange(batch.num_samples)))
    loss.backward()
    assert loss.item() == 0.0
    assert all(not parameter.grad.any() for parameter in method.parameters())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_supervised_methods_want_identities_and_one_crop(name):
    config = Config.load(overrides={"train.method": name, "train.views": "combined", "backbone.image_size": 32})
    if METHODS[name].supervised:
        with pytest.raises(ConfigError, match=r"got 1 of them, expected at least 2.*train\.labels"):
            METHODS[name](tiny_backbone(norm=False), config, num_identities=1)
        method = METHODS[name](tiny_backbone(norm=False), config, num_identities=NUM_IDENTITIES)
        assert method.views.num_sources == 1
    else:
        assert make_case(name, "combined", norm=False).views.num_sources == 2


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns_to_overfit_one_batch(name):
    method = make_case(name, "temporal", norm=True, queue_size=0)
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
    assert losses[-1] < FALLS_TO.get(name, 0.9) * losses[0]


def test_an_unknown_method_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'simclr'"):
        method_class("simclr2")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_which_settings_it_reads(name):
    """By watching what it asks of them as it is made."""
    asked = set()

    class Watched(MethodConfig):
        def __getattribute__(self, field):
            if field in MethodConfig.model_fields:
                asked.add(field)
            return super().__getattribute__(field)

    case = make_case(name, "self", norm=False)
    asked.clear()
    METHODS[name](case.backbone, case.config.model_copy(update={"method": Watched()}), num_identities=4)
    assert asked == METHODS[name].reads


def test_settings_that_a_method_does_not_read_are_told(caplog):
    config = Config.load(overrides={"train.method": "byol", "method.temperature": 0.1, "method.momentum": 0.9})
    with caplog.at_level(logging.WARNING):
        warn_of_unread(config, METHODS["byol"])
    assert "does not use method.temperature. It uses method.hidden_dim, method.momentum" in caplog.text

"""The methods without negatives: each loss against its formula in plain loops, and what it must not see."""

import math
from itertools import combinations, permutations

import pytest
import torch
from learning_ddp import make_case, part_of_batch

from wildray.config import Config
from wildray.learning.methods.fastsiam import FastSiam
from wildray.learning.methods.lejepa import LAMBDA


def projected(name: str, kind: str):
    """A method, a batch, and the projections of its views, (V, B, P)."""
    method = make_case(name, kind, True)
    batch = part_of_batch(method, 0, rank=0, num_workers=1)
    with torch.no_grad():
        z = method.head(method.backbone(torch.cat(batch.views)))
        return method, batch, z.view(len(batch.views), batch.num_samples, -1), float(method(batch))


def column(z, k: int) -> list[float]:
    return [float(value) for value in z[:, k]]


def mean_and_var(values: list[float], *, unbiased: bool) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - unbiased)


def cosine(a, b) -> float:
    a, b = a.tolist(), b.tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def barlow_reference(za, zb) -> float:
    """Algorithm 1 of arXiv 2103.03230; torch's batch normalisation adds 1e-5 to the variance."""

    def standard(values: list[float]) -> list[float]:
        mean, var = mean_and_var(values, unbiased=False)
        return [(value - mean) / math.sqrt(var + 1e-5) for value in values]

    dims = range(za.shape[1])
    a, b = [standard(column(za, k)) for k in dims], [standard(column(zb, k)) for k in dims]
    total = 0.0
    for i in dims:
        for j in dims:
            c = sum(x * y for x, y in zip(a[i], b[j], strict=True)) / len(za)
            total += (1 - c) ** 2 if i == j else 5e-3 * c**2
    return total


def vicreg_reference(za, zb) -> float:
    """Algorithm 1 of arXiv 2105.04906."""
    num, dims = za.shape
    invariance = sum(float(x) for x in ((za - zb) ** 2).flatten()) / (num * dims)
    variance, covariance = 0.0, 0.0
    for z in (za, zb):
        columns = [column(z, k) for k in range(dims)]
        moments = [mean_and_var(values, unbiased=True) for values in columns]
        variance += sum(max(0.0, 1 - math.sqrt(var + 1e-4)) for _, var in moments) / dims / 2
        for i, j in permutations(range(dims), 2):
            products = [(x - moments[i][0]) * (y - moments[j][0]) for x, y in zip(columns[i], columns[j], strict=True)]
            covariance += (sum(products) / (num - 1)) ** 2 / dims
    return 25 * invariance + 25 * variance + covariance


def epps_pulley_reference(values: list[float]) -> float:
    """N times the integral over [-3, 3] of |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by trapezia of 3 / 16."""
    num, step, total = len(values), 3 / 16, 0.0
    for k in range(-16, 17):
        t = k * step
        real = sum(math.cos(t * value) for value in values) / num
        imaginary = sum(math.sin(t * value) for value in values) / num
        error = (real - math.exp(-t * t / 2)) ** 2 + imaginary**2
        total += error * math.exp(-t * t / 2) * step * (0.5 if abs(k) == 16 else 1.0)
    return num * total


@pytest.mark.parametrize("kind", ["temporal", "combined"])
@pytest.mark.parametrize(("name", "reference"), [("barlow_twins", barlow_reference), ("vicreg", vicreg_reference)])
def test_the_loss_is_the_mean_over_pairs_of_views(name, reference, kind):
    _, batch, z, loss = projected(name, kind)
    assert len(batch.views) == {"temporal": 2, "combined": 4}[kind]
    expected = [reference(za, zb) for za, zb in combinations(z.double(), 2)]
    assert loss == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_barlow_twins_sees_neither_the_scale_nor_the_place_of_a_dimension():
    method, _, z, _ = projected("barlow_twins", "temporal")
    za, zb = 10 * z  # far above the 1e-5 of batch normalisation
    scale, shift = 1 + torch.rand(za.shape[1]), torch.randn(za.shape[1])
    torch.testing.assert_close(method.loss(za * scale + shift, zb), method.loss(za, zb), rtol=1e-4, atol=1e-4)
    order = torch.randperm(za.shape[1])
    torch.testing.assert_close(method.loss(za[:, order], zb[:, order]), method.loss(za, zb), rtol=1e-5, atol=1e-5)
    assert float(method.loss(za, za)) < float(method.loss(za, zb.flip(0)))


def test_vicreg_does_not_see_a_common_shift_and_punishes_collapse():
    method, _, (za, zb), _ = projected("vicreg", "temporal")
    torch.testing.assert_close(method.loss(za + 3.0, zb + 3.0), method.loss(za, zb), rtol=1e-4, atol=1e-4)
    constant = torch.ones_like(za)
    assert float(method.loss(constant, constant)) == pytest.approx(25 * (1 - math.sqrt(1e-4)), abs=1e-4)


@pytest.mark.parametrize("kind", ["temporal", "combined"])
def test_byol_predicts_every_other_views_target(kind):
    method, batch, _, _ = projected("byol", kind)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
        images, num_views = torch.cat(batch.views), len(batch.views)
        predicted = method.predictor(method.head(method.backbone(images))).chunk(num_views)
        target = method.teacher(images).chunk(num_views)
        terms = [
            2 - 2 * cosine(predicted[i][b], target[j][b])
            for i, j in permutations(range(num_views), 2)
            for b in range(batch.num_samples)
        ]
        assert float(method(batch)) == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_byol_teaches_only_the_student_and_does_not_see_the_order_of_views():
    method, batch, _, loss = projected("byol", "temporal")
    method(batch).backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.backbone.parameters())
    batch.views.reverse()
    assert float(method(batch).detach()) == pytest.approx(loss, abs=1e-5)


def test_byols_teacher_moves_by_its_momentum_and_faster_in_short_runs():
    method = make_case("byol", "temporal", True)
    assert (method.teacher.momentum, method.teacher.memory) == (0.996, 0.1)
    weight, teacher = method.head.layers[0].weight, method.teacher.network[1].layers[0].weight
    for progress, moved in ((0.0001, 0.004), (0.0051, 0.05)):  # a step of a ten-thousandth, and of a two-hundredth
        before = teacher.clone()
        with torch.no_grad():
            weight.copy_(teacher + 1.0)
        method.after_step(progress)
        torch.testing.assert_close(teacher, before + moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("self", [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
        ("temporal", [[1, 3], [0, 2], [1, 3], [0, 2]]),
        ("combined", [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
    ],
)
def test_fastsiam_predicts_the_mean_of_its_targets(kind, targets):
    method, batch, z, loss = projected("fastsiam", kind)
    with torch.no_grad():
        predicted = method.predictor(z.flatten(0, 1)).view_as(z)
    terms = [
        -cosine(predicted[i][b], sum(z[j][b] for j in targets[i]) / len(targets[i]))
        for i in range(4)
        for b in range(batch.num_samples)
    ]
    assert loss == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_fastsiams_views_are_of_the_crops_that_the_kind_names():
    for kind, sources in (("self", [0, 0, 0, 0]), ("temporal", [0, 1, 0, 1]), ("combined", [0, 1, 0, 1])):
        method = make_case("fastsiam", kind, False)
        assert [view.source for view in method.views.views] == sources
        assert method.views.num_sources == 1 + max(sources)


def test_fastsiam_takes_no_gradient_through_its_targets():
    method, batch, z, _ = projected("fastsiam", "temporal")
    given = z.clone().requires_grad_()
    method.predictor.requires_grad_(False)
    method.head.forward = lambda _: given.flatten(0, 1)
    method(batch).backward()
    fixed, predicted = z.clone(), z.clone().requires_grad_()
    out = method.predictor(predicted.flatten(0, 1)).view_as(z)
    losses = [
        -torch.cosine_similarity(out[i], fixed[targets].mean(0), dim=1).mean()
        for i, targets in enumerate(method.targets)
    ]
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(given.grad, predicted.grad)


@pytest.mark.parametrize("kind", ["temporal", "combined"])
def test_lejepa_is_prediction_of_the_global_mean_and_a_test_for_a_gaussian(kind):
    method, batch, z, _ = projected("lejepa", kind)
    num_global = {"temporal": 2, "combined": 4}[kind]
    assert len(batch.views) == num_global + 2  # two local views
    method.sigreg.num_vectors = 3
    drawn = []
    draw = method.sigreg._generate_unit_vectors
    method.sigreg._generate_unit_vectors = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    with torch.no_grad():
        loss = float(method(batch))
    directions = drawn[0].double()
    assert directions.shape == (z.shape[2], 3)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(3).double())
    z = z.double()
    center = z[:num_global].mean(dim=0)
    prediction = sum(float(((view - center) ** 2).mean()) for view in z) / len(z)
    tests = [epps_pulley_reference((view @ directions[:, m]).tolist()) for view in z for m in range(3)]
    expected = (1 - LAMBDA) * prediction + LAMBDA * sum(tests) / len(tests)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_lejepas_directions_are_a_function_of_seed_and_step():
    method, _, z, _ = projected("lejepa", "temporal")
    z = 2 * z
    first = float(method.gaussian(z))
    before = torch.random.get_rng_state()
    torch.rand(5)
    assert float(method.gaussian(z)) == first
    torch.random.set_rng_state(before)
    method.gaussian(z)
    assert torch.equal(torch.random.get_rng_state(), before)
    method.after_step(0.1)
    second = float(method.gaussian(z))
    assert second != first
    resumed = make_case("lejepa", "temporal", True)
    resumed.load_state_dict(method.state_dict())
    assert float(resumed.gaussian(z)) == second
    order = torch.randperm(z.shape[1])
    assert float(method.gaussian(z[:, order])) == pytest.approx(second, rel=1e-5)


def test_lejepas_regulariser_wants_a_gaussian():
    method = make_case("lejepa", "temporal", True)
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(2, 256, 12, generator=generator)
    flat = gaussian.clone()
    flat[..., 6:] = 0.0
    values = [float(method.gaussian(z)) for z in (gaussian, flat, 2 * gaussian, torch.zeros_like(gaussian))]
    assert values[0] < min(values[1:]) / 5
    assert values[3] == max(values)


def test_lejepa_without_local_views_has_the_kinds_views():
    overrides = {"train.views": "temporal", "backbone.image_size": 32, "method.hidden_dim": 8}
    without = make_case("lejepa", "self", False)
    method = type(without)(without.backbone, Config.load(overrides=overrides))
    assert [view.source for view in method.views.views] == [0, 1]


def test_published_sizes_are_the_defaults():
    backbone = make_case("fastsiam", "self", False).backbone
    method = FastSiam(backbone, Config.load(overrides={"backbone.image_size": 32}))
    assert method.predictor.layers[0].weight.shape == (512, 2048)

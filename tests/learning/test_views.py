import colorsys
import math
from dataclasses import replace

import pytest
import torch

from wildray.config import AugmentConfig
from wildray.learning.augment import blurred_each, erased, hue_rotation, jitter, luma, resized_crop
from wildray.learning.batch import Crops, Facts
from wildray.learning.views import NUM_RANDOM, View, Views, make_view, random_numbers

CPU = torch.device("cpu")


def some_crops(num: int = 6, *, sources: int = 2, size_px: int = 20, first: int = 0) -> Crops:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (sources, num, 3, size_px, size_px), dtype=torch.uint8, generator=generator)
    ids = torch.arange(sources * num).view(sources, num)
    facts = Facts(ids, ids + 1, torch.zeros(sources, num, 4), ids, ids.double())
    return Crops(images[:, first:], torch.arange(num)[first:], ids[0][first:], facts)


def test_a_view_without_changes_is_the_resized_crop():
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    draws = torch.full((2, NUM_RANDOM), 0.5)
    out = make_view(images.float() / 255, draws, View(source=0, size_px=16, min_area=1.0))
    torch.testing.assert_close(out, images.float() / 255, atol=1e-5, rtol=0)


def test_the_crop_is_the_part_that_its_draws_name():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # value = x
    draws = torch.tensor([[0.0, 0.5, 1.0, 0.5, 0.9]])  # least area 1/4, square, at the right edge
    out = resized_crop(ramp, draws, size_px=32, area_range=(0.25, 1.0), flip=0.5)
    torch.testing.assert_close(out[0, 0, 0], ramp[0, 0, 0, 32:], atol=1e-5, rtol=0)
    mirrored = resized_crop(ramp, draws, size_px=32, area_range=(0.25, 1.0), flip=1.0)
    torch.testing.assert_close(mirrored, out.flip(3), atol=1e-5, rtol=0)


def test_every_part_lies_within_the_image_and_has_the_asked_area():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 101), torch.linspace(-1, 1, 101), indexing="ij")
    coordinates = torch.stack([x, y, x * 0]).expand(200, 3, 101, 101)
    out = resized_crop(
        coordinates, torch.rand(200, 5, generator=torch.Generator().manual_seed(0)), size_px=8, area_range=(0.3, 0.6)
    )
    width = out[:, 0, 0, -1] - out[:, 0, 0, 0]
    height = out[:, 1, -1, 0] - out[:, 1, 0, 0]
    area = (width * height) * (8 / 7) ** 2 * (100 / 101) ** 2 / 4  # first to last pixel centre: 7 of 8 steps
    assert float(area.min()) > 0.29
    assert float(area.max()) < 0.61
    assert float(out.abs().max()) <= 1


def test_views_depend_on_the_sample_alone_and_not_on_its_batch():
    views = Views.of(AugmentConfig(), kind="temporal", size_px=16)
    whole = views.batch(some_crops(), seed=3, epoch=2, device=CPU)
    part = views.batch(some_crops(first=4), seed=3, epoch=2, device=CPU)
    for all_of_them, some in zip(whole.views, part.views, strict=True):
        torch.testing.assert_close(all_of_them[4:], some, atol=1e-6, rtol=0)
    again = views.batch(some_crops(), seed=3, epoch=2, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(whole.views, again.views, strict=True))
    for seed, epoch in ((4, 2), (3, 3)):
        other = views.batch(some_crops(), seed=seed, epoch=epoch, device=CPU)
        assert not torch.allclose(whole.views[0], other.views[0])


def test_random_numbers_differ_between_samples_and_views():
    draws = random_numbers(torch.arange(50), 3, seed=0, epoch=0)
    assert draws.shape == (50, 3, NUM_RANDOM)
    assert len(torch.unique(draws[..., 0])) == 150
    assert abs(float(draws.mean()) - 0.5) < 0.02


def test_facts_follow_the_source_of_each_view():
    views = Views(tuple(View(source=s, size_px=8, min_area=1.0) for s in (0, 1, 1)))
    batch = views.batch(some_crops(), seed=0, epoch=0, device=CPU)
    assert views.num_sources == 2
    assert batch.num_samples == 6
    assert torch.equal(batch.facts.detection_id[0], torch.arange(6))
    assert torch.equal(batch.facts.detection_id[2], torch.arange(6, 12))
    assert float((batch.views[1].mean((2, 3)) - some_crops().images[1].float().mean((2, 3)) / 255).abs().max()) < 0.1


def test_self_views_need_one_source_and_differ():
    views = Views.of(AugmentConfig(), kind="self", size_px=12)
    assert views.num_sources == 1
    batch = views.batch(some_crops(sources=1), seed=0, epoch=0, device=CPU)
    assert not torch.allclose(batch.views[0], batch.views[1])


@pytest.mark.parametrize("degrees", [30.0, 120.0, 240.0])
def test_hue_rotation_keeps_brightness_sum_and_cycles_colours(degrees):
    turn = hue_rotation(torch.tensor([math.radians(degrees)]))[0]
    torch.testing.assert_close(turn @ torch.ones(3), torch.ones(3))
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    if degrees == 120:  # red becomes green, as in the colour wheel
        torch.testing.assert_close(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    hue = colorsys.rgb_to_hsv(*(turn @ torch.tensor([0.6, 0.4, 0.4])).tolist())[0] * 360
    assert abs(hue - degrees) < 4  # the wheel is a hexagon, the rotation a circle


def test_jitter_changes_brightness_contrast_and_saturation_as_drawn():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.2
    neutral = torch.tensor([[0.0, 0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(jitter(image, neutral, 0.5), image, atol=1e-6, rtol=0)
    brighter = jitter(image, torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.5]]), 0.5)
    torch.testing.assert_close(brighter, image * 1.4, atol=1e-5, rtol=0)
    gray = jitter(image, torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.5]]), 1.25)
    torch.testing.assert_close(gray, luma(image).expand_as(image), atol=1e-5, rtol=0)
    assert torch.equal(jitter(image, torch.tensor([[0.9, 1.0, 1.0, 1.0, 1.0]]), 0.5), image)


def test_blur_keeps_constants_and_equals_a_naive_sum():
    assert torch.allclose(
        blurred_each(torch.full((2, 3, 9, 9), 0.7), torch.tensor([0.5, 2.0]), most=2.0), torch.tensor(0.7)
    )
    image = torch.zeros(2, 3, 15, 15)
    image[:, :, 7, 7] = 1
    sigma = torch.tensor([0.8, 1.5])
    out = blurred_each(image, sigma, most=1.5)
    for i in range(2):
        weights = [math.exp(-0.5 * (offset / float(sigma[i])) ** 2) for offset in range(-5, 6)]
        expected = (weights[5] / sum(weights)) * (weights[6] / sum(weights))
        assert abs(float(out[i, 1, 7, 8]) - expected) < 1e-6


def test_erasing_blanks_one_rectangle_with_the_mean():
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[0.1, 1.0, 0.5, 0.0, 0.0]])  # 20 % of the area, square, top left
    changed = (erased(image, draws, 0.5) != image).any(dim=1)[0]
    side = round(math.sqrt(0.2) * 40)
    assert int(changed.sum()) == side * side
    assert bool(changed[:side, :side].all())
    assert torch.equal(erased(image, draws, 0.05), image)


def with_scenery(crops: Crops) -> Crops:
    """Crops of a bright square on dark ground, whose background is that ground, and the scenery white."""
    shape = crops.images.shape
    ground = torch.randint(40, 60, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images = ground.clone()
    images[..., 6:14, 6:14] = 180
    return replace(
        crops,
        images=images,
        box=torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(*shape[:2], 4),
        background=ground,
        has_background=torch.ones(shape[:2], dtype=torch.bool),
        scenery=torch.full((2, *shape), 255, dtype=torch.uint8),
    )


@pytest.mark.parametrize("mask", ["motion", "box"])
@pytest.mark.parametrize(("mode", "expected"), [("blur", 50 / 255), ("gray", 0.5), ("swap", 1.0)])
def test_only_the_scenery_of_a_view_is_changed(mode, expected, mask):
    crops = with_scenery(some_crops())
    view = View(source=1, size_px=20, min_area=1.0, background=mode, background_mask=mask)
    (out,) = Views((view,)).batch(crops, seed=0, epoch=0, device=CPU).views
    plain = replace(view, background="keep")
    (kept,) = Views((plain,)).batch(crops, seed=0, epoch=0, device=CPU).views
    torch.testing.assert_close(out[:, :, 8:12, 8:12], kept[:, :, 8:12, 8:12], atol=0.03, rtol=0)
    assert float((out[:, :, :2] - expected).abs().max()) < 0.02


def test_scenery_is_changed_in_the_asked_share_of_views_and_whatever_the_batch():
    crops = with_scenery(some_crops(64))
    settings = AugmentConfig(background="swap", background_share=0.5, color_jitter=0, grayscale=0, blur=0)
    views = Views.of(settings, kind="combined", size_px=16)
    whole = views.batch(crops, seed=3, epoch=2, device=CPU)
    swapped = torch.stack([view.mean((1, 2, 3)) > 0.6 for view in whole.views])
    draws = random_numbers(crops.index, 4, seed=3, epoch=2)
    assert torch.equal(swapped, (draws[:, :, 18] < 0.5).T)
    assert 0.3 < float(swapped.float().mean()) < 0.7
    some = {name: getattr(crops, name)[:, 60:] for name in ("images", "box", "background", "has_background")}
    some["scenery"] = crops.scenery[:, :, 60:]
    few = replace(crops, index=crops.index[60:], tracklet_id=crops.tracklet_id[60:], facts=some_crops(4).facts, **some)
    for all_of_them, part in zip(whole.views, views.batch(few, seed=3, epoch=2, device=CPU).views, strict=True):
        torch.testing.assert_close(all_of_them[60:], part, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "expected"), [("temporal", [0, 0]), ("self", [0, 1]), ("combined", [0, 0, 1, 1])])
def test_every_view_of_a_crop_gets_a_scenery_of_its_own(kind, expected):
    crops = with_scenery(some_crops())
    crops.scenery[1] = 0  # the first is white, the second black
    settings = AugmentConfig(background="swap", color_jitter=0, grayscale=0, blur=0, min_crop=1.0)
    views = Views.of(settings, kind=kind, size_px=16)
    assert views.num_sceneries == 1 + max(expected)
    out = views.batch(crops, seed=0, epoch=0, device=CPU).views
    corners = [float(view[:, :, :2].mean()) for view in out]
    assert corners == pytest.approx([1.0 - which for which in expected], abs=0.02)


def test_a_view_does_not_depend_on_its_company():
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    both = blurred_each(image, torch.tensor([0.2, 2.0]), most=2.0)
    assert torch.equal(both[:1], blurred_each(image[:1], torch.tensor([0.2]), most=2.0))


def test_a_share_of_none_is_as_if_nothing_was_asked():
    plain, never = AugmentConfig(), AugmentConfig(background="swap", background_share=0.0)
    batches = [
        Views.of(settings, kind="temporal", size_px=16).batch(with_scenery(some_crops()), seed=0, epoch=0, device=CPU)
        for settings in (plain, never)
    ]
    assert all(torch.equal(a, b) for a, b in zip(batches[0].views, batches[1].views, strict=True))


def test_a_tightened_view_is_the_view_of_the_crop_cut_smaller():
    image = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    settings = {"size_px": 10, "area_range": (0.5, 0.9), "flip": 0.5}
    tight = resized_crop(image, draws, tighten=0.1, **settings)
    cut = resized_crop(image[:, :, 4:36, 4:36], draws, **settings)
    torch.testing.assert_close(tight[:, :, 1:-1, 1:-1], cut[:, :, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_every_operation_on_a_batch_equals_a_loop_over_its_images():
    view = View(0, 12, min_area=0.3, color_jitter=0.8, grayscale=0.3, blur=0.5, flip=0.5, erase=0.5, tighten=0.05)
    images = torch.rand(40, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(40, NUM_RANDOM, generator=torch.Generator().manual_seed(1))
    whole = make_view(images, draws, view)
    loop = torch.cat([make_view(images[i : i + 1], draws[i : i + 1], view) for i in range(40)])
    torch.testing.assert_close(whole, loop, atol=1e-5, rtol=0)
    mixed = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(make_view(images[mixed], draws[mixed], view), whole[mixed], atol=1e-5, rtol=0)

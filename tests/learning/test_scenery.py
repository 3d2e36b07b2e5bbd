import io

import numpy as np
import pytest
import torch
from PIL import Image

from wildray.learning.scenery import animal_mask, blurred, box_mask, changed_scenery

SIZE = 80
BOX = torch.tensor([[0.1, 0.1, 0.9, 0.9]])


def scene(seed, size=SIZE):
    """Blotches and noise, as a ground has them: (3, P, P) in [0, 1]."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0.3, 0.6, (1, 3, 8, 8)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0].clamp(0, 1)


def disc(size=SIZE, center=(0.5, 0.5), radius=0.25):
    at = (torch.arange(size) + 0.5) / size
    return ((at[None, :] - center[0]) ** 2 + (at[:, None] - center[1]) ** 2 < radius**2).float()


def jpeg(image, quality):
    buffer = io.BytesIO()
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


def crop_of(seed, *, light=0.0, radius=0.25, contrast=0.35):
    """A crop with a striped disc for an animal, its background, and where the disc is."""
    ground, truth = scene(seed), disc(radius=radius)
    stripes = 0.5 + contrast * torch.sign(torch.sin(torch.arange(SIZE) / 3.0)).expand(3, SIZE, SIZE)
    noise = torch.from_numpy(np.random.default_rng(seed + 99).normal(0, 0.01, ground.shape).astype(np.float32))
    image = truth * stripes + (1 - truth) * ground + light + noise
    return jpeg(image.clamp(0, 1), 92), jpeg(ground, 85), truth


def iou(mask, truth):
    found = mask > 0.5
    return float((found & (truth > 0)).sum() / (found | (truth > 0)).sum())


@pytest.mark.parametrize("light", [-0.15, 0.0, 0.15])
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_the_animal_in_any_light(seed, light):
    image, background, truth = crop_of(seed, light=light)
    mask = animal_mask(image[None], BOX, background[None], torch.tensor([True]))[0, 0]
    assert iou(mask, truth) > 0.8
    corner = mask[:8, :8]
    assert float(corner.max()) == 0


def test_where_the_background_says_nothing_the_box_is_the_mask():
    image, background, _ = crop_of(0)
    box = torch.tensor([[0.2, 0.3, 0.7, 0.8]])
    of_box = animal_mask(image[None], box, None, None)
    unknown = animal_mask(image[None], box, torch.zeros_like(image)[None], torch.tensor([False]))
    resting = animal_mask(image[None], box, image[None], torch.tensor([True]))
    assert torch.equal(of_box, unknown)
    assert torch.equal(of_box, resting)
    truth = torch.zeros(SIZE, SIZE)
    truth[24:64, 16:56] = 1
    assert iou(of_box[0, 0], truth) > 0.8, "the box, a little grown"
    assert not torch.equal(of_box, animal_mask(image[None], box, background[None], torch.tensor([True])))


def test_a_crop_is_masked_alike_alone_and_in_a_batch():
    crops = [crop_of(seed, light=0.05 * seed, radius=0.15 + 0.03 * seed) for seed in range(5)]
    images, backgrounds = (torch.stack([crop[i] for crop in crops]) for i in range(2))
    known = torch.tensor([True, False, True, True, False])
    box = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    box = torch.cat([box, 1 - box], 1)
    whole = animal_mask(images, box, backgrounds, known)
    for i in range(5):
        one = slice(i, i + 1)
        alone = animal_mask(images[one], box[one], backgrounds[one], known[one])
        torch.testing.assert_close(whole[one], alone, atol=1e-5, rtol=0)


def test_scenery_is_replaced_as_a_loop_over_pixels_would():
    generator = torch.Generator().manual_seed(0)
    images, scenery = torch.rand(2, 3, 6, 6, generator=generator), torch.rand(2, 3, 6, 6, generator=generator)
    mask = torch.rand(2, 1, 6, 6, generator=generator)
    swapped, gray = changed_scenery(images, mask, "swap", scenery), changed_scenery(images, mask, "gray", None)
    for b, c, y, x in np.ndindex(2, 3, 6, 6):
        share = float(mask[b, 0, y, x])
        kept = share * float(images[b, c, y, x])
        assert float(swapped[b, c, y, x]) == pytest.approx(kept + (1 - share) * float(scenery[b, c, y, x]), abs=1e-6)
        assert float(gray[b, c, y, x]) == pytest.approx(kept + (1 - share) * 0.5, abs=1e-6)


def test_blurred_scenery_has_none_of_the_animals_colour_and_none_of_its_own_texture():
    truth = disc()
    checks = ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)[None, :]) // 4 % 2).float()
    image = torch.stack([truth, (1 - truth) * (0.4 + 0.4 * checks), torch.zeros_like(truth)])  # red on green checks
    out = changed_scenery(image[None], truth[None, None], "blur", None)[0]
    outside = truth == 0
    assert float(out[0][outside].max()) < 1e-3, "no red around the animal"
    assert float(image[1][outside].std()) > 0.19
    assert float(out[1][outside].std()) < 0.05
    assert abs(float(out[1][outside].mean()) - float(image[1][outside].mean())) < 0.03
    assert torch.equal(out[:, ~outside], image[:, ~outside]), "the animal stays as it is"


def test_blur_equals_a_naive_sum_with_repeated_borders():
    image = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma, radius = 0.9, 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = blurred(image, sigma)
    for c, y, x in np.ndindex(2, 8, 8):
        total = sum(
            weights[j + radius] * weights[i + radius] * float(image[0, c, min(max(y + j, 0), 7), min(max(x + i, 0), 7)])
            for j in range(-radius, radius + 1)
            for i in range(-radius, radius + 1)
        )
        assert float(out[0, c, y, x]) == pytest.approx(total, abs=1e-6)


def test_box_masks_cover_the_pixels_whose_centres_lie_in_the_grown_box():
    box = torch.tensor([[0.2, 0.4, 0.6, 0.8], [0.0, 0.0, 1.0, 1.0]])
    mask = box_mask(box, 10, grow=0.25)
    for b, y, x in np.ndindex(2, 10, 10):
        left, top, right, bottom = box[b].tolist()
        reach = 0.25 * (right - left), 0.25 * (bottom - top)
        inside = left - reach[0] <= (x + 0.5) / 10 < right + reach[0]
        inside &= top - reach[1] <= (y + 0.5) / 10 < bottom + reach[1]
        assert bool(mask[b, 0, y, x]) == inside

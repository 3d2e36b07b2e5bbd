import pytest

from wildray.config import Config
from wildray.learning.job import batches_per_epoch
from wildray.sweep.budget import batch_of, images_per_sample, with_work, work_of
from wildray.sweep.spec import Budget

SMALL = {"backbone.name": "test_resnet", "backbone.image_size": 48}


def config(**settings):
    return Config.load(overrides=SMALL | {name.replace("__", "."): value for name, value in settings.items()})


@pytest.mark.parametrize(
    ("settings", "per_sample"),
    [
        ({}, 2.0),
        ({"train__views": "combined"}, 4.0),
        ({"train__method": "arcface"}, 1.0),
        ({"train__method": "dino", "method__local_views": 4}, 2 + 4 * (32 / 48) ** 2),
    ],
)
def test_images_of_a_sample(settings, per_sample):
    batch, found = batch_of(config(**settings), images=48)
    assert found == pytest.approx(per_sample, rel=0.05)
    assert batch == pytest.approx(48 / per_sample, abs=2)


def test_work_is_equal_however_many_views_a_sample_has():
    budget = Budget(images=3000, images_per_step=64, measurements=4)
    works = [work_of(config(train__views=views), budget) for views in ("temporal", "combined")]
    assert works[0].num_steps == works[1].num_steps == 48
    assert works[0].epochs * works[0].images_per_epoch == works[1].epochs * works[1].images_per_epoch >= 3000


def test_a_budget_becomes_settings_of_training():
    done = with_work(config(), work_of(config(train__batch_size=8), Budget(images=160, measurements=3)))
    assert (done.train.batch_size, done.train.epochs, done.train.epoch_size) == (8, 3, 32)
    assert batches_per_epoch(1000, done.train) * done.train.epochs == 12
    assert batches_per_epoch(9, done.train) == 4, "few samples are gone over again"


def test_a_tiny_budget_has_fewer_measurements():
    work = work_of(config(train__batch_size=8), Budget(images=20, measurements=10))
    assert (work.num_steps, work.epochs) == (2, 2)


def test_supervised_batches_stay_whole():
    batch, _ = batch_of(config(train__method="triplet", train__images_per_identity=4), images=30)
    assert batch % 4 == 0


def test_small_views_count_by_their_pixels():
    class Half:
        size_px = 24

    class Whole:
        size_px = 48

    class Some:
        views = (Whole(), Half())

    assert images_per_sample(Some(), size_px=48) == 1.25

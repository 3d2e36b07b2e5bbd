from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from learning_store import IMPORT, tiny_config, write_labels

from wildray.errors import ConfigError, DataError, StageError
from wildray.labelled import import_labelled
from wildray.learning.crops import CropCache, read_crops
from wildray.learning.ingest import check_labels, check_samples
from wildray.learning.job import Job, Place
from wildray.learning.labels import check_unseen, identity_order, read_labels, with_imported_labels
from wildray.learning.loop import run_training
from wildray.learning.methods import METHODS
from wildray.packs import PackReader
from wildray.retrieval.evaluate import evaluate
from wildray.schema import hash64


@pytest.fixture
def labelled(tmp_path, pair_store):
    names = ["zoe", "abe", "", "abe", "unknown", "mia", "zoe", "abe", "mia", "abe"]
    return import_labelled(pair_store, write_labels(tmp_path / "l", names), **IMPORT)


def test_images_without_identity_are_left_out_and_the_rest_numbered_in_sorted_order(labelled):
    table = read_labels(labelled.store, labelled.digest)
    assert table.identities == ("abe", "mia", "zoe")
    assert table.labels.tolist() == [2, 0, 0, 1, 2, 0, 1, 0]
    assert len(set(table.tracklet_id.tolist())) == 8  # a label-free method must not learn identities from them
    assert table.row.tolist() == [0, 1, 3, 5, 6, 7, 8, 9]
    assert table.camera_id.tolist() == [hash64((f"cam{row % 3}",)) for row in table.row]
    assert len(set(table.frame_key[:, 0].tolist())) == 8
    assert np.isnan(table.captured_at_s).all()
    assert not table.xyxy_px.any()


def test_crops_of_labelled_images_carry_labels_and_their_own_pixels(labelled):
    table = read_labels(labelled.store, labelled.digest)
    cache = CropCache(labelled.store, table, side_px=48, cache_bytes=0, threads=1)
    reader = PackReader(labelled.store, labelled.place)
    for num_sources in (1, 2):
        crops = read_crops(cache, table, np.array([4, 1, 4 + 8]), seed=0, epoch=0, num_sources=num_sources)
        assert crops.labels.tolist() == [2, 0, 2]
        assert crops.index.tolist() == [4, 1, 12]
        for source in range(num_sources):
            for i, row in enumerate((6, 1, 6)):
                expected = reader.image("images-000", row)
                assert np.array_equal(crops.images[source, i].permute(1, 2, 0).numpy(), expected)


def some_labels():
    """40 individuals with 1 to 12 images, in random order."""
    rng = np.random.default_rng(3)
    return rng.permutation(np.repeat(np.arange(40), rng.integers(1, 13, 40)))


ORDER = {"seed": 1, "batch_size": 24, "images_per_identity": 4}


def test_every_batch_holds_p_individuals_with_k_images_each():
    labels = some_labels()
    order = identity_order(labels, epoch=0, **ORDER)
    assert order.shape == (len(labels) // 24, 24)
    for batch in order % len(labels):
        counts = Counter(labels[batch].tolist())
        assert len(counts) == 6
        assert set(counts.values()) == {4}
        for who in counts:  # as many different images as there are
            mine = batch[labels[batch] == who]
            assert len(set(mine.tolist())) == min(4, (labels == who).sum())


def test_a_row_that_comes_again_in_an_epoch_has_another_number():
    labels = some_labels()
    order = identity_order(labels, epoch=0, **ORDER)
    assert len(np.unique(order)) == order.size
    rows = order.reshape(-1) % len(labels)
    seen = Counter()
    for number, row in zip(order.reshape(-1).tolist(), rows.tolist(), strict=True):
        assert number == row + len(labels) * seen[row]
        seen[row] += 1


def test_individuals_come_equally_often_and_their_images_in_turn():
    labels = np.repeat(np.arange(10), 8)
    settings = ORDER | {"batch_size": 8}
    order = identity_order(labels, epoch=0, **settings)
    times = np.bincount(labels[order.reshape(-1) % 80], minlength=10)
    assert times.max() - times.min() <= 4
    assert len(np.unique(order % 80)) == 80  # 10 batches of 2 individuals: each twice, with all its images


def test_the_p_x_k_order_is_a_function_of_seed_and_epoch():
    labels = some_labels()
    orders = [identity_order(labels, epoch=epoch, **ORDER) for epoch in (0, 0, 1)]
    orders.append(identity_order(labels, epoch=0, **ORDER | {"seed": 2}))
    assert np.array_equal(orders[0], orders[1])
    assert not any(np.array_equal(first, second) for first, second in pairwise(orders[1:]))


def test_an_individual_with_few_images_repeats_them():
    order = identity_order(np.array([0, 1] + [0] * 7), seed=0, epoch=0, batch_size=8, images_per_identity=4)
    assert {1, 10, 19, 28} <= set(order[0].tolist())


def test_batches_that_cannot_be_are_explained():
    with pytest.raises(
        ConfigError, match=r"multiple of train\.images_per_identity 4: take --train\.batch-size 20 or 24"
    ):
        identity_order(some_labels(), epoch=0, **ORDER | {"batch_size": 22})
    with pytest.raises(ConfigError, match=r"wants 50 individuals, train\.labels has 40: take --train\.batch-size 160"):
        identity_order(some_labels(), epoch=0, **ORDER | {"batch_size": 200})


def test_labels_are_imported_on_use_and_are_not_the_newest_import(tmp_path, pair_store):
    evaluated = import_labelled(pair_store, write_labels(tmp_path / "e", ["abe", "abe"]), **IMPORT)
    path = write_labels(tmp_path / "t", ["mia", "zoe", "mia"])
    config = with_imported_labels(tiny_config(train__labels=str(path)), pair_store)
    digest = config.train.labels
    assert read_labels(pair_store, digest).identities == ("mia", "zoe")
    assert pair_store.newest("labelled") == evaluated.digest
    assert with_imported_labels(config, pair_store) == config
    with pytest.raises(
        ConfigError, match=f"expected a metadata.csv or the digest of an import. Did you mean .{digest}"
    ):
        with_imported_labels(tiny_config(train__labels=digest[:-1] + "x"), pair_store)


def test_individuals_that_are_trained_on_are_not_evaluated(tmp_path, pair_store):
    first = import_labelled(pair_store, write_labels(tmp_path / "a", ["abe", "mia", ""]), **IMPORT)
    second = import_labelled(pair_store, write_labels(tmp_path / "b", ["zoe", "mia", ""]), **IMPORT)
    third = import_labelled(pair_store, write_labels(tmp_path / "c", ["zoe", "eve", "unknown"]), **IMPORT)
    with pytest.raises(DataError, match=r"1 individuals are both trained on .*: mia\."):
        check_unseen(pair_store, trained=first.digest, evaluated=second.digest)
    check_unseen(pair_store, trained=first.digest, evaluated=third.digest)


def test_labels_without_any_identity_are_refused(tmp_path, pair_store):
    bare = import_labelled(pair_store, write_labels(tmp_path / "n", ["", "unknown"], camera=False), **IMPORT)
    with pytest.raises(DataError, match="None of the 2 labelled images"):
        read_labels(pair_store, bare.digest)


@pytest.mark.parametrize(
    ("method", "views"), [("arcface", "temporal"), ("triplet", "temporal"), ("supcon", "temporal"), ("simclr", "self")]
)
def test_supervised_and_label_free_methods_train_on_labelled_images(tmp_path, pair_store, method, views):
    names = [f"animal{i % 7}" for i in range(40)]
    digest = import_labelled(pair_store, write_labels(tmp_path / "t", names), **IMPORT).digest
    config = tiny_config(train__method=method, train__views=views, train__labels=digest, train__epochs=1)
    state = run_training(Job(config, pair_store, method, digest), Place())
    assert state.step == 2
    assert np.isfinite(state.history[0]["loss"])


def test_settings_of_labels_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"arcface is supervised: give it labelled images, --train\.labels"):
        check_labels(tiny_config(train__method="arcface"), METHODS["arcface"])
    with pytest.raises(ConfigError, match="both given"):
        check_labels(tiny_config(train__method="arcface", train__labels="a", train__pairs="b"), METHODS["arcface"])
    with pytest.raises(ConfigError, match=r"give --train\.views self"):
        check_labels(tiny_config(train__labels="a"), METHODS["simclr"])
    check_labels(tiny_config(train__labels="a", train__views="self"), METHODS["simclr"])
    check_labels(tiny_config(train__method="arcface", train__labels="a"), METHODS["arcface"])
    alone = {"train__method": "supcon", "train__labels": "a", "train__batch_size": 16, "train__images_per_identity": 16}
    with pytest.raises(ConfigError, match="a batch of a single individual"):
        check_labels(tiny_config(**alone), METHODS["supcon"])
    parts = {"train__method": "triplet", "train__labels": "a", "train__batch_size": 32, "train__images_per_identity": 4}
    check_labels(tiny_config(**parts, train__accumulate=4), METHODS["triplet"])
    with pytest.raises(ConfigError, match="a part of 4 images holds fewer than two"):
        check_labels(tiny_config(**parts, train__accumulate=8), METHODS["triplet"])


def test_labelled_images_that_make_no_batch_are_refused_before_a_run_is_begun(tmp_path, pair_store):
    digest = import_labelled(pair_store, write_labels(tmp_path / "t", ["abe", "mia", "zoe"] * 5), **IMPORT).digest
    config = tiny_config(train__method="arcface", train__labels=digest)
    with pytest.raises(ConfigError, match=r"wants 4 individuals, train\.labels has 3"):
        check_samples(config, pair_store, digest, METHODS["arcface"])
    config = tiny_config(train__method="arcface", train__labels=digest, train__images_per_identity=8)
    with pytest.raises(StageError, match="15 labelled images do not fill a batch of 16"):
        check_samples(config, pair_store, digest, METHODS["arcface"])


def test_a_supervised_run_is_not_evaluated_on_individuals_it_was_trained_on(tmp_path, pair_store):
    names = [f"animal{i % 5}" for i in range(20)]
    digest = import_labelled(pair_store, write_labels(tmp_path / "t", names), **IMPORT).digest
    other = import_labelled(pair_store, write_labels(tmp_path / "e", ["eve", "eve", "animal3"]), **IMPORT).digest
    config = tiny_config(train__method="arcface", train__labels=digest, train__epochs=1)
    pair_store.write_text(config.to_yaml(), "models", "named", "config.yaml")
    run_training(Job(config, pair_store, "named", digest), Place())
    with pytest.raises(DataError, match="animal3"):
        evaluate(config, pair_store, run="named")
    assert pair_store.newest("labelled") == other

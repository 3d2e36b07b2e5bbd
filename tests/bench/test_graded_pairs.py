"""Pair sets of a chosen purity, and the page about them."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from bench.graded_pairs import graded, kept
from bench.pair_purity import SEEDS, Spec, specs
from bench.pair_purity_page import CLAIMS, GAPS_S, MINED, PURITIES, SECOND, SELF, figures, page, verdicts
from wildray.errors import DataError
from wildray.schema import PAIRS
from wildray.store import Store


def pairs(rows):
    usual = {
        "anchor_pack": "p", "anchor_row": 0, "positive_pack": "p", "positive_row": 1, "sequence_id": 0,
        "camera_id": "c", "iou": 0.5, "gap_s": 2.0, "gap_frames": 24, "min_score": 0.5, "margin": 0.1,
    }  # fmt: skip
    names = ("anchor_id", "positive_id", "tracklet_id")
    return pa.Table.from_pylist([{**usual, **dict(zip(names, row, strict=True))} for row in rows], schema=PAIRS)


def of(table):
    return set(zip(table["anchor_id"].to_pylist(), table["positive_id"].to_pylist(), strict=True))


RIGHT = pairs([(number, 100 + number, number) for number in range(40)])
WRONG = pairs([(1000 + number, 1100 + number, 1000 + number) for number in range(20)])


def test_a_set_has_the_purity_and_the_size_that_were_asked_for():
    for purity in (1.0, 0.85, 0.5):
        found = of(graded(RIGHT, WRONG, purity=purity, num=20, seed=0))
        assert len(found) == 20
        assert len(found & of(RIGHT)) == round(20 * purity)
        assert found <= of(RIGHT) | of(WRONG)


def test_of_one_seed_purer_sets_hold_the_right_pairs_of_others_and_seeds_differ():
    sets = [of(graded(RIGHT, WRONG, purity=purity, num=20, seed=1)) for purity in (0.5, 0.7, 1.0)]
    for impure, pure in itertools.pairwise(sets):
        assert impure & of(RIGHT) <= pure
        assert pure & of(WRONG) <= impure
    assert of(graded(RIGHT, WRONG, purity=1.0, num=20, seed=2)) != sets[-1]
    again = graded(RIGHT, WRONG, purity=0.7, num=20, seed=1)
    assert again.equals(graded(RIGHT, WRONG, purity=0.7, num=20, seed=1))


def test_boxes_that_hang_together_are_one_tracklet():
    # 5 is in a right pair of tracklet 2 and in a wrong pair: both tracklets are one from then on
    right, wrong = pairs([(5, 6, 2), (8, 9, 2), (20, 21, 20)]), pairs([(5, 30, 5)])
    found = graded(right, wrong, purity=0.75, num=4, seed=0)
    told = dict(zip(found["anchor_id"].to_pylist(), found["tracklet_id"].to_pylist(), strict=False))
    assert told == {5: 2, 8: 2, 20: 20}
    assert found["tracklet_id"].to_pylist().count(2) == 3


def test_too_few_of_a_kind_are_told():
    with pytest.raises(DataError, match="Got 20 wrong pairs, expected 30"):
        graded(RIGHT, WRONG, purity=0.25, num=40, seed=0)


def test_a_set_lies_in_the_store_under_what_it_holds(tmp_path):
    store = Store.open(tmp_path, create=True)
    digest = kept(store, RIGHT, detections="d0", facts={"set": "a"})
    assert kept(store, RIGHT, detections="d0", facts={}) == digest != kept(store, WRONG, detections="d0", facts={})
    assert store.collection("pairs", digest).read("pairs", PAIRS).equals(RIGHT)
    assert store.collection("pairs", digest).settings()["detections"] == "d0"


def result(seed, precision, **facts):
    rng = np.random.default_rng(seed)
    figures = {
        "mAP": precision,
        "mAP_low": precision - 0.01,
        "mAP_high": precision + 0.01,
        "chance_mAP": 0.04,
        "cmc_1": 0.1,
    }
    return {
        "seed": seed, "commit": "abc", "machine": "m", "error": None, "before": {**figures, "mAP": 0.07, "rank": 9.0},
        "after": {**figures, "rank": 9.0}, "gain": {"mAP": 0.05, "mAP_low": 0.01, "mAP_high": 0.09},
        "loss_last": 2.0, "embedding_rank": 9.0, "embedding_std": 0.1, "seconds": 1.0, "num_steps": 5,
        "num_seen_images": 320, "set_num": 20, "set_purity": 0.9, "mined_num": 30, "different": 0.1,
        "individuals": [[precision + rng.normal(0, 0.001), 4] for _ in range(30)], **facts,
    }  # fmt: skip


def test_the_page_says_what_is_missing_and_decides_by_what_is_there():
    assert "not yet run" in page({})
    assert set(verdicts({}).values()) == {None}
    assert figures({})["pair_purity.png"].startswith(b"\x89PNG")
    results = {
        f"{kind}-s{seed}": result(seed, 0.2 if kind == "gap-2000" else 0.1 + 0.001 * seed)
        for kind in ("gap-2000", "purity-50")
        for seed in SEEDS
    }
    told = verdicts(results)["Purity 1 over purity 0.5"]
    assert told.verdict == "held"
    assert told.value == pytest.approx(0.099, abs=2e-3)
    assert "0.200" in page(results)
    assert len(figures(results)["pair_purity.png"]) < 200_000


def test_every_run_has_its_place_on_the_page():
    kinds = {spec.name.rpartition("-s")[0] for spec in specs()}
    assert kinds == {*PURITIES, *GAPS_S, *MINED, SECOND, SELF}
    assert {kind for sides in CLAIMS.values() for side in sides for kind in side} <= kinds
    assert len(specs()) == len(set(specs())) == len(kinds) * len(SEEDS)
    assert specs().index(Spec("second", "chained", 0)) > specs().index(Spec("mined", "chained", 0))

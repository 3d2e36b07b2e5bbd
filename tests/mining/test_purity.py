"""Purity against loops over rows, its interval against its coverage, and judging against a walk through the pairs."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_rows import Clip, box, make_store

from wildray.config import Config, MineConfig
from wildray.errors import ConfigError, DataError, StageError
from wildray.mining.detect import detect
from wildray.mining.judge import judge, pair_quality, shape_iou
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.matching import Matching
from wildray.mining.mine import mine
from wildray.mining.purity import (
    BREAKDOWNS,
    DENSITY_NAMES,
    DIFFERENT,
    FALSE_BOX,
    SAME,
    JudgedPairs,
    purity,
    purity_by,
    wilson,
)
from wildray.mining.truth import Truth, read_truth
from wildray.store import Store


def pairs_of(rows: list[dict[str, object]]) -> JudgedPairs:
    usual = {
        "verdict": SAME, "identity": 0, "sequence": 0, "camera": "c", "time_s": 0.0, "gap_s": 1.0, "iou": 0.5,
        "margin": 0.2, "shape_iou": 0.9, "num_animals": 1, "partial": False,
    }  # fmt: skip
    kinds = {
        "verdict": np.int8,
        "identity": np.int64,
        "sequence": np.int64,
        "num_animals": np.int64,
        "camera": object,
        "partial": bool,
    }
    full = [{**usual, **row} for row in rows]
    return JudgedPairs(**{name: np.array([row[name] for row in full], kinds.get(name, np.float64)) for name in usual})


row = st.fixed_dictionaries(
    {
        "verdict": st.sampled_from([SAME, DIFFERENT, FALSE_BOX]),
        "identity": st.integers(0, 3),
        "sequence": st.integers(0, 3),
        "camera": st.sampled_from(["a", "b"]),
        "time_s": st.floats(0, 30),
        "gap_s": st.floats(0, 700),
        "iou": st.floats(0, 1),
        "margin": st.floats(-1, 1),
        "num_animals": st.integers(0, 12),
    }
)


@given(rows=st.lists(row, max_size=30), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_against_a_loop_whatever_the_order_of_the_rows(rows, seed):
    pairs = pairs_of(rows)
    got = purity(pairs, num_bootstrap=50)
    right = [r for r in rows if r["verdict"] == SAME]
    assert got.num_pairs == len(rows)
    assert got.num_same == len(right)
    assert got.purity == (len(right) / len(rows) if rows else None)
    assert got.num_individuals == len({r["identity"] for r in right})
    assert got.num_encounters == len({(r["identity"], r["sequence"]) for r in right})
    assert got.num_same + got.num_different + got.num_false_boxes == got.num_pairs
    assert got.low <= (got.purity if rows else 0.5) <= got.high
    shuffled = purity(pairs.where(np.random.default_rng(seed).permutation(len(rows))), num_bootstrap=50)
    assert shuffled == got
    for name in BREAKDOWNS:
        parts = purity_by(pairs, name, num_bootstrap=5)
        assert sum(part.num_pairs for part in parts.values()) == len(rows)
        assert sum(part.num_same for part in parts.values()) == len(right)


@pytest.mark.parametrize(
    ("breakdown", "column", "value", "name"),
    [
        ("density", "num_animals", 0, "0"), ("density", "num_animals", 1, "1"), ("density", "num_animals", 3, "2-3"),
        ("density", "num_animals", 4, "4-7"), ("density", "num_animals", 8, "8+"),
        ("gap", "gap_s", 0.04, "under 0.2 s"),
        ("gap", "gap_s", float(np.float32(0.2)), "0.2 to 1 s"), ("gap", "gap_s", 600.0, "10 min and more"),
        ("iou", "iou", 1.0, "0.7 and more"), ("iou", "iou", float(np.float32(0.3)), "0.3 to 0.5"),
        ("margin", "margin", -0.5, "under 0"), ("margin", "margin", float(np.float32(0.1)), "0.1 to 0.25"),
        ("camera", "camera", "north", "north"),
    ],
)  # fmt: skip
def test_bins(breakdown, column, value, name):
    assert list(purity_by(pairs_of([{column: value}]), breakdown)) == [name]


def test_parts_are_in_order_and_empty_ones_left_out():
    parts = purity_by(pairs_of([{"num_animals": n} for n in (9, 2, 1)]), "density")
    assert list(parts) == ["1", "2-3", "8+"] == [name for name in DENSITY_NAMES if name in parts]


def test_the_interval_is_of_sequences_and_not_of_pairs():
    """Ten sequences, each all right or all wrong: a hundred pairs in each say no more than one."""
    verdicts = [SAME] * 8 + [DIFFERENT] * 2
    few = purity(pairs_of([{"sequence": s, "verdict": v} for s, v in enumerate(verdicts)]))
    many = purity(pairs_of([{"sequence": s, "verdict": v} for s, v in enumerate(verdicts) for _ in range(100)]))
    assert few.purity == many.purity == 0.8
    assert (many.num_groups, many.block_s) == (10, None)
    assert many.high - many.low > 0.4
    independent = wilson(800, 1000)
    assert many.low < independent[0] < independent[1] < many.high


def test_a_single_sequence_is_drawn_in_blocks_of_time():
    rows = [{"time_s": 100 + t / 10, "gap_s": 0.5} for t in range(100)]
    assert (purity(pairs_of(rows)).num_groups, purity(pairs_of(rows)).block_s) == (5, 2.0)
    longer = purity(pairs_of([*rows, {"time_s": 100.0, "gap_s": 4.0}]))
    assert (longer.num_groups, longer.block_s) == (3, 4.0)
    alone = purity(pairs_of(rows[:3]))
    assert (alone.purity, alone.low, alone.high) == (1.0, 0.0, 1.0)


def test_where_every_pair_is_right_the_interval_has_a_width():
    got = purity(pairs_of([{"sequence": n % 5} for n in range(100)]))
    assert (got.purity, got.high) == (1.0, 1.0)
    assert got.low == pytest.approx(1 / (1 + 1.959964**2 / 100), abs=1e-6)


def test_wilson_against_its_definition():
    """Both ends are the shares from which the observed one is z standard errors off."""
    for right, num in ((1, 10), (37, 50), (999, 1000)):
        for end in wilson(right, num):
            assert abs(right / num - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / num), rel=1e-5)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        share = rng.beta(8, 2, 40)  # of each sequence
        rows = [{"sequence": s, "verdict": int(v)} for s in range(40) for v in rng.random(10) < share[s]]
        got = purity(pairs_of(rows), seed=trial, num_bootstrap=300)
        covered += got.low <= 0.8 <= got.high
    assert 88 <= covered <= 100


def test_shape_iou_lays_the_centres_together():
    a = np.array([[0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 4, 4]], float).T
    b = np.array([[90, 70, 100, 80], [0, 0, 10, 20], [1, 1, 3, 3]], float).T
    np.testing.assert_allclose(shape_iou(a, b), [1.0, 100 / 300, 4 / 16])


def walk(camera: str, at_s: float) -> Clip:
    """Two animals side by side, and a box that shows none."""
    boxes = [
        [(10 * i, 0, 10 * i + 60, 60), (500 - 10 * i, 0, 560 - 10 * i, 60), (300, 300, 330, 330)] for i in range(8)
    ]
    return Clip(camera, boxes, camera=camera, at_s=at_s, every=5, extra={"width_px": 900})


def truth_of(clips: list[Clip], *, swap_from: int = 99) -> Truth:
    from test_truth import truth_table

    rows = []
    for clip in clips:
        for i, boxes in enumerate(clip.boxes):
            names = ("ann", "bob") if i < swap_from else ("bob", "ann")
            rows += [
                (f"{clip.camera}/{clip.name}", 5 * i, f"{clip.camera}-{name}", boxes[j]) for j, name in enumerate(names)
            ]
    return Truth(truth_table(rows), frozenset(), "t", ("truth",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, ray_connected: None) -> Store:
    clips = [walk("a", 0.0), walk("b", 0.0)]
    for clip in clips:
        for boxes in clip.boxes:
            boxes[:] = [(*b, {"width_px": 900, "height_px": 600}) for b in boxes]
    made = make_store(tmp_path_factory.mktemp("s"), [clips])
    mine(Config.load(None, {"mine.interval": "1s", "mine.remove_static": False}), made)
    return made


def test_a_stores_pairs_against_a_walk_through_them(store: Store) -> None:
    quality = pair_quality(store, truth_of([walk("a", 0), walk("b", 0)], swap_from=4))
    whole = quality.whole
    # one second is two frames looked at: of 6 pairs of frames those from 2 and 3 cross the swap
    assert (whole.num_pairs, whole.num_same, whole.num_different, whole.num_false_boxes) == (36, 16, 8, 12)
    assert whole.purity == pytest.approx(16 / 36)
    assert (whole.num_individuals, whole.num_encounters, whole.num_groups) == (4, 4, 2)
    assert (quality.num_unmatched_detections, quality.num_truth, quality.num_unmatched_truth) == (16, 32, 0)
    assert {name: part.num_pairs for name, part in quality.parts["camera"].items()} == {"a": 18, "b": 18}
    assert {name: part.num_pairs for name, part in quality.parts["density"].items()} == {"2-3": 36}
    content = quality.to_json()
    assert content["purity"] == whole.purity
    assert {"purity_low", "purity_high", "num_pairs", "num_individuals", "num_encounters", "tables"} <= set(content)
    assert content["tables"]["camera"][0]["part"] == "a"


def test_what_is_named_wrongly_is_said(store: Store, tmp_path) -> None:
    truth = truth_of([walk("a", 0), walk("b", 0)])
    with pytest.raises(ConfigError, match="no pairs 'nothing'"):
        pair_quality(store, truth, pairs="nothing")
    with pytest.raises(DataError, match="No truth for 1 of 2 media"):
        pair_quality(store, truth_of([walk("a", 0)]))
    some = pair_quality(store, truth_of([walk("a", 0)]), partial=True)
    assert (some.num_media, some.num_media_unknown, some.whole.num_pairs) == (1, 1, 18)
    with pytest.raises(StageError, match="run 'wildray mine' first"):
        pair_quality(Store.open(tmp_path, create=True), truth)


def test_a_pair_of_boxes_that_are_not_there() -> None:
    ids = pa.table({"detection_id": [box("x", 0)]})
    none = np.zeros(1, np.int64)
    matching = Matching(none, none, none == 0, none, 0, 0, 0)
    pairs = pa.table({"anchor_id": [1], "positive_id": [2]})
    with pytest.raises(DataError, match="not among the detections"):
        judge(pairs, ids, matching, truth_of([]).boxes)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "interval", "linker", "share"),
    [
        ("Koi_5652_952_540", "12frames", "direct", 0.846),
        ("Koi_5652_952_540", "12frames", "assigned", 0.966),
        ("Pigeons_29033_960_540_300f", "1frame", "assigned", 0.988),
        ("Pigeons_29033_960_540_300f", "120frames", "direct", 0.410),
        ("Pigeons_8234_1280_720", "12frames", "assigned", 0.950),
    ],
)
def test_purity_on_real_tracks_is_as_measured_before(
    real_data: Path, tmp_path: Path, ray_connected: None, name: str, interval: str, linker: str, share: float
) -> None:
    """Measured once by a plain script, from boxes with the same jitter and misses but other random numbers."""
    file = real_data / "tracks" / f"{name}_gt_mot.txt"
    store = Store.open(tmp_path, create=True)
    digest = detect(Config.load(None, {"detect.mot_fps": 25}), store, [str(file)]).digest
    annotated = AnnotatedCollection(store.collection("detections", digest), read_truth([file]))
    settings = {"interval": interval, "linker": linker, "min_margin": 0.0, "remove_static": False}
    found = annotated.figures(MineConfig.model_validate(settings))
    assert found["purity"] == pytest.approx(share, abs=0.02)
    assert found["low"] - 0.01 <= share <= found["high"] + 0.01
    assert found["num_unmatched_detections"] <= 0.01 * found["num_detections"]

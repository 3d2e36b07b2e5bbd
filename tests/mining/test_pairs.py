import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mining_rows import Clip, box, detections_table, frames_table, media_table

from wildray.config import Config
from wildray.mining.pairs import mine_tables
from wildray.mining.sequences import assign_sequences


def mined(clips: list[Clip], *, gap_s: float = 60.0, **settings: object) -> tuple[pa.Table, pa.Table]:
    config = Config.load(None, {f"mine.{name}": value for name, value in settings.items()}).mine
    sequences = assign_sequences(media_table(clips), gap_s=gap_s)
    return mine_tables(sequences, frames_table(clips), detections_table(clips), config)


def pairs(clips: list[Clip], **settings: object) -> set[tuple[int, int]]:
    table = mined(clips, **settings)[1]
    return set(zip(table["anchor_id"].to_pylist(), table["positive_id"].to_pylist(), strict=True))


def walk(start: float, step: float, count: int, *, y: float = 0.0, **more: object) -> list[list[object]]:
    return [[(start + step * i, y, start + step * i + 40, y + 40, more)] for i in range(count)]


@pytest.mark.parametrize("linker", ["direct", "assigned", "chained"])
@pytest.mark.parametrize("interval", ["1s", "10frames", "2captures"])
def test_a_clip_of_known_boxes_gives_exactly_the_pairs_of_the_interval(interval: str, linker: str) -> None:
    boxes = walk(0, 5, 6)
    boxes[3] = []  # missed by the detector
    clip = Clip("a", boxes, every=5)
    static, table = mined([clip], interval=interval, linker=linker)
    rows = table.to_pylist()
    assert [(row["anchor_id"], row["positive_id"]) for row in rows] == [(box("a", i), box("a", i + 2)) for i in (0, 2)]
    for row in rows:
        assert row["iou"] == pytest.approx(30 / 50)
        # chained: 5 pixels on in the next frame, as long as nothing was predicted
        least = {box("a", 0): 35 / 45, box("a", 2): 1.0}[row["anchor_id"]]
        assert row["margin"] == pytest.approx(least if linker == "chained" else 30 / 50)
        assert (row["gap_s"], row["gap_frames"], row["camera_id"]) == (1.0, 10, "cam")
        assert row["min_score"] == pytest.approx(0.9)
        assert (row["anchor_pack"], row["positive_pack"]) == ("pack", "pack")
        followed = (0, 1, 2, 4, 5) if linker == "chained" else (0, 2, 4)
        assert row["tracklet_id"] == min(box("a", i) for i in followed)
    assert [row["anchor_row"] for row in rows] == [0, 2]
    assert [row["positive_row"] for row in rows] == [2, 3]
    assert {row["sequence_id"] for row in rows} == set(static["sequence_id"].to_pylist())
    assert static["static"].to_pylist() == [False] * 5


def test_between_files_the_gap_is_in_seconds_and_not_in_frames() -> None:
    clips = [Clip("a", walk(0, 0, 3), every=5), Clip("b", walk(2, 0, 3), every=5, at_s=20.0)]
    rows = mined(clips, interval="20s", linker="assigned")[1].to_pylist()
    assert pairs(clips, interval="20s") == set()  # nothing was followed from one file to the next
    expected = {(box("a", i), box("b", i)) for i in range(3)}
    assert {(row["anchor_id"], row["positive_id"]) for row in rows} == expected
    assert {(row["gap_s"], row["gap_frames"]) for row in rows} == {(20.0, None)}
    assert len({row["sequence_id"] for row in rows}) == 1


def test_low_scores_and_other_categories_stand_in_no_pair() -> None:
    boxes = walk(0, 1, 4)
    boxes[1] = [(1, 0, 41, 40, {"score": 0.2})]
    boxes[3] = [(3, 0, 43, 40, {"category": "person"})]
    clip = Clip("a", boxes, every=5)
    assert pairs([clip], interval="0.5s", min_score=0.25) == set()
    assert pairs([clip], interval="0.5s", min_score=0.2) == {(box("a", 0), box("a", 1)), (box("a", 1), box("a", 2))}
    assert pairs([clip], interval="1s") == {(box("a", 0), box("a", 2))}
    both = ("animal", "person")
    assert pairs([clip], interval="1s", min_score=0.1, categories=both) == {(box("a", 0), box("a", 2))}


def test_a_score_as_stored_equals_the_threshold_as_written() -> None:
    clip = Clip("a", walk(0, 0, 2, score=0.3), every=5)
    assert len(pairs([clip], interval="0.5s", min_score=0.3)) == 1


def test_static_boxes_stand_in_no_pair_and_are_told() -> None:
    rock, animal = (0, 0, 40, 40, {"motion": 0.01}), (100, 0, 140, 40, {"motion": 0.4})
    clip = Clip("a", [[rock, animal] for _ in range(10)], every=5)
    static, table = mined([clip], interval="0.5s")
    by_id = {row["detection_id"]: row for row in static.to_pylist()}
    assert all(by_id[box("a", i, 0)]["static"] and not by_id[box("a", i, 1)]["static"] for i in range(10))
    assert by_id[box("a", 0, 0)]["motion"] == pytest.approx(0.01)
    assert set(table["anchor_id"].to_pylist()) == {box("a", i, 1) for i in range(9)}
    assert len(pairs([clip], interval="0.5s", remove_static=False)) == 18


def test_relative_boxes_of_results_without_media_are_linked_too() -> None:
    frame = [(0.1, 0.1, 0.4, 0.5, {"crop_pack": None, "crop_row": None})]
    clip = Clip("a", [frame, frame], every=5, at_s=None)
    static, table = mined([clip], interval="0.5s")
    (row,) = table.to_pylist()
    assert (row["iou"], row["anchor_pack"], row["positive_row"]) == (1.0, None, None)
    assert static["motion"].to_pylist() == [None, None]


def test_two_boxes_on_one_animal_do_not_make_it_ambiguous() -> None:
    twice = [(0, 0, 40, 40, {"score": 0.9}), (1, 1, 40, 40, {"score": 0.6})]
    clip = Clip("a", [twice, twice], every=5)
    assert pairs([clip], interval="0.5s") == {(box("a", 0), box("a", 1))}
    assert len(pairs([clip], interval="0.5s", linker="direct")) == 4


def test_the_order_of_rows_makes_no_difference() -> None:
    rng = np.random.default_rng(1)
    clips = [
        Clip(
            f"c{i}",
            [[tuple(np.r_[corner, corner + 30].tolist()) for corner in rng.uniform(0, 90, (4, 2))] for _ in range(12)],
            every=5,
            at_s=20.0 * i,
            camera=f"cam{i % 2}",
        )
        for i in range(6)
    ]
    sequences = assign_sequences(media_table(clips), gap_s=60)
    frames, detections = frames_table(clips), detections_table(clips)
    config = Config.load(None, {"mine.interval": "1s", "mine.min_margin": 0.02}).mine
    static, table = mine_tables(sequences, frames, detections, config)
    assert table.num_rows > 10
    shuffled = mine_tables(
        sequences,
        frames.take(pa.array(rng.permutation(len(frames)))),
        detections.take(pa.array(rng.permutation(len(detections)))),
        config,
    )
    assert shuffled[0].equals(static)
    assert shuffled[1].equals(table)


def test_an_animal_that_walked_on_is_paired_without_any_overlap() -> None:
    clip = Clip("a", walk(0, 20, 8), every=2)
    table = mined([clip], interval="1s")[1]
    assert set(zip(table["anchor_id"].to_pylist(), table["positive_id"].to_pylist(), strict=True)) == {
        (box("a", i), box("a", i + 5)) for i in range(3)
    }
    assert table["iou"].to_pylist() == [0.0] * 3
    assert set(table["tracklet_id"].to_pylist()) == {min(box("a", i) for i in range(8))}
    assert pairs([clip], interval="1s", linker="assigned") == set()


def test_frames_further_apart_than_the_link_gap_are_not_linked() -> None:
    clip = Clip("a", walk(0, 1, 4), every=30)
    assert pairs([clip], interval="3s") == set()
    assert len(pairs([clip], interval="3s", link_gap="3s")) == 3


def test_crowded_frames_stand_in_no_pair() -> None:
    near, far = (0, 0, 40, 40), (200, 0, 240, 40)
    clip = Clip("a", [[near], [near], [near, far], [near, far], [near, far]], every=5)
    assert len(pairs([clip], interval="0.5s")) == 6
    assert pairs([clip], interval="0.5s", max_animals=1) == {(box("a", 0), box("a", 1))}


def test_drawn_gaps_fall_off_to_the_interval_and_depend_on_the_frame_alone() -> None:
    clip = Clip("a", walk(0, 0, 3000), every=1)
    table = mined([clip], interval="10s", gaps="decreasing", remove_static=False)[1]
    gaps = np.array(table["gap_s"])
    assert gaps.min() > 0
    assert gaps.max() <= 10.05
    shares = np.histogram(gaps, bins=4, range=(0, 10))[0] / len(gaps)
    assert shares == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16], abs=0.03)
    with_more = mined([clip, Clip("b", walk(0, 0, 9), camera="cam0")], interval="10s", gaps="decreasing",
                      remove_static=False)[1]  # fmt: skip
    wanted = set(zip(table["anchor_id"].to_pylist(), table["positive_id"].to_pylist(), strict=True))
    assert wanted <= set(zip(with_more["anchor_id"].to_pylist(), with_more["positive_id"].to_pylist(), strict=True))


def _purity(name: str, gap: int, *, linker: str, seed: int) -> tuple[int, float]:
    """Pairs from truth boxes with 5 % jitter of which 10 % are dropped, and the share that joins one individual."""
    folder = Path(os.environ["WILDRAY_TEST_DATA"]) / "tracks"
    truth = np.loadtxt(folder / f"{name}_gt_mot.txt", delimiter=",")
    rng = np.random.default_rng(seed)
    truth = truth[rng.uniform(size=len(truth)) >= 0.1]
    size = truth[:, 4:6]
    corners = np.concatenate([truth[:, 2:4], truth[:, 2:4] + size], axis=1)
    corners += rng.normal(0, 0.05, corners.shape) * np.tile(size, 2)
    num_frames = int(truth[:, 0].max())
    boxes: list[list[object]] = [[] for _ in range(num_frames)]
    identity = {}
    for row, xyxy in zip(truth, corners, strict=True):
        frame = int(row[0]) - 1
        identity[box(name, frame, len(boxes[frame]))] = int(row[1])
        boxes[frame].append(tuple(xyxy.tolist()))
    found = pairs(
        [Clip(name, boxes, fps=25.0)], interval=f"{gap}frames", linker=linker, min_margin=0.0, remove_static=False
    )
    return len(found), float(np.mean([identity[a] == identity[b] for a, b in found]))


@pytest.mark.real_data
@pytest.mark.skipif("WILDRAY_TEST_DATA" not in os.environ, reason="WILDRAY_TEST_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "gap", "direct", "assigned"),
    [
        ("Koi_5652_952_540", 1, (1486, 0.875), (1302, 0.998)),
        ("Koi_5652_952_540", 12, (1342, 0.846), (1159, 0.966)),
        ("Koi_5652_952_540", 120, (435, 0.018), (345, 0.023)),
        ("Pigeons_29033_960_540_300f", 1, (4933, 0.773), (3851, 0.988)),
        ("Pigeons_29033_960_540_300f", 25, (4453, 0.665), (3199, 0.885)),
        ("Pigeons_8234_1280_720", 1, (6053, 0.630), (3830, 0.993)),
        ("Pigeons_8234_1280_720", 120, (3517, 0.148), (1863, 0.176)),
    ],
)
def test_purity_on_real_tracks_is_as_measured_before(
    name: str, gap: int, direct: tuple[int, float], assigned: tuple[int, float]
) -> None:
    for linker, (count, share) in (("direct", direct), ("assigned", assigned)):
        found, pure = _purity(name, gap, linker=linker, seed=0)
        assert found == pytest.approx(count, rel=0.05), linker
        assert pure == pytest.approx(share, abs=0.02), linker

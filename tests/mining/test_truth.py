"""Detections laid over true boxes: optimal, one-to-one, and counted on both sides."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildray.errors import DataError
from wildray.mining.boxes import iou_matrix
from wildray.mining.matching import identity_codes, match
from wildray.mining.truth import CORNERS, TRUTH, Truth, read_truth
from wildray.schema import MEDIA


def truth_table(rows: list[tuple[str, int, str, tuple[float, ...]]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"file": file, "frame_index": frame, "identity": name, **dict(zip(CORNERS, box, strict=True))}
            for file, frame, name, box in rows
        ],
        schema=TRUTH,
    )


def detections(rows: list[tuple[str, int, tuple[float, ...]]], **columns: list[object]) -> pa.Table:
    table = {"media_id": [row[0] for row in rows], "frame_index": pa.array([row[1] for row in rows], pa.int32())}
    corners = {name: pa.array([float(row[2][i]) for row in rows], pa.float32()) for i, name in enumerate(CORNERS)}
    return pa.table({**table, **corners, **columns})


def media(*uris: str) -> pa.Table:
    rows = [
        {
            "media_id": uri, "uri": uri, "kind": "video", "camera_id": "c", "clock_flag": "none", "num_duplicates": 0,
            "status": "done",
        }
        for uri in uris
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=MEDIA)


def best_total(iou: np.ndarray, min_iou: float) -> float:
    """Largest total overlap of a one-to-one matching, by trying all."""
    iou = np.where(iou >= min_iou, iou, 0.0)
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    num_rows, num_columns = iou.shape
    ways = itertools.permutations(range(num_columns), num_rows)
    return max((sum(iou[row, column] for row, column in enumerate(way)) for way in ways), default=0.0)


box = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 25), st.integers(1, 25)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
frames_of_boxes = st.lists(st.tuples(st.lists(box, max_size=4), st.lists(box, max_size=4)), min_size=1, max_size=3)


@given(frames=frames_of_boxes, min_iou=st.sampled_from([0.1, 0.3, 0.6]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_against_all_matchings_whatever_the_order_of_the_rows(frames, min_iou, seed):
    true_rows = [("a", f, f"{f}-{i}", b) for f, (true, _) in enumerate(frames) for i, b in enumerate(true)]
    rows = [("m", f, b) for f, (_, found) in enumerate(frames) for b in found]
    rng = np.random.default_rng(seed)
    true_rows = [true_rows[i] for i in rng.permutation(len(true_rows))]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    truth, found = truth_table(true_rows), detections(rows)
    looked = pa.table({"media_id": ["m"] * len(frames), "frame_index": list(range(len(frames)))})
    got = match(found, truth, {"m": "a"}, frames=looked, min_iou=min_iou)
    taken = got.place[got.place >= 0]
    assert len(set(taken.tolist())) == len(taken)
    total = 0.0
    for row in np.flatnonzero(got.place >= 0):
        assert true_rows[got.place[row]][1] == rows[row][1]
        iou = iou_matrix([rows[row][2]], [true_rows[got.place[row]][3]])[0, 0]
        assert iou >= min_iou
        total += iou
    wanted = sum(best_total(iou_matrix(t or np.zeros((0, 4)), f or np.zeros((0, 4))), min_iou) for t, f in frames)
    assert abs(total - wanted) < 1e-9
    assert got.num_unmatched_detections == len(rows) - len(taken)
    assert got.num_unmatched_truth == len(true_rows) - len(taken)
    counts = [sum(row[1] == f for row in true_rows) for f in range(len(frames))]
    assert got.num_animals.tolist() == [counts[row[1]] for row in rows]


def test_two_boxes_on_one_animal_are_not_both_it() -> None:
    truth = truth_table([("a", 0, "ann", (0, 0, 10, 10))])
    got = match(detections([("m", 0, (0, 0, 10, 9)), ("m", 0, (0, 0, 10, 10))]), truth, {"m": "a"})
    assert got.place.tolist() == [-1, 0]
    assert identity_codes(truth, got.place).tolist() == [-1, 0]


def test_a_part_of_one_animal_is_told_from_a_box_of_none_or_of_two() -> None:
    truth = truth_table([("a", 0, "ann", (0, 0, 10, 10)), ("a", 0, "bob", (5, 0, 15, 10))])
    boxes = [(0, 0, 10, 9), (0, 0, 3, 3), (6, 0, 9, 3), (-3, 0, 2, 4), (5, 0, 15, 10), (30, 30, 40, 40)]
    got = match(detections([("m", 0, box) for box in boxes]), truth, {"m": "a"})
    assert got.place.tolist() == [0, -1, -1, -1, 1, -1]
    assert got.part.tolist() == [-1, 0, -1, -1, -1, -1]  # the third lies in both, the fourth mostly outside
    assert got.shown.tolist() == [0, 0, -1, -1, 1, -1]
    assert (got.num_parts, got.num_unmatched_detections) == (1, 4)


def test_truth_is_counted_in_frames_that_were_looked_at_only() -> None:
    truth = truth_table([("a", frame, "ann", (0, 0, 10, 10)) for frame in range(6)])
    looked = pa.table({"media_id": ["m", "m", "other"], "frame_index": [0, 3, 1]})
    found = detections([("m", 0, (0, 0, 10, 10)), ("other", 1, (0, 0, 10, 10))])
    got = match(found, truth, {"m": "a"}, frames=looked)
    assert (got.num_truth, got.num_unmatched_truth, got.num_unmatched_detections) == (2, 1, 0)
    assert got.covered.tolist() == [True, False]
    assert got.place.tolist() == [0, -1]


def test_relative_boxes_are_refused() -> None:
    truth = truth_table([("a", 0, "ann", (0, 0, 10, 10))])
    found = detections([("m", 0, (0, 0, 1, 1))], width_px=pa.array([None], pa.int32()))
    with pytest.raises(DataError, match=r"--detect\.frame-size"):
        match(found, truth, {"m": "a"})


def truth_of(*files: str, folders: tuple[str, ...] = ()) -> Truth:
    table = truth_table([(file, 0, "ann", (0, 0, 1, 1)) for file in files])
    return Truth(table, frozenset(folders), "0", ("truth.txt",))


def test_media_are_found_by_name() -> None:
    truth = truth_of("pond", "cam1/a.mp4", folders=("cam1",))
    names = {
        "/footage/pond.mp4": "pond",
        "results:0123/pond": "pond",
        "results:0123/cam1/a": "cam1/a.mp4",
        "/r/media/cam1/a.mp4": "cam1/a.mp4",
        "/r/media/cam1/empty.mp4": "cam1/empty.mp4",
    }
    assert truth.files_of(media(*names)) == names


def test_media_without_truth_are_refused_unless_the_rest_is_asked_for() -> None:
    truth = truth_of("pond")
    with pytest.raises(DataError, match=r"No truth for 1 of 2 media, such as /x/lake\.mp4.*tell of pond.*--partial"):
        truth.files_of(media("/x/pond.mp4", "/x/lake.mp4"))
    assert truth.files_of(media("/x/pond.mp4", "/x/lake.mp4"), partial=True) == {"/x/pond.mp4": "pond"}
    with pytest.raises(DataError, match="No truth for 1 of 1 media"):
        truth.files_of(media("/x/lake.mp4"), partial=True)


def test_files_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "pond_gt.txt").write_text("1,3,0,0,10,10\n2,3,0,0,10,10\n")
    truth = read_truth([tmp_path / "pond_gt.txt"])
    assert truth.boxes["identity"].to_pylist() == ["pond:3"] * 2
    assert truth.boxes["frame_index"].to_pylist() == [0, 1]
    reserve = tmp_path / "boxes.parquet"
    table = truth_table([("cam1/a.mp4", 0, "ann", (0, 0, 1, 1)), ("cam1/a.mp4", 0, "stump", (0, 0, 2, 2))])
    pq.write_table(table.append_column("mot_id", pa.array([1, 0], pa.int32())), reserve)
    both = read_truth([tmp_path / "pond_gt.txt", reserve])
    assert both.boxes["identity"].to_pylist() == ["pond:3", "pond:3", "ann"]
    assert both.folders == {"cam1"}
    assert both.digest != truth.digest == read_truth([tmp_path / "pond_gt.txt"]).digest
    (tmp_path / "pond.txt").write_text("1,3,0,0,10,10\n")
    with pytest.raises(DataError, match=r"tell of pond\. Give one"):
        read_truth([tmp_path / "pond_gt.txt", tmp_path / "pond.txt"])
    pq.write_table(table, reserve)
    with pytest.raises(DataError, match=r"has no column mot_id; it has file, .*wildray simulate"):
        read_truth([reserve])
    reserve.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_truth([reserve])
    with pytest.raises(DataError, match=r"unknown kind '\.csv'"):
        read_truth([tmp_path / "x.csv"])
    with pytest.raises(DataError, match="No truth was given"):
        read_truth([])

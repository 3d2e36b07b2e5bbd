import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from learning_store import DETECTIONS_DIGEST, PAIRS_DIGEST, make_store

from bench.truth_labels import label_crops
from wildray.errors import DataError
from wildray.labelled import open_labelled
from wildray.learning.labels import read_labels
from wildray.packs import PackReader
from wildray.schema import DETECTIONS, MEDIA
from wildray.simulate.truth import BOXES


def truth_row(media, frame, identity, xyxy, *, mot_id=1):
    corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), xyxy, strict=True))
    return {
        "file": f"cam0/{media}.mp4", "camera_id": "cam0", "frame_index": frame, "time_s": 0.0,
        "captured_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "identity": identity, "mot_id": mot_id,
        "species": "striped", "activity": "walking", "flank": "left", "visibility": 1.0, "infrared": False, **corners,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Four pairs: pair p shows medium p in frames 10 p and 10 p + 1, boxes (p, 2) to (p + 30, 40 or 41)."""
    store = make_store(str(tmp_path / "s"), num_pairs=4)
    media = [
        {
            "media_id": f"{number:032x}", "uri": f"/footage/media/cam0/{number}.mp4", "kind": "video",
            "camera_id": "cam0", "clock_flag": "ok", "num_duplicates": 0, "status": "done",
        }
        for number in range(4)
    ]  # fmt: skip
    store.collection("detections", DETECTIONS_DIGEST).write("media", "all", pa.Table.from_pylist(media, schema=MEDIA))
    return store


def write_truth(path, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=BOXES), path)
    return path


def test_crops_get_the_identity_of_the_animal_they_overlap_most(store, tmp_path):
    rows = [
        truth_row(0, 0, "ann", (0, 2, 30, 40)),
        truth_row(0, 1, "ann", (20, 2, 50, 40)),  # IoU with the box at 0 to 30: 0.2
        truth_row(0, 1, "bob", (5, 2, 35, 40)),
        truth_row(1, 10, "ann", (29, 2, 60, 40)),  # IoU under 0.2
        truth_row(1, 12, "ann", (1, 2, 31, 41)),  # another frame
        truth_row(2, 20, "stump", (2, 2, 32, 40), mot_id=0),
        truth_row(3, 31, "cat", (3, 2, 33, 41)),
    ]
    truth = write_truth(tmp_path / "boxes.parquet", rows)
    digest = label_crops(store, truth)
    labelled = open_labelled(store, digest)
    assert labelled.column("identity") == ["ann", "bob", "cat"]
    assert labelled.num_skipped == 5
    assert labelled.column("image_id") == [f"{1000 + number:016x}" for number in (0, 1, 7)]
    crops = store.collection("detections", DETECTIONS_DIGEST).read("detections", DETECTIONS).to_pylist()
    crop_of = {crop["detection_id"]: crop for crop in crops}
    reader = PackReader(store, ("crops", DETECTIONS_DIGEST))
    for row, number in enumerate((1000, 1001, 1007)):
        jpeg = reader.jpeg(crop_of[number]["crop_pack"], crop_of[number]["crop_row"])
        assert labelled.reader().jpeg("images-000", row) == jpeg
    assert read_labels(store, digest).identities == ("ann", "bob", "cat")
    assert store.newest("labelled") is None
    assert label_crops(store, truth, pairs=PAIRS_DIGEST) == digest
    assert label_crops(store, truth, min_iou=0.9) != digest


def test_the_truth_of_another_reserve_is_refused(store, tmp_path):
    truth = write_truth(tmp_path / "boxes.parquet", [truth_row(9, 0, "ann", (0, 2, 30, 40))])
    with pytest.raises(DataError, match="another reserve"):
        label_crops(store, truth)

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from wildray.errors import DataError
from wildray.mining.detectors.results import read_results
from wildray.mining.detectors.results_file import FORMAT_VERSION
from wildray.mining.detectors.results_writer import write_results
from wildray.mining.inputs import MediaItem
from wildray.schema import DETECTIONS, FRAMES, MEDIA


def sample() -> dict[str, Any]:
    """A results file of every kind of entry."""
    return {
        "info": {"format_version": "1.6", "detector": "md_v5a.0.0.pt"},
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "images": [
            {
                "file": "site1/a.jpg",
                "detections": [
                    {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]},
                    {"category": "2", "conf": 0.4, "bbox": [0.9, -0.05, 0.3, 0.15]},
                ],
            },
            {"file": "site1/empty.jpg", "detections": []},
            {"file": "site1/broken.jpg", "failure": "Failure image access", "detections": None},
            {
                "file": "site2/v.mp4",
                "frame_rate": 30.0,
                "frames_processed": [0, 15, 30],
                "detections": [
                    {"category": "1", "conf": 0.5, "bbox": [0, 0, 0.5, 0.5], "frame_number": 30},
                    {"category": "3", "conf": 0.7, "bbox": [0.5, 0.5, 0.5, 0.5], "frame_number": 0},
                    {"category": "1", "conf": 0.6, "bbox": [0.5, 0.5, 0, 0.5], "frame_number": 0},
                ],
            },
        ],
    }


def write(folder: Path, content: object) -> Path:
    path = folder / "md.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_frames_and_failures(tmp_path: Path) -> None:
    results = read_results(write(tmp_path, sample()), frame_size="200x100")
    items = {item.uri.rpartition("/")[2]: item for item in results.items()}
    assert list(items) == ["a.jpg", "empty.jpg", "broken.jpg", "v.mp4"]
    assert [item.kind for item in items.values()] == ["still", "still", "still", "video"]
    assert [item.camera_id for item in items.values()] == ["site1", "site1", "site1", "site2"]
    still = results.boxes_of(items["a.jpg"].uri, 0, frame_size_px=(200, 100))
    np.testing.assert_allclose(still.xyxy_px, [[20, 20, 80, 60], [180, 0, 200, 10]], atol=1e-4)
    assert still.category.tolist() == ["animal", "person"]
    np.testing.assert_allclose(still.score, [0.9, 0.4])
    relative = results.boxes_of(items["a.jpg"].uri, 0).xyxy_px
    np.testing.assert_allclose(relative, [[0.1, 0.2, 0.4, 0.6], [0.9, 0, 1, 0.1]], atol=1e-6)
    rows = [
        (frame, time_s, boxes.category.tolist()) for frame, time_s, boxes, _ in results.frames_at(items["v.mp4"].uri)
    ]
    assert rows == [(0, 0.0, ["vehicle"]), (15, 0.5, []), (30, 1.0, ["animal"])]
    assert results.frames_of(items["v.mp4"].uri) == (0, 15, 30)
    assert results.frames_of(items["empty.jpg"].uri) == (0,)
    assert results.frames_of(items["broken.jpg"].uri) == ()
    broken, video = results.media_row(items["broken.jpg"]), results.media_row(items["v.mp4"])
    assert (broken["status"], broken["error"]) == ("unreadable", "Failure image access")
    assert (video["kind"], video["fps"], video["width_px"], video["height_px"]) == ("results", 30.0, 200, 100)
    assert set(video) <= set(MEDIA.names)
    assert results.detector == "md_v5a.0.0.pt"


def test_the_address_of_absent_media_follows_the_files_bytes_and_the_name(tmp_path: Path) -> None:
    first = read_results(write(tmp_path, sample()))
    uris = [item.uri for item in first.items()]
    assert len(set(uris)) == 4
    assert all(first.is_absent(uri) and first.digest in uri for uri in uris)
    assert [item.uri for item in read_results(write(tmp_path, sample())).items()] == uris
    changed = sample()
    changed["images"][0]["detections"][0]["conf"] = 0.91
    other = read_results(write(tmp_path, changed))
    assert set(uris).isdisjoint(item.uri for item in other.items())
    assert other.entry(uris[0]) is None


def test_media_at_hand_are_found_beside_and_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "site1").mkdir()
    (tmp_path / "site1" / "a.jpg").write_bytes(b"x")
    results = read_results(write(tmp_path, sample()))
    elsewhere = MediaItem("/mnt/card/site2/v.mp4", "video", "river", "2024-01-01T00:00:00")
    unknown = MediaItem("/mnt/card/site2/w.mp4", "video", "river")
    items = results.items([elsewhere, unknown])
    assert items[0].uri == str(tmp_path / "site1" / "a.jpg")
    assert items[3] is elsewhere
    assert results.is_absent(items[1].uri)
    assert not results.is_absent(items[0].uri)
    assert len(results.boxes_of(elsewhere.uri, 30)) == 1
    assert len(results.boxes_of(items[0].uri, 0)) == 2
    with pytest.raises(DataError, match="says nothing of"):
        results.boxes_of(unknown.uri, 0)
    with pytest.raises(DataError, match="Two files could be"):
        results.items([elsewhere, MediaItem("/mnt/other/site2/v.mp4", "video", "river")])


def test_names_with_backslashes_are_found(tmp_path: Path) -> None:
    content = sample()
    content["images"][0]["file"] = "site1\\a.jpg"
    results = read_results(write(tmp_path, content))
    assert len(results.boxes_of("/mnt/site1/a.jpg", 0)) == 2


def test_results_travel_between_processes(tmp_path: Path) -> None:
    results = read_results(write(tmp_path, sample()))
    uri = results.items()[3].uri
    assert pickle.loads(pickle.dumps(results)).boxes_of(uri, 30) == results.boxes_of(uri, 30)


def test_files_before_frames_were_listed(tmp_path: Path) -> None:
    content = sample()
    content["info"]["format_version"] = "1.3"
    del content["images"][3]["frames_processed"]
    results = read_results(write(tmp_path, content))
    assert results.frames_of(results.items()[3].uri) == (0, 30)


def place(content: dict[str, Any], path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    node: Any = content
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return content


BOX = ("images", 0, "detections", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("info",), ..., "has no 'info'"),
        (("info", "format_version"), 1.6, r"info.format_version: got 1.6, expected a string"),
        (("info", "format_version"), "2.0", "another version 1"),
        (("detection_categories",), [], "detection_categories: got"),
        (("detection_categories", "1"), None, "expected a string"),
        (("images",), {}, "images: got {}, expected a list"),
        (("images", 1), 7, r"images\[1\]: got 7, expected an object"),
        (("images", 1, "file"), "", "the name of a file"),
        (("images", 1, "file"), "site1/a.jpg", r"images\[1\].file: .* another name than images\[0\]"),
        (("images", 1, "detections"), None, "or a failure"),
        ((*BOX, "category"), "9", r"images\[0\].detections\[0\].category: got '9', expected one of .*: 1, 2, 3"),
        ((*BOX, "category"), 1, "expected a string"),
        ((*BOX, "conf"), 1.5, r"images\[0\].detections\[0\].conf: got 1.5, expected a number from 0 to 1"),
        ((*BOX, "conf"), "0.9", "expected a number"),
        ((*BOX, "conf"), True, "expected a number"),
        ((*BOX, "conf"), ..., "has no 'conf'"),
        ((*BOX, "bbox"), [0.1, 0.2, 0.3], "four numbers"),
        ((*BOX, "bbox"), [10, 20, 300, 400], "relative to the frame"),
        ((*BOX, "bbox"), [0.1, 0.2, -0.3, 0.4], "relative to the frame"),
        ((*BOX, "bbox"), [0.1, None, 0.3, 0.4], r"bbox\[1\]: got None"),
        ((*BOX, "bbox"), [10**400, 0, 0, 0], "a finite number"),
        (("images", 3, "frame_rate"), 0, "above 0"),
        (("images", 3, "frame_rate"), ..., "has no 'frame_rate'"),
        (("images", 3, "frames_processed"), [0, 30.5], r"frames_processed\[1\]: got 30.5"),
        (("images", 3, "frames_processed"), [0, 15], "expected one of frames_processed"),
        (("images", 3, "detections", 0, "frame_number"), -1, "a whole number from 0"),
        (("images", 3, "detections", 0, "frame_number"), 2**31, "a whole number from 0"),
        (("images", 3, "detections", 0, "frame_number"), ..., "has no 'frame_number'"),
    ],
)
def test_wrong_content_is_refused_with_its_place(
    tmp_path: Path, path: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_results(write(tmp_path, place(sample(), path, value)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"info": ', "not JSON"),
        ("[]", r"the file: got \[\], expected an object"),
        ('{"info": NaN}', "holds NaN"),
        ("[" * 200_000, "nested too deeply"),
        ('{"info": 1' + "0" * 5000 + "}", "not JSON"),
        (json.dumps({"info": "x" * 10_000}), "x{70,}[.]{3}"),
    ],
)
def test_hostile_text(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_results(write(tmp_path, text))
    assert len(str(caught.value)) < 1000


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_results(tmp_path / "gone.json")
    (tmp_path / "md.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not JSON"):
        read_results(tmp_path / "md.json")


def tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    common = {"camera_id": "cam", "clock_flag": "none", "num_duplicates": 0}
    media = [
        {"media_id": "a", "uri": "/data/x/a.jpg", "kind": "still", "status": "done", **common},
        {"media_id": "b", "uri": "/data/x/b.mp4", "kind": "video", "status": "done", "fps": 29.97, **common},
        {"media_id": "c", "uri": "/else/c.avi", "kind": "video", "status": "done", **common},
        {"media_id": "d", "uri": "/data/d.mp4", "kind": "video", "status": "unreadable", "error": "cut off", **common},
    ]
    seen = [("c", 0, 0.0), ("b", 15, 0.5), ("b", 0, 0.0), ("a", 0, 0.0), ("c", 12, 0.5)]
    frames = [
        {"media_id": m, "frame_index": f, "time_s": t, "sampling_pass": 0, "num_boxes": 0, "infrared": False}
        for m, f, t in seen
    ]
    found = [("b", 15, "person", 400, 200), ("a", 0, "okapi", None, None), ("b", 0, "animal", 400, 200)]
    boxes = [
        {
            "detection_id": i, "media_id": m, "camera_id": "cam", "frame_index": f, "time_s": 0.0,
            "width_px": w, "height_px": h, "x1_px": 0.1 * (w or 1), "y1_px": 0.2 * (h or 1), "x2_px": 0.5 * (w or 1),
            "y2_px": 0.8 * (h or 1), "score": 0.25 * (i + 1), "category": c,
        }
        for i, (m, f, c, w, h) in enumerate(found)
    ]  # fmt: skip
    return (
        pa.Table.from_pylist(media, schema=MEDIA),
        pa.Table.from_pylist(frames, schema=FRAMES),
        pa.Table.from_pylist(boxes, schema=DETECTIONS),
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    media, frames, detections = tables()
    path = tmp_path / "out.json"
    write_results(path, media=media, frames=frames, detections=detections, info={"detector": "motion"}, root="/data")
    content = json.loads(path.read_text())
    assert content["info"] == {"detector": "motion", "format_version": FORMAT_VERSION}
    assert content["detection_categories"] == {"1": "animal", "2": "person", "3": "vehicle", "4": "okapi"}
    assert [image["file"] for image in content["images"]] == ["x/a.jpg", "x/b.mp4", "/else/c.avi", "d.mp4"]
    assert "frame_rate" not in content["images"][0]
    assert content["images"][2]["frame_rate"] == 24.0
    assert content["images"][3]["failure"] == "cut off"
    results = read_results(path)
    b = results.entry("/data/x/b.mp4")
    assert b is not None
    assert b.frame_rate is not None
    assert math.isclose(b.frame_rate, 29.97)
    assert b.frames.tolist() == [0, 15]
    assert b.category.tolist() == ["animal", "person"]
    np.testing.assert_allclose(b.score, [0.75, 0.25])
    np.testing.assert_allclose(b.xyxy, [[0.1, 0.2, 0.5, 0.8]] * 2, atol=1e-6)
    a = results.entry("/data/x/a.jpg")
    assert a is not None
    np.testing.assert_allclose(a.xyxy, [[0.1, 0.2, 0.5, 0.8]], atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json"]


def test_results_of_a_results_file_keep_its_names(tmp_path: Path) -> None:
    results = read_results(write(tmp_path, sample()))
    rows = []
    for number, item in enumerate(results.items()):
        rows.append(results.media_row(item) | {"media_id": str(number), "clock_flag": "none", "num_duplicates": 0})
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    write_results(
        tmp_path / "again.json", media=media, frames=FRAMES.empty_table(), detections=DETECTIONS.empty_table(), info={}
    )
    assert list(read_results(tmp_path / "again.json").files) == list(results.files)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    media, frames, detections = tables()
    with pytest.raises(DataError, match="cannot be written"):
        write_results(tmp_path / "no" / "x.json", media=media, frames=frames, detections=detections, info={})

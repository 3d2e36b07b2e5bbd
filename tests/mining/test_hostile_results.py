"""A results file may be anybody's: it opens nothing outside its folder that the user did not name too."""

import json
import logging

import pytest

from wildray.errors import DataError
from wildray.mining.detectors.results import read_results
from wildray.mining.inputs import find_media


def write(folder, *files):
    images = [{"file": file, "detections": [{"category": "1", "conf": 0.9, "bbox": [0, 0, 1, 1]}]} for file in files]
    content = {"info": {"format_version": "1.6"}, "detection_categories": {"1": "animal"}, "images": images}
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder / "results.json"


def test_names_that_lead_out_are_not_opened_unless_the_user_names_them(tmp_path, caplog):
    outside = tmp_path / "private" / "a.jpg"
    outside.parent.mkdir()
    outside.write_bytes(b"x")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "b.jpg").write_bytes(b"x")
    names = ("../private/a.jpg", str(outside), "sub/../../private/a.jpg", "/etc/passwd", "b.jpg")
    results = read_results(write(tmp_path / "given", *names))
    with caplog.at_level(logging.WARNING):
        items = results.items()
    assert [results.is_absent(item.uri) for item in items] == [True, True, True, True, False]
    assert "names 4 files outside its folder, such as '../private/a.jpg'; they are not opened" in caplog.text
    assert len(results.boxes_of(items[0].uri, 0)) == 1  # the boxes themselves are there
    named = results.items(find_media([str(outside.parent)]))
    assert [item.uri for item in named if not results.is_absent(item.uri)] == [
        str(outside),
        str(tmp_path / "given" / "b.jpg"),
    ]


def test_a_results_file_named_by_a_roundabout_path_finds_what_lies_beside_it(tmp_path):
    write(tmp_path / "given", "b.jpg")
    (tmp_path / "given" / "b.jpg").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    results = read_results(tmp_path / "other" / ".." / "given" / "results.json")
    assert [item.uri for item in results.items()] == [str(tmp_path / "given" / "b.jpg")]


def test_text_that_no_table_can_hold_is_refused(tmp_path):
    path = write(tmp_path / "given", "\ud800.jpg")
    with pytest.raises(DataError, match=r"images\[0\]\.file: got '\\ud800\.jpg', expected text that can be written"):
        read_results(path)

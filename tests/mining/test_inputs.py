import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wildray.errors import ConfigError, DataError
from wildray.mining.inputs import MediaItem, camera_of, find_media


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def cameras(items):
    return {os.path.basename(item.uri): item.camera_id for item in items}


def test_a_folder_is_searched_through_and_its_folders_are_cameras(tmp_path):
    for name in (
        "site 1/camA/DCIM/100EKTAM/1.AVI",
        "site 1/camA/DCIM/101EKTAM/2.avi",
        "site 1/Taï_B/3.Mp4",
        "site 2/camA/4.jpg",
        "5.mov",
        "notes.txt",
        "site 1/camA/._1.AVI",
        ".hidden/6.avi",
    ):
        touch(tmp_path / name)
    items = find_media([str(tmp_path)])
    assert cameras(items) == {
        "1.AVI": "site 1/camA",
        "2.avi": "site 1/camA",
        "3.Mp4": "site 1/Taï_B",
        "4.jpg": "site 2/camA",
        "5.mov": tmp_path.name,
    }
    assert {item.kind for item in items if item.uri.endswith("jpg")} == {"still"}
    assert all(os.path.isabs(item.uri) for item in items)


def test_the_order_is_fixed_and_counts_numbers_as_numbers(tmp_path):
    for name in ("b/IMG_10.AVI", "b/IMG_9.AVI", "a/IMG_11.AVI"):
        touch(tmp_path / name)
    names = [Path(item.uri).name for item in find_media([str(tmp_path)])]
    assert names == ["IMG_11.AVI", "IMG_9.AVI", "IMG_10.AVI"]
    shuffled = [str(tmp_path / "b/IMG_9.AVI"), str(tmp_path), str(tmp_path / "b")]
    assert [Path(item.uri).name for item in find_media(shuffled)] == [Path(i.uri).name for i in find_media(shuffled)]
    assert len(find_media(shuffled)) == 3


@pytest.mark.parametrize(
    ("folder", "camera"),
    [
        ("cam/DCIM/100EKTAM", "cam"),
        ("cam/100_BTCF", "cam"),
        ("20161106", "20161106"),  # a date, not a counter of the camera's
        ("site/12345678", "site/12345678"),
        ("a/DCIM/b", "a/DCIM/b"),
    ],
)
def test_folders_that_cameras_make_are_not_places(folder, camera):
    assert camera_of(f"/root/{folder}/1.avi", "/root") == camera


def test_a_card_given_as_it_is_takes_the_name_above_it():
    assert camera_of("/data/cam7/DCIM/100EKTAM/1.avi", "/data/cam7/DCIM") == "cam7"


def test_files_given_one_by_one_keep_cameras_of_equal_names_apart(tmp_path):
    files = [touch(tmp_path / f"{site}/camA/DCIM/100EKTAM/{site}.avi") for site in ("north", "south")]
    assert set(cameras(find_media(files)).values()) == {"north/camA", "south/camA"}
    assert cameras(find_media(files[:1])) == {"north.avi": "camA"}


def test_globs_count_from_their_fixed_part(tmp_path):
    for name in ("north/camA/1.avi", "south/camA/2.avi", "south/camA/notes.txt"):
        touch(tmp_path / name)
    items = find_media([str(tmp_path / "*" / "**" / "*")])
    assert cameras(items) == {"1.avi": "north/camA", "2.avi": "south/camA"}


def test_file_addresses_are_paths(tmp_path):
    path = touch(tmp_path / "a b%.avi")
    assert find_media([Path(path).as_uri()])[0].uri == path
    with pytest.raises(ConfigError, match="Mount or copy"):
        find_media(["s3://bucket/a.avi"])
    with pytest.raises(ConfigError, match="the host 'elsewhere'"):
        find_media(["file://elsewhere/a.avi"])


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        find_media([str(tmp_path / "none.avi")])
    with pytest.raises(DataError, match="no media in this folder"):
        find_media([str(tmp_path)])
    with pytest.raises(DataError, match="no media match"):
        find_media([str(tmp_path / "*.avi")])
    with pytest.raises(ConfigError, match="No media were named"):
        find_media([])
    with pytest.raises(ConfigError, match=r"unknown kind '\.docx'"):
        find_media([touch(tmp_path / "a.docx")])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_manifests_say_camera_and_time(tmp_path, suffix):
    touch(tmp_path / "clips/a.avi")
    columns = {
        "uri": ["clips/a.avi", "clips/missing.avi", str(tmp_path / "clips" / "b.jpg")],
        "camera_id": ["K7", "", "K7"],
        "captured_at": ["2024-05-01T06:30:00+02:00", "", "2024-05-01 07:00:00"],
    }
    manifest = tmp_path / f"media.{suffix}"
    if suffix == "csv":
        rows = zip(*columns.values(), strict=True)
        manifest.write_text("\ufeff" + "\n".join([",".join(columns), *(",".join(row) for row in rows)]) + "\n", "utf-8")
    else:
        nullable = {name: [value or None for value in values] for name, values in columns.items()}
        pq.write_table(pa.table(nullable), manifest)
    items = {Path(item.uri).name: item for item in find_media([str(manifest)])}
    assert items["a.avi"] == MediaItem(str(tmp_path / "clips/a.avi"), "video", "K7", "2024-05-01T06:30:00+02:00")
    assert items["missing.avi"] == MediaItem(str(tmp_path / "clips/missing.avi"), "video", "clips", None)
    assert items["b.jpg"].kind == "still"


def test_a_parquet_manifest_may_hold_real_times(tmp_path):
    at = datetime(2024, 5, 1, 6, 30, tzinfo=UTC)
    pq.write_table(pa.table({"uri": ["a.avi"], "captured_at": [at]}), tmp_path / "m.parquet")
    assert find_media([str(tmp_path / "m.parquet")])[0].captured_at == "2024-05-01T06:30:00+00:00"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,camera\na.avi,1\n", "has the columns path, camera; expected uri"),
        ("uri\n", "has no rows"),
        ("uri,camera_id\n,a\n", "row 1 has no uri"),
        ("uri,captured_at\na.avi,2024-05-01\nb.avi,noon\n", "row 2: captured_at is 'noon'"),
        ("uri\na.docx\n", "'a.docx' is of an unknown kind"),
    ],
)
def test_manifests_that_do_not_hold_what_is_needed(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        find_media([str(tmp_path / "m.csv")])


def test_a_manifest_that_is_no_table(tmp_path):
    with pytest.raises(DataError, match="not readable as a manifest"):
        find_media([touch(tmp_path / "m.parquet", b"no table")])
    with pytest.raises(DataError, match="not readable as a manifest"):
        find_media([touch(tmp_path / "m.csv", b"uri\n\xff\xfe.avi\n")])

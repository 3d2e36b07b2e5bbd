"""A metadata table is read as it stands, and every fault is named."""

import pytest

from wildray.errors import DataError
from wildray.metadata import parse_bbox, read_metadata

HEADER = "image_id,identity,path\n"


def write(tmp_path, text):
    path = tmp_path / "metadata.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_everything_stays_text(tmp_path):
    text = '\ufeffimage_id,identity,path,bbox,encounter\n007,007,a/b.jpg,"[1, 2, 3, 4]",\n\n8,1e5,c d.jpg,,124\n'
    metadata = read_metadata(write(tmp_path, text))
    assert metadata.columns == ("image_id", "identity", "path", "bbox", "encounter")
    assert metadata.rows[0] == {
        "image_id": "007",
        "identity": "007",
        "path": "a/b.jpg",
        "bbox": "[1, 2, 3, 4]",
        "encounter": "",
    }
    assert metadata.rows[1]["identity"] == "1e5"
    assert metadata.image_path(metadata.rows[1]) == tmp_path / "c d.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (HEADER, "no rows"),
        (b"\xff\xfe\x00i", "not UTF-8"),
        (b"image_id\0,identity,path\n", "no text file"),
        ("image_id,identiti,path\n1,a,x.jpg\n", "no column 'identity'.*Did you mean 'identiti'"),
        ("image_id;identity;path\n1;a;x.jpg\n", "semicolon"),
        ("image_id,identity,path,path\n1,a,x,y\n", "column twice"),
        (HEADER + "1,a,x.jpg\n2,b\n", "line 3: got 2 cells, expected 3"),
        (HEADER + '1,a,"x.jpg\n', "not CSV"),
        (HEADER + "1,a,x.jpg\n1,b,y.jpg\n", "more than once, such as '1'"),
        (HEADER + "1,a,../x.jpg\n", "leads out"),
        (HEADER + "1,a,in/../../x.jpg\n", "leads out"),
        (HEADER + "1,a,/etc/passwd\n", "leads out"),
        (HEADER + "1,a,..\\x.jpg\n", "leads out"),
        (HEADER + "1,a,C:\\x.jpg\n", "leads out"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_metadata(write(tmp_path, text))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_metadata(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("text", ["", "nan", "None", "null", "[]"])
def test_no_box(text):
    assert parse_bbox(text) is None


@pytest.mark.parametrize("text", ["[1, 2, 3, 4]", '"[1, 2, 3, 4]"', "[1.0, 2, 3.0, 4]"])
def test_box_becomes_corners(text):
    assert parse_bbox(text) == (1, 2, 4, 6)


@pytest.mark.parametrize("text", ["[1, 2, 3]", "1 2 3 4", "[1, 2, 0, 4]", "[1, 2, 3, -4]", "[1, 2, NaN, 4]", "{}", "5"])
def test_impossible_boxes_are_refused(text):
    with pytest.raises(DataError, match="bbox"):
        parse_bbox(text)

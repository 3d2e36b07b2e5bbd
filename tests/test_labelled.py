"""Labelled images are imported whole, once, as they look; what cannot be used is counted."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from wildray.errors import DataError, StoreError
from wildray.labelled import import_labelled, newest_labelled, open_labelled
from wildray.photos import read_image
from wildray.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def flat(color, height=40, width=60):
    return np.full((height, width, 3), color, dtype=np.uint8)


def dataset(folder, *, rows, header="image_id,identity,path"):
    """A metadata CSV of rows of text; every .png or .jpg among them that is not there is made, each of its colour."""
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        path = folder / row.split(",")[2]
        if not path.exists() and not path.name.startswith("missing"):
            save(path, flat((number * 16 % 256, 128, 255 - number * 16 % 256)))
    metadata = folder / "metadata.csv"
    metadata.write_text("\n".join([header, *rows]) + "\n")
    return metadata


def bring(store, metadata, **options):
    return import_labelled(store, metadata, **{"padding": 0.0, "longest_px": 640, **options})


def test_images_and_columns_arrive(store, tmp_path):
    metadata = dataset(
        tmp_path / "data",
        rows=["a,007,x/1.png,left,", "b,unknown,2.png,right,5", "c,,3.png,,5"],
        header="image_id,identity,path,orientation,encounter",
    )
    labelled = bring(store, metadata)
    assert labelled.column("image_id") == ["a", "b", "c"]
    assert labelled.column("identity") == ["007", None, None]
    assert labelled.column("orientation") == ["left", "right", None]
    assert labelled.column("encounter") == [None, "5", "5"]
    reader = labelled.reader()
    for row, color in enumerate([(0, 128, 255), (16, 128, 239), (32, 128, 223)]):
        image = reader.image(labelled.column("crop_pack")[row], labelled.table["crop_row"][row].as_py())
        assert image.shape == (40, 60, 3)
        assert np.abs(image.astype(int) - color).max() <= 3
    assert labelled.num_skipped == 0


def test_the_same_import_is_made_once(store, tmp_path):
    metadata = dataset(tmp_path / "data", rows=["a,1,1.png", "b,2,2.png"])
    first = bring(store, metadata)
    pack = store.path("labelled", first.digest, "images-000.arrow")
    written = pack.stat().st_mtime_ns
    assert bring(store, metadata).digest == first.digest
    assert pack.stat().st_mtime_ns == written


def test_other_images_settings_and_tables_are_other_imports(store, tmp_path):
    metadata = dataset(tmp_path / "data", rows=["a,1,1.png", "b,2,2.png"])
    digests = {bring(store, metadata).digest, bring(store, metadata, longest_px=20).digest}
    save(tmp_path / "data" / "1.png", flat((1, 2, 3), height=50))
    digests.add(bring(store, metadata).digest)
    dataset(tmp_path / "data", rows=["a,1,1.png", "b,1,2.png"])
    digests.add(bring(store, metadata).digest)
    assert len(digests) == 4


def test_the_newest_is_the_one_used_last(store, tmp_path):
    assert newest_labelled(store) is None
    with pytest.raises(DataError, match="give --data"):
        open_labelled(store)
    one = dataset(tmp_path / "one", rows=["a,1,1.png", "b,2,2.png"])
    two = dataset(tmp_path / "two", rows=["c,1,1.png", "d,2,2.png"])
    first, second = bring(store, one).digest, bring(store, two).digest
    assert newest_labelled(store) == second
    bring(store, one)
    assert newest_labelled(store) == first
    assert open_labelled(store).column("image_id") == ["a", "b"]


def test_boxes_are_cut_with_padding(store, tmp_path):
    image = flat((0, 0, 0), height=100, width=200)
    image[20:60, 40:120] = 255
    save(tmp_path / "data" / "1.png", image)
    metadata = dataset(
        tmp_path / "data",
        rows=['a,1,1.png,"[40, 20, 80, 40]"', "b,2,1.png,"],
        header="image_id,identity,path,bbox",
    )
    exact, whole = (_image(bring(store, metadata), row) for row in (0, 1))
    assert exact.shape == (40, 80, 3)
    assert exact.min() > 250
    assert whole.shape == (100, 200, 3)
    padded = _image(bring(store, metadata, padding=0.25), 0)
    assert padded.shape == (60, 120, 3)
    assert padded[:, :19].max() < 30
    assert _image(bring(store, metadata, longest_px=40), 0).shape == (20, 40, 3)


def _image(labelled, row):
    return labelled.reader().image(labelled.column("crop_pack")[row], labelled.table["crop_row"][row].as_py())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('bad,1,missing.png,""', "no such file as"),
        ('bad,1,cut.jpg,""', "cannot be read"),
        ('bad,1,text.jpg,""', "cannot be read"),
        ('bad,1,empty.jpg,""', "cannot be read"),
        ('bad,1,folder,""', "cannot be read"),
        ('bad,1,1.png,"[1, 2]"', "expected .x, y, width, height."),
        ('bad,1,1.png,"[60, 0, 5, 5]"', "outside the image of 60x40"),
        ('bad,1,1.png,"[-9, 0, 5, 5]"', "outside the image"),
        (',1,1.png,""', "image_id is empty"),
        ('bad,1,,""', "path is empty"),
    ],
)
def test_a_bad_row_among_good_ones_is_skipped_and_named(store, tmp_path, caplog, row, message):
    folder = tmp_path / "data"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(folder / "whole.jpg", noise)
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-800])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.jpg").touch()
    (folder / "folder").mkdir()
    good = [f'{name},1,{name}.png,""' for name in "123"]
    metadata = dataset(folder, rows=[*good, row], header="image_id,identity,path,bbox")
    labelled = bring(store, metadata)
    assert labelled.column("image_id") == ["1", "2", "3"]
    assert labelled.num_skipped == 1
    assert "1 of 4 rows" in caplog.text
    with pytest.raises(DataError, match=f"(?s)1 of 4 rows.*{message}"):
        bring(store, dataset(folder, rows=[*good, row], header="image_id,identity,path,bbox "), max_skipped=0.2)


def test_mostly_bad_rows_fail_and_leave_nothing(store, tmp_path):
    metadata = dataset(tmp_path / "data", rows=["a,1,1.png", *(f"{n},1,missing{n}.png" for n in range(9))])
    with pytest.raises(DataError, match=r"9 of 10 rows(?s:.)*and 4 more"):
        bring(store, metadata)
    assert newest_labelled(store) is None


def test_an_import_that_was_killed_shows_nothing_and_goes_through_again(store, tmp_path, monkeypatch):
    metadata = dataset(tmp_path / "data", rows=["a,1,1.png", "b,2,2.png"])

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_table", die)
        with pytest.raises(KeyboardInterrupt):
            bring(store, metadata)
    assert newest_labelled(store) is None
    assert bring(store, metadata).column("image_id") == ["a", "b"]


def test_an_altered_table_is_a_store_error(store, tmp_path):
    digest = bring(store, dataset(tmp_path / "data", rows=["a,1,1.png", "b,2,2.png"])).digest
    store.path("labelled", digest, "metadata.parquet").write_bytes(b"torn")
    with pytest.raises(StoreError, match="import again"):
        open_labelled(store, digest)


def test_copies_are_counted(store, tmp_path, caplog):
    image = flat((9, 9, 9))
    for name in ("1.png", "2.png", "3.png"):
        save(tmp_path / "data" / name, image)
    labelled = bring(store, dataset(tmp_path / "data", rows=["a,1,1.png", "b,1,2.png", "c,2,3.png", "d,2,4.png"]))
    assert "2 images are exact copies" in caplog.text
    assert len(set(labelled.column("content_hash"))) == 2


def test_photographs_are_turned_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.fromarray(flat((200, 10, 10), height=20, width=50)).save(path, exif=exif)
    assert read_image(path).shape == (50, 20, 3)
    assert cv2.imread(str(path)).shape == (50, 20, 3)


def test_sixteen_bits_are_scaled(tmp_path):
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.full((4, 4), 0x8000, dtype=np.uint16))
    assert read_image(path).tolist() == flat((128, 128, 128), 4, 4).tolist()


def test_an_image_that_claims_gigabytes_is_not_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "1.png", flat((1, 1, 1)))
    monkeypatch.setattr("wildray.photos.MAX_PIXELS", 60 * 40 - 1)
    with pytest.raises(DataError, match="60x40 pixels, expected at most 2399"):
        read_image(path)


def test_a_program_in_an_image_is_not_run(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path)


def test_locations_of_animals_stay_out_of_the_store(store, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "SECRET WATERHOLE"
    for name in ("1.jpg", "2.jpg"):
        Image.fromarray(flat((200, 10, 10))).save(folder / name, exif=exif)
    digest = bring(store, dataset(folder, rows=["a,1,1.jpg", "b,2,2.jpg"])).digest
    assert b"WATERHOLE" in (folder / "1.jpg").read_bytes()
    assert b"WATERHOLE" not in store.path("labelled", digest, "images-000.arrow").read_bytes()


def test_links_of_the_user_are_followed(store, tmp_path):
    save(tmp_path / "elsewhere" / "1.png", flat((5, 5, 5)))
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "photos")
    labelled = bring(store, dataset(tmp_path / "data", rows=["a,1,photos/1.png", "b,2,photos/2.png"]))
    assert labelled.table.num_rows == 2


@pytest.mark.real_data
def test_a_real_data_set(store, caplog):
    folder = os.environ.get("WILDRAY_TEST_DATA")
    if not folder:
        pytest.skip("WILDRAY_TEST_DATA names no folder with nyala/metadata.csv")
    labelled = bring(store, os.path.join(folder, "nyala", "metadata.csv"))
    assert labelled.table.num_rows == 1213
    assert len(set(labelled.column("identity"))) == 179
    assert labelled.num_skipped == 0
    assert "8 images are exact copies" in caplog.text

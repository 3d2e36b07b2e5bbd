import cv2
import numpy as np
import pyarrow as pa
import pytest

from wildray.errors import StoreError
from wildray.packs import (
    PackReader,
    PackWriter,
    crop_corners,
    crop_image,
    decode_jpeg,
    encode_jpeg,
    jpeg_size,
    write_pack,
)
from wildray.schema import PACK
from wildray.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def picture(seed, height=48, width=64):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def test_every_crop_is_found_at_its_address_over_several_packs(store):
    writer = PackWriter(store, ("crops", "d"), "000000-a", pack_bytes=5_000)
    jpegs = [encode_jpeg(picture(seed)) for seed in range(12)]
    addresses = [writer.add(seed, jpeg) for seed, jpeg in enumerate(jpegs)]
    names = writer.close()
    assert len(names) > 2
    reader = PackReader(store, ("crops", "d"))
    assert [reader.jpeg(pack, row) for pack, row in addresses] == jpegs
    assert names == sorted({pack for pack, _ in addresses})
    with pa.OSFile(str(store.path("crops", "d", f"{names[0]}.arrow"))) as source:
        assert pa.ipc.open_file(source).read_all()["id"].to_pylist() == [
            s for s, (p, _) in enumerate(addresses) if p == names[0]
        ]


def test_backgrounds_stand_beside_their_crops_where_they_are_known(store):
    writer = PackWriter(store, ("crops", "d"), "c", pack_bytes=5_000)
    behind = [encode_jpeg(np.full((20, 30, 3), 40 * n, np.uint8)) if n % 2 else None for n in range(6)]
    addresses = [writer.add(n, encode_jpeg(picture(n)), jpeg) for n, jpeg in enumerate(behind)]
    assert len(writer.close()) > 1, "backgrounds count into a pack's size"
    reader = PackReader(store, ("crops", "d"))
    for number, address in enumerate(addresses):
        found = reader.background(*address)
        assert (found is None) == (number % 2 == 0)
        if found is not None:
            np.testing.assert_allclose(found.mean((0, 1)), 40 * number, atol=2)
            assert found.shape == (20, 30, 3)
        assert reader.has_background(address[0])[address[1]] == (number % 2 == 1)


def test_packs_of_before_backgrounds_were_kept_are_read(store):
    old = pa.schema([PACK.field("id"), PACK.field("jpeg")])
    jpegs = [encode_jpeg(picture(n)) for n in range(3)]
    write_pack(store, pa.table([[0, 1, 2], jpegs], schema=old), "crops", "d", "c-000.arrow")
    reader = PackReader(store, ("crops", "d"))
    assert [reader.jpeg("c-000", row) for row in range(3)] == jpegs
    assert reader.background("c-000", 1) is None
    assert not reader.has_background("c-000").any()


def test_corners_of_many_boxes_are_those_of_each():
    boxes = np.array([[10, 10, 20, 30], [0, 0, 10, 10], [63.5, 47.5, 64, 48], [70, 50, 90, 80]])
    together = crop_corners(boxes, padding=0.2, width_px=np.full(4, 64), height_px=np.full(4, 48))
    for box, corners in zip(boxes, together, strict=True):
        assert crop_corners(box, padding=0.2, width_px=64, height_px=48).tolist() == corners.tolist()
        left, top, right, bottom = corners
        crop = crop_image(picture(2), box, padding=0.2, longest_px=640)
        np.testing.assert_array_equal(crop, picture(2)[top:bottom, left:right])


def test_nothing_is_visible_before_close(store):
    writer = PackWriter(store, ("crops", "d"), "c")
    writer.add(1, b"x")
    assert not store.path("crops", "d").exists()
    assert writer.close() == ["c-000"]


def test_a_missing_row_or_pack_says_so(store):
    writer = PackWriter(store, ("crops", "d"), "c")
    writer.add(1, encode_jpeg(picture(0)))
    writer.close()
    reader = PackReader(store, ("crops", "d"))
    with pytest.raises(StoreError, match="row 7"):
        reader.image("c-000", 7)
    with pytest.raises(StoreError, match="cannot be read"):
        reader.image("c-001", 0)
    with pytest.raises(StoreError, match="no image"):
        decode_jpeg(b"")


def test_colours_survive_in_the_right_order():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(decode_jpeg(encode_jpeg(red)).mean((0, 1)), (200, 0, 0), atol=3)


def test_reduced_decoding_stays_large_enough_and_looks_the_same():
    image = picture(3, 400, 640)
    data = encode_jpeg(image)
    assert jpeg_size(data) == (640, 400)
    small = decode_jpeg(data, at_least_px=96)
    assert small.shape[:2] == (100, 160)
    whole = cv2.resize(image, (160, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - whole).mean() < 3
    assert decode_jpeg(data, at_least_px=401).shape == (400, 640, 3)


@pytest.mark.parametrize(
    ("xyxy", "padding", "expected"),
    [
        ((10, 10, 20, 30), 0.0, (20, 10)),
        ((10, 10, 20, 30), 0.1, (24, 12)),
        ((0, 0, 10, 10), 0.5, (15, 15)),  # the frame ends
        ((63.5, 47.5, 64, 48), 0.0, (1, 1)),
        ((70, 50, 90, 80), 0.0, (1, 1)),  # outside: the nearest pixel
    ],
)
def test_crops_are_padded_and_stay_inside_the_frame(xyxy, padding, expected):
    crop = crop_image(picture(1), xyxy, padding=padding, longest_px=640)
    assert crop.shape[:2] == expected


def test_a_crop_is_the_pixels_of_its_box_and_scaled_only_when_too_long():
    image = picture(2)
    np.testing.assert_array_equal(crop_image(image, (8, 4, 40, 20), padding=0, longest_px=640), image[4:20, 8:40])
    assert crop_image(image, (0, 0, 64, 48), padding=0, longest_px=32).shape == (24, 32, 3)

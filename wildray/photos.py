"""Photographs that somebody gave: decoded upright, cut to the animal, refused where they are none.

In: an image file, or what is in it. Out: pixels, or the JPEG that a pack holds. What is embedded from an import and
what a served model is sent go through the same lines, so that both give the same vector.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from wildray.errors import DataError
from wildray.metadata import parse_bbox
from wildray.packs import crop_image, encode_jpeg

MAX_PIXELS = 100_000_000
"""Larger images are not decoded: a few hundred bytes can claim gigabytes."""
MAX_BYTES = 8 * MAX_PIXELS
"""Larger files are not read: 16 bits of four channels, uncompressed."""
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What is opened; other formats of the imaging library start external programs or are no photographs."""


def read_image(photo: Path | bytes) -> npt.NDArray[np.uint8]:
    """Decode an image fully, upright.

    Args:
        photo: JPEG, PNG, BMP, TIFF or WebP file, or what is in it.

    Returns:
        (H, W, 3) uint8 RGB, turned as its EXIF orientation says (as OpenCV does, on which the format's boxes rest).

    Raises:
        DataError: There is no such file, it is no plain file (a pipe would be waited for), no image, cut short, or
            larger than ``MAX_PIXELS`` or ``MAX_BYTES``.
    """
    try:
        data = photo if isinstance(photo, bytes) else _content(photo)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size and metadata warnings of files that are judged below
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}x{image.height} pixels, expected at most {MAX_PIXELS}")
            if image.mode.startswith("I;16"):  # convert() would clip 16 bits instead of scaling them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except FileNotFoundError as error:
        raise DataError(f"there is no such file as {error.filename}") from None
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever the bytes of a damaged file lead it to
        raise DataError(f"the image cannot be read ({error})") from None


def _content(path: Path) -> bytes:
    if not path.is_file() and path.exists():
        raise DataError(f"the image cannot be read: {path} is no plain file, expected JPEG, PNG, BMP, TIFF or WebP")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"the image cannot be read: {path} is larger than {MAX_BYTES / 1e6:.0f} MB")
    return data


def crop_jpeg(photo: Path | bytes, bbox: str, *, padding: float, longest_px: int) -> bytes:
    """JPEG of a photo's ``bbox`` as packs hold it, of all of it where there is none; DataError if it cannot be."""
    box, image = parse_bbox(bbox), read_image(photo)
    height, width = image.shape[:2]
    left, top, right, bottom = box or (0, 0, width, height)
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise DataError(f"bbox: got {bbox}, which lies outside the image of {width}x{height} pixels")
    return encode_jpeg(crop_image(image, (left, top, right, bottom), padding=padding, longest_px=longest_px))

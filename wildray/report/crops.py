"""Crops as they stand on the page: small JPEGs, framed, or a word where there is none.

In: addresses of crops and boxes. Out: markup. Crops are scaled down for the page, and decoded at the
size that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from wildray.errors import StoreError
from wildray.packs import PackReader, encode_jpeg
from wildray.report.page import Html, image, tag

LONGEST_PX = 240
"""Longest side of a crop on the page: sharp at twice the density of the place it stands in."""
Box = tuple[float, float, float, float]


def crop(reader: PackReader, pack: str | None, row: int | None, description: str) -> Html:
    """A framed crop; a word where none was kept, or it was purged."""
    data = thumbnail(reader, pack, row)
    if data is None:
        return tag("div", "no crop", class_="crop gone")
    return tag("div", image(data, description), class_="crop")


def thumbnail(reader: PackReader, pack: str | None, row: int | None) -> bytes | None:
    """JPEG bytes of a crop of at most ``LONGEST_PX``; None where there is none."""
    if pack is None or row is None:
        return None
    try:
        picture = reader.image(pack, row, at_least_px=LONGEST_PX)
    except StoreError:
        return None
    scale = LONGEST_PX / max(picture.shape[:2])
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return encode_jpeg(picture, quality=84)


def frame_map(size: tuple[int, int] | None, groups: Iterable[tuple[str, Sequence[Box]]], description: str) -> Html:
    """A frame with boxes drawn where they stood.

    Args:
        size: (width, height) of the frame in pixels, or None: the boxes are shares of the frame.
        groups: (class in the style sheet, boxes) of each group, drawn in this order.
        description: Said to those who cannot see it.
    """
    width, height = size or (16, 9)
    stretch_x, stretch_y = (1.0, 1.0) if size else (16.0, 9.0)
    boxes = [
        tag(
            "rect", class_=kind, x=f"{x1 * stretch_x:.5g}", y=f"{y1 * stretch_y:.5g}",
            width=f"{(x2 - x1) * stretch_x:.5g}", height=f"{(y2 - y1) * stretch_y:.5g}",
        )
        for kind, group in groups
        for x1, y1, x2, y2 in group
    ]  # fmt: skip
    return tag(
        "svg", tag("title", description), *boxes, class_="map", viewBox=f"0 0 {width} {height}", role="img",
        preserveAspectRatio="xMidYMid meet",
    )  # fmt: skip

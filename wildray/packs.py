"""Crops on disk: JPEG bytes in Arrow IPC packs, memory-mapped, addressed by (pack, row).

In: frames and boxes. Out: packs of at most ``PACK_BYTES`` that any Arrow reader opens. A file per crop would be four
times slower to read in random order and would make millions of files; Lance was eight times slower.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.errors import StoreError
from wildray.schema import PACK
from wildray.store import Store

PACK_BYTES = 256 * 1024 * 1024
"""A pack is closed before it would exceed this many bytes."""
JPEG_QUALITY = 92
"""Coat patterns survive it; a tenth of the bytes of PNG."""

UInt8 = npt.NDArray[np.uint8]


class PackWriter:
    """Writes crops into packs named ``<name>-000``, ``<name>-001`` ...; nothing is visible before ``close``.

    Args:
        store: Where the packs lie.
        place: Folder of the packs as parts of a path, such as ``("crops", digest)``.
        name: Prefix of the packs' names.
        pack_bytes: Size at which a further pack is begun.
    """

    def __init__(self, store: Store, place: tuple[str, ...], name: str, *, pack_bytes: int = PACK_BYTES) -> None:
        self._store, self._place, self._name, self._pack_bytes = store, place, name, pack_bytes
        self._ids: list[int] = []
        self._jpegs: list[bytes] = []
        self._num_bytes = 0
        self.names: list[str] = []

    def add(self, item_id: int, jpeg: bytes) -> tuple[str, int]:
        """Add a crop; returns its address (pack name, row)."""
        if self._ids and self._num_bytes + len(jpeg) > self._pack_bytes:
            self._flush()
        self._ids.append(item_id)
        self._jpegs.append(jpeg)
        self._num_bytes += len(jpeg)
        return f"{self._name}-{len(self.names):03d}", len(self._ids) - 1

    def close(self) -> list[str]:
        """Publish what is left; returns the names of all packs."""
        if self._ids:
            self._flush()
        return self.names

    def _flush(self) -> None:
        name = f"{self._name}-{len(self.names):03d}"
        table = pa.table([pa.array(self._ids, pa.int64()), pa.array(self._jpegs, pa.large_binary())], schema=PACK)
        write_pack(self._store, table, *self._place, f"{name}.arrow")
        self.names.append(name)
        self._ids, self._jpegs, self._num_bytes = [], [], 0


def write_pack(store: Store, table: pa.Table, *parts: str) -> Path:
    """Publish a table of schema ``PACK`` as an uncompressed Arrow IPC file; returns its path."""
    path = store.path(*parts)

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())

    store.publish(path, write)
    return path


class PackReader:
    """Reads crops by address; opens each pack once per process, memory-mapped.

    Args:
        store: Where the packs lie.
        place: Folder of the packs as parts of a path, such as ``("crops", digest)``.
    """

    def __init__(self, store: Store, place: tuple[str, ...]) -> None:
        self._folder = store.path(*place)

    def jpeg(self, pack: str, row: int) -> bytes:
        """Bytes of one crop; empty where it was purged. StoreError where the pack is missing or too short."""
        column = _column(str(self._folder / f"{pack}.arrow"))
        if not 0 <= row < len(column):
            raise StoreError(f"Pack {pack} holds {len(column)} crops, row {row} was asked for: run detect again.")
        value = column[row].as_py()
        assert isinstance(value, bytes)
        return value

    def image(self, pack: str, row: int, *, at_least_px: int = 0) -> UInt8:
        """(H, W, 3) uint8 RGB of one crop.

        Args:
            pack: Name of the pack.
            row: Row within it.
            at_least_px: The decoder may give an image reduced by 2, 4 or 8 (much faster) whose shorter side is still
                at least this; 0 gives the whole size.
        """
        return decode_jpeg(self.jpeg(pack, row), at_least_px=at_least_px)


@functools.lru_cache(maxsize=256)
def _column(path: str) -> pa.LargeBinaryArray:
    try:
        with pa.memory_map(path) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"The pack {path} cannot be read ({error}): run detect again.") from None
    return table.column("jpeg").combine_chunks() if table.num_rows else pa.array([], pa.large_binary())


def forget_packs() -> None:
    """Close all packs: the next read opens them anew (after a purge has rewritten some)."""
    _column.cache_clear()


def crop_image(image: UInt8, xyxy_px: npt.ArrayLike, *, padding: float, longest_px: int) -> UInt8:
    """Cut a box out of a frame.

    Args:
        image: (H, W, 3) uint8.
        xyxy_px: (4,) corners in pixels, half-open.
        padding: Share of width and height that is added on each side, as far as the frame reaches.
        longest_px: A longer side is scaled down to it.

    Returns:
        (h, w, 3) uint8, at least 1x1.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in np.asarray(xyxy_px, dtype=np.float64))
    pad_x, pad_y = padding * (x2 - x1), padding * (y2 - y1)
    left, top = int(np.clip(np.floor(x1 - pad_x), 0, width - 1)), int(np.clip(np.floor(y1 - pad_y), 0, height - 1))
    right, bottom = (
        int(np.clip(np.ceil(x2 + pad_x), left + 1, width)),
        int(np.clip(np.ceil(y2 + pad_y), top + 1, height)),
    )
    crop = image[top:bottom, left:right]
    longest = max(crop.shape[:2])
    if longest > longest_px:
        scale = longest_px / longest
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.ascontiguousarray(crop)


def encode_jpeg(image: UInt8, *, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG bytes of an (H, W, 3) uint8 RGB image."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, f"an image of shape {image.shape} was not encoded"
    return bytes(data.tobytes())


def decode_jpeg(data: bytes, *, at_least_px: int = 0) -> UInt8:
    """(H, W, 3) uint8 RGB image of encoded bytes; ``at_least_px`` as in ``PackReader.image``; StoreError if not one."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    flag = cv2.IMREAD_COLOR
    if at_least_px and buffer.size:
        shorter = min(jpeg_size(data) or (0, 0))
        for factor, reduced in (
            (8, cv2.IMREAD_REDUCED_COLOR_8),
            (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2),
        ):
            if shorter // factor >= at_least_px:
                flag = reduced
                break
    image = cv2.imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION) if buffer.size else None
    if image is None:
        raise StoreError(
            f"A crop of {len(data)} bytes is no image: it was purged or altered. Mine again, or run detect again."
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from a JPEG's frame header without decoding it; None where there is none."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[position + 7 : position + 9], "big"), int.from_bytes(
                data[position + 5 : position + 7], "big"
            )
        position += 2 + length
    return None

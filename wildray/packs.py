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
from wildray.remote import local_copy
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
        self._backgrounds: list[bytes | None] = []
        self._num_bytes = 0
        self.names: list[str] = []

    def add(self, item_id: int, jpeg: bytes, background: bytes | None = None) -> tuple[str, int]:
        """Add a crop and, where it is known, the background at its place; returns its address (pack name, row)."""
        num_bytes = len(jpeg) + len(background or b"")
        if self._ids and self._num_bytes + num_bytes > self._pack_bytes:
            self._flush()
        self._ids.append(item_id)
        self._jpegs.append(jpeg)
        self._backgrounds.append(background)
        self._num_bytes += num_bytes
        return f"{self._name}-{len(self.names):03d}", len(self._ids) - 1

    def close(self) -> list[str]:
        """Publish what is left; returns the names of all packs."""
        if self._ids:
            self._flush()
        return self.names

    def _flush(self) -> None:
        name = f"{self._name}-{len(self.names):03d}"
        columns = [self._ids, self._jpegs, self._backgrounds]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, PACK, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=PACK)
        write_pack(self._store, table, *self._place, f"{name}.arrow")
        self.names.append(name)
        self._ids, self._jpegs, self._backgrounds, self._num_bytes = [], [], [], 0


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
        self._store, self._place = store, place

    def jpeg(self, pack: str, row: int) -> bytes:
        """Bytes of one crop; empty where it was purged. StoreError where the pack is missing or too short."""
        value = self._cell(pack, row, "jpeg")
        assert isinstance(value, bytes)
        return value

    def background(self, pack: str, row: int, *, at_least_px: int = 0) -> UInt8 | None:
        """(h, w, 3) uint8 RGB: what the clip shows at a crop's place without what moves; of a lower resolution.

        Args:
            pack: Name of the pack.
            row: Row within it.
            at_least_px: As in ``image``.

        Returns:
            None where it is not known, or the pack was written before backgrounds were kept.
        """
        value = self._cell(pack, row, "background")
        return decode_jpeg(value, at_least_px=at_least_px) if isinstance(value, bytes) else None

    def has_background(self, pack: str) -> npt.NDArray[np.bool_]:
        """(rows,) whether the background at the place of each of a pack's crops is known."""
        table = self._table(pack)
        if "background" not in table.column_names:
            return np.zeros(table.num_rows, bool)
        return np.asarray(table.column("background").is_valid().to_numpy(), dtype=bool)

    def _table(self, pack: str) -> pa.Table:
        return open_pack(self._store, *self._place, f"{pack}.arrow")

    def _cell(self, pack: str, row: int, column: str) -> object:
        table = self._table(pack)
        if not 0 <= row < table.num_rows:
            raise StoreError(f"Pack {pack} holds {table.num_rows} crops, row {row} was asked for: run detect again.")
        return table.column(column)[row].as_py() if column in table.column_names else None

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
def open_pack(store: Store, *parts: str) -> pa.Table:
    """A pack's rows, memory-mapped; of object storage, in a local copy. StoreError where it cannot be read."""
    path = store.path(*parts)
    try:
        with pa.memory_map(str(local_copy(path))) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"The pack {path} cannot be read ({error}): run detect again.") from None


def forget_packs() -> None:
    """Close all packs: the next read opens them anew (after a purge has rewritten some)."""
    open_pack.cache_clear()


def crop_corners(
    xyxy_px: npt.ArrayLike, *, padding: float, width_px: npt.ArrayLike, height_px: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Which pixels of frames the crops of boxes are.

    Args:
        xyxy_px: (..., 4) corners in pixels, half-open.
        padding: Share of width and height that is added on each side, as far as the frame reaches.
        width_px: (...) or a number: width of the frames.
        height_px: Likewise.

    Returns:
        (..., 4) whole corners, half-open, of at least one pixel within the frame.
    """
    x1, y1, x2, y2 = np.moveaxis(np.asarray(xyxy_px, dtype=np.float64), -1, 0)
    width, height = np.asarray(width_px), np.asarray(height_px)
    pad_x, pad_y = padding * (x2 - x1), padding * (y2 - y1)
    left, top = np.clip(np.floor(x1 - pad_x), 0, width - 1), np.clip(np.floor(y1 - pad_y), 0, height - 1)
    right, bottom = np.clip(np.ceil(x2 + pad_x), left + 1, width), np.clip(np.ceil(y2 + pad_y), top + 1, height)
    return np.stack([left, top, right, bottom], axis=-1).astype(np.int64)


def crop_image(image: UInt8, xyxy_px: npt.ArrayLike, *, padding: float, longest_px: int) -> UInt8:
    """Cut a box out of a frame.

    Args:
        image: (H, W, 3) uint8.
        xyxy_px: (4,) corners in pixels, half-open.
        padding: As in ``crop_corners``.
        longest_px: A longer side is scaled down to it.

    Returns:
        (h, w, 3) uint8, at least 1x1.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = crop_corners(xyxy_px, padding=padding, width_px=width, height_px=height).tolist()
    return np.ascontiguousarray(shrunk(image[top:bottom, left:right], longest_px=longest_px))


def shrunk(image: UInt8, *, longest_px: int) -> UInt8:
    """The image, scaled down where its longest side is above ``longest_px``."""
    longest = max(image.shape[:2])
    if longest <= longest_px:
        return image
    scale = longest_px / longest
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


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

"""What to train on, as arrays: which crops, where they lie, what is known of them.

In: a pairs collection and the detections it was mined from. Out: a ``PairTable`` without pixels, small enough to stand
in every worker's memory. Joining while training runs, row by row, would read the same columns in every epoch.

Shapes: N samples (pairs, or labelled images), K distinct crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import StageError
from wildray.learning.order import Int64
from wildray.packs import crop_corners
from wildray.schema import DETECTIONS, MEDIA, PAIRS, TRUSTED_CLOCKS, hash64
from wildray.store import Store

SIDES = ("width_px", "height_px")
CENTRAL_BOX = np.array([0.1, 0.1, 1.1, 1.1], np.float32) / np.float32(1.2)
"""Where the box lies in a crop with the default padding of 10 %."""


@dataclass(frozen=True)
class Samples:
    """Samples of two crops each, as arrays.

    Attributes:
        place: Folder of the packs in the store, as parts of a path.
        packs: Names of the packs; ``pack`` holds positions in it.
        crop: (N, 2) int64, which of the K distinct crops a sample's two are.
        pack: (K,) int64.
        row: (K,) int64, row of the crop in its pack.
        detection_id: (N, 2) int64.
        tracklet_id: (N,) int64, equal where two samples are surely of one animal.
        camera_id: (N,) int64, hash of the camera's name.
        frame_key: (N, 2) int64, equal where two crops are of one frame.
        xyxy_px: (N, 2, 4) float32.
        captured_at_s: (N, 2) float64, NaN where the clock is unknown.
        labels: (N,) int64, place of each sample's individual in ``identities``; None where nobody is known.
        identities: Names of the I individuals, sorted.
        box: (N, 2, 4) float32 corners of the animal's box in shares of its crop's sides; None where only the crop is
            known.
    """

    place: tuple[str, str]
    packs: tuple[str, ...]
    crop: Int64
    pack: Int64
    row: Int64
    detection_id: Int64
    tracklet_id: Int64
    camera_id: Int64
    frame_key: Int64
    xyxy_px: npt.NDArray[np.float32]
    captured_at_s: npt.NDArray[np.float64]
    labels: Int64 | None = None
    identities: tuple[str, ...] = ()
    box: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.tracklet_id)

    def boxes_in_crops(self) -> npt.NDArray[np.float32]:
        """(N, 2, 4) ``box``, or the central part where it is not known: of a crop padded by 10 %, as they all are."""
        if self.box is not None:
            return self.box
        return np.broadcast_to(CENTRAL_BOX, (len(self), 2, 4))


@dataclass(frozen=True)
class PairTable(Samples):
    """The pairs of one collection: the two crops of a sample are anchor and positive."""

    @property
    def detections(self) -> str:
        """Digest of the detections, under which the crops lie."""
        return self.place[1]


def read_pairs(store: Store, digest: str) -> PairTable:
    """The pairs of a collection, joined with the detections they were mined from.

    Raises:
        StageError: There are no pairs, some have no crops, or their detections are gone.
    """
    collection = store.collection("pairs", digest)
    table = collection.read("pairs", PAIRS)
    _check_trainable(table, digest)
    detections = str(collection.settings()["detections"])
    names, pack_of = np.unique(
        np.stack([table.column(f"{side}_pack").to_numpy(zero_copy_only=False) for side in ("anchor", "positive")], 1),
        return_inverse=True,
    )
    rows = np.stack([table.column(f"{side}_row").to_numpy() for side in ("anchor", "positive")], 1).astype(np.int64)
    address = np.stack([pack_of.reshape(rows.shape).astype(np.int64), rows], 2)
    crops, crop = np.unique(address.reshape(-1, 2), axis=0, return_inverse=True)
    ids = np.stack([table.column(f"{side}_id").to_numpy() for side in ("anchor", "positive")], 1).astype(np.int64)
    frame_key, xyxy_px, captured_at_s, size_px = _join(store, detections, ids)
    padding = float(store.collection("detections", detections).settings()["detect"]["crop_padding"])
    cameras = table.column("camera_id").to_pylist()
    hashes = {name: hash64((name,)) for name in set(cameras)}
    return PairTable(
        place=("crops", detections),
        packs=tuple(str(name) for name in names),
        crop=crop.reshape(rows.shape).astype(np.int64),
        pack=crops[:, 0],
        row=crops[:, 1],
        detection_id=ids,
        tracklet_id=table.column("tracklet_id").to_numpy().astype(np.int64),
        camera_id=np.array([hashes[name] for name in cameras], np.int64),
        frame_key=frame_key,
        xyxy_px=xyxy_px,
        captured_at_s=captured_at_s,
        box=box_in_crop(xyxy_px, padding=padding, size_px=size_px),
    )


def box_in_crop(
    xyxy_px: npt.NDArray[np.float32], *, padding: float, size_px: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Where boxes lie in their crops.

    Args:
        xyxy_px: (..., 4) corners in pixels of the frame.
        padding: Of the crops.
        size_px: (..., 2) width and height of the frames.

    Returns:
        (..., 4) float32 corners in shares of the crop's width and height, in [0, 1].
    """
    crop = crop_corners(xyxy_px, padding=padding, width_px=size_px[..., 0], height_px=size_px[..., 1])
    start, side = np.tile(crop[..., :2], 2), np.tile(crop[..., 2:] - crop[..., :2], 2)
    return ((xyxy_px - start) / side).clip(0, 1).astype(np.float32)


def _with_untrusted_clock(store: Store, digest: str) -> list[str]:
    """Media whose ``captured_at`` says nothing of when they were filmed; none where nothing is known of the media."""
    if not store.path("media", digest).is_dir():
        return []
    flags = store.collection("detections", digest).read("media", MEDIA, columns=["media_id", "clock_flag"])
    trusted = pc.is_in(flags["clock_flag"], pa.array(TRUSTED_CLOCKS))
    names: list[str] = flags.filter(pc.invert(trusted))["media_id"].to_pylist()
    return names


def count_pairs(store: Store, digest: str) -> int:
    """How many pairs a collection has, from two columns of it; StageError where they cannot be trained on."""
    table = store.collection("pairs", digest).read("pairs", PAIRS, columns=["anchor_pack", "positive_pack"])
    _check_trainable(table, digest)
    return int(table.num_rows)


def _check_trainable(table: pa.Table, digest: str) -> None:
    if table.num_rows == 0:
        raise StageError(
            f"The pairs {digest} are none: nothing to train on. Detect more media, or mine with a lower mine.min_score "
            f"or mine.min_iou, another mine.interval, or mine.linker direct."
        )
    num_bare = max(table.column("anchor_pack").null_count, table.column("positive_pack").null_count)
    if num_bare:
        raise StageError(
            f"{num_bare} of {table.num_rows} pairs have no crops (they come from a results file without its media): "
            f"run 'wildray detect' where the media are at hand, then mine again."
        )


def _join(
    store: Store, digest: str, ids: Int64
) -> tuple[Int64, npt.NDArray[np.float32], npt.NDArray[np.float64], Int64]:
    """Frame keys, boxes, times and frame sizes of detections (N, 2)."""
    corners = ["x1_px", "y1_px", "x2_px", "y2_px"]
    columns = ["detection_id", "media_id", "frame_index", "time_s", "captured_at", *SIDES, *corners]
    table = store.collection("detections", digest).read("detections", DETECTIONS, columns=columns)
    known = table.column("detection_id").to_numpy()
    order = np.argsort(known)
    place = np.searchsorted(known, ids, sorter=order).clip(max=max(0, len(known) - 1))
    at = order[place] if len(known) else np.zeros_like(ids)
    if not len(known) or not np.array_equal(known[at], ids):
        raise StageError(f"Some pairs are of detections that the collection {digest} does not hold: mine again.")
    table = table.take(pa.array(at.reshape(-1)))
    media = table.column("media_id").to_pylist()
    keys = [hash64(pair) for pair in zip(media, table.column("frame_index").to_pylist(), strict=True)]
    xyxy_px = np.stack([table.column(name).to_numpy() for name in corners], 1).astype(np.float32)
    start = table.column("captured_at").cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
    start[np.isin(np.array(media), _with_untrusted_clock(store, digest))] = np.nan
    time_s = start + table.column("time_s").to_numpy()
    size_px = np.stack([table.column(name).to_numpy() for name in SIDES], 1).astype(np.int64)
    return (
        np.array(keys, np.int64).reshape(ids.shape),
        xyxy_px.reshape(*ids.shape, 4),
        time_s.reshape(ids.shape),
        size_px.reshape(*ids.shape, 2),
    )

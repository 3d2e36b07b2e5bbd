"""Pairs and packs in, batches of crops out, ahead of the training step.

In: a pairs collection and the packs of the detections it was mined from. Out: ``Crops`` in the order of
``order.epoch_order``, beginning at any step. Crops are addressed by index, decoded by threads (cv2 lets go of the
interpreter) at about the size that views need, and kept decoded as far as ``train.cache_mb`` goes, since every epoch
wants them again and CPUs are scarce. Ray Data would balance decoding over nodes, but cannot resume within an epoch.

Shapes: N pairs, K distinct crops, S sources, P side of a decoded crop in pixels.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from wildray.errors import StageError
from wildray.learning.batch import Crops, Facts
from wildray.learning.order import Int64, worker_slice
from wildray.packs import PackReader
from wildray.schema import DETECTIONS, PAIRS, hash64
from wildray.store import Store

MARGIN = 1.25
"""Crops are decoded to this many times the view's side, so that random parts of them are not blown up much."""
AHEAD = 4
"""Batches that wait for the training step."""


@dataclass(frozen=True)
class PairTable:
    """The pairs of one collection, as arrays.

    Attributes:
        detections: Digest of the detections, under which the crops lie.
        packs: Names of the packs; ``pack`` holds positions in it.
        crop: (N, 2) int64, which of the K distinct crops anchor and positive are.
        pack: (K,) int64.
        row: (K,) int64, row of the crop in its pack.
        detection_id: (N, 2) int64.
        tracklet_id: (N,) int64.
        camera_id: (N,) int64, hash of the camera's name.
        frame_key: (N, 2) int64, equal where two crops are of one frame.
        xyxy_px: (N, 2, 4) float32.
        captured_at_s: (N, 2) float64, NaN where the clock is unknown.
    """

    detections: str
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

    def __len__(self) -> int:
        return len(self.tracklet_id)


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
    frame_key, xyxy_px, captured_at_s = _join(store, detections, ids)
    cameras = table.column("camera_id").to_pylist()
    hashes = {name: hash64((name,)) for name in set(cameras)}
    return PairTable(
        detections=detections,
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
    )


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


def _join(store: Store, digest: str, ids: Int64) -> tuple[Int64, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Frame keys, boxes and times of detections (N, 2)."""
    corners = ["x1_px", "y1_px", "x2_px", "y2_px"]
    columns = ["detection_id", "media_id", "frame_index", "time_s", "captured_at", *corners]
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
    time_s = start + table.column("time_s").to_numpy()
    return np.array(keys, np.int64).reshape(ids.shape), xyxy_px.reshape(*ids.shape, 4), time_s.reshape(ids.shape)


class CropCache:
    """Crops by number, decoded and squashed to P x P, kept as far as the memory goes.

    Args:
        store: Where the packs lie.
        pairs: Whose crops.
        side_px: P.
        cache_bytes: Memory for decoded crops; beyond it they are decoded every time.
        threads: That decode.
    """

    def __init__(self, store: Store, pairs: PairTable, *, side_px: int, cache_bytes: int, threads: int) -> None:
        self._reader, self._pairs, self.side_px = PackReader(store, ("crops", pairs.detections)), pairs, side_px
        num_kept = min(len(pairs.pack), cache_bytes // (3 * side_px * side_px))
        self._kept = np.empty((num_kept, side_px, side_px, 3), np.uint8)
        self._filled = np.zeros(num_kept, bool)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def images(self, crops: Int64) -> torch.Tensor:
        """(len(crops), 3, P, P) uint8."""
        out = np.stack(list(self._pool.map(self._image, crops.tolist())))
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _image(self, crop: int) -> npt.NDArray[np.uint8]:
        if crop < len(self._kept) and self._filled[crop]:
            kept: npt.NDArray[np.uint8] = self._kept[crop]
            return kept
        pack, row = self._pairs.packs[self._pairs.pack[crop]], int(self._pairs.row[crop])
        image = self._reader.image(pack, row, at_least_px=self.side_px)
        small: npt.NDArray[np.uint8] = np.asarray(
            cv2.resize(image, (self.side_px, self.side_px), interpolation=cv2.INTER_AREA), np.uint8
        )
        if crop < len(self._kept):
            self._kept[crop] = small
            self._filled[crop] = True
        return small

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def read_crops(cache: CropCache, pairs: PairTable, rows: Int64, *, seed: int, epoch: int, num_sources: int) -> Crops:
    """The crops of some pairs.

    Args:
        cache: Where they come from.
        pairs: The table.
        rows: (B,) of the table.
        seed: Of the run.
        epoch: From 0.
        num_sources: 2 for anchor and positive; 1 for one of the two, chosen by (seed, epoch, row).
    """
    if num_sources == 2:
        side = np.tile(np.array([[0], [1]]), (1, len(rows)))
    else:
        side = np.array([[hash64(("side", seed, epoch, row)) & 1 for row in rows.tolist()]])
    images = cache.images(pairs.crop[rows, side].reshape(-1))
    facts = Facts(
        detection_id=torch.from_numpy(pairs.detection_id[rows, side]),
        frame_key=torch.from_numpy(pairs.frame_key[rows, side]),
        xyxy_px=torch.from_numpy(pairs.xyxy_px[rows, side]),
        camera_id=torch.from_numpy(np.tile(pairs.camera_id[rows], (num_sources, 1))),
        captured_at_s=torch.from_numpy(pairs.captured_at_s[rows, side]),
    )
    return Crops(
        images=images.view(num_sources, len(rows), *images.shape[1:]),
        index=torch.from_numpy(rows.copy()),
        tracklet_id=torch.from_numpy(pairs.tracklet_id[rows]),
        facts=facts,
    )


def load_ahead(
    cache: CropCache,
    pairs: PairTable,
    order: Int64,
    *,
    seed: int,
    epoch: int,
    first_step: int,
    num_sources: int,
    rank: int,
    num_workers: int,
) -> Iterator[Crops]:
    """A worker's batches of an epoch from ``first_step`` on, read by a thread ahead of training."""
    ready: queue.Queue[Crops | Exception] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: Crops | Exception) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for rows in order[first_step:]:
                mine = worker_slice(rows, rank=rank, num_workers=num_workers)
                if not put(read_crops(cache, pairs, mine, seed=seed, epoch=epoch, num_sources=num_sources)):
                    return
        except Exception as error:  # raised again by the training thread
            put(error)

    thread = threading.Thread(target=read, name="load_ahead", daemon=True)
    thread.start()
    try:
        for _ in range(first_step, len(order)):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()

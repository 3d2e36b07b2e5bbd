"""Crops by number: read out of packs, decoded, squashed to one size, kept as far as memory goes.

In: a ``PairTable`` and rows of it. Out: ``Crops``. Crops are decoded by threads (cv2 lets go of the interpreter) at
about the size that views need, and kept decoded as far as ``train.cache_mb`` goes, since every epoch wants them again
and CPUs are scarce.

Shapes: N pairs, B of them in a batch, S sources, P side of a decoded crop in pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wildray.learning.batch import Crops, Facts
from wildray.learning.order import Int64
from wildray.learning.pairs import PairTable
from wildray.packs import PackReader
from wildray.schema import hash64
from wildray.store import Store

MARGIN = 1.25
"""Crops are decoded to this many times the view's side, so that random parts of them are not blown up much."""


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

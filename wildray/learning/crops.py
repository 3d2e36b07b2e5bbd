"""Crops by number: read out of packs, decoded, squashed to one size, kept as far as memory goes.

In: ``Samples`` and rows of them. Out: ``Crops``. Crops are decoded by threads (cv2 lets go of the interpreter) at
about the size that views need, and kept decoded as far as ``train.cache_mb`` goes, since every epoch wants them again
and CPUs are scarce. Backgrounds are read only where ``augment`` has a use for them. Whose scenery a crop gets is a
function of (seed, epoch, index, side); drawing it from the batch would make it depend on the number of workers.

Shapes: N samples, K distinct crops, B samples in a batch, S sources, P side of a decoded crop in pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wildray.config import AugmentConfig, Config
from wildray.errors import StageError
from wildray.learning.batch import Crops, Facts
from wildray.learning.order import Int64
from wildray.learning.pairs import Samples
from wildray.packs import PackReader, UInt8
from wildray.schema import hash64
from wildray.store import Store

logger = logging.getLogger(__name__)

MARGIN = 1.25
"""Crops are decoded to this many times the view's side, so that random parts of them are not blown up much."""
FEW_KNOWN = 0.5
"""Share of crops with a known background below which a remedy that needs them is warned of."""
MAX_INT64 = 2**63 - 1


class CropCache:
    """Crops by number, decoded and squashed to P x P, kept as far as the memory goes.

    Args:
        store: Where the packs lie.
        pairs: Whose crops.
        side_px: P.
        cache_bytes: Memory for decoded crops and backgrounds; beyond it they are decoded every time.
        threads: That decode.
        augment: Says whether backgrounds are wanted; None: they are not.

    Raises:
        StageError: Scenery is to be swapped, and there are no two cameras with known backgrounds.
    """

    def __init__(
        self,
        store: Store,
        pairs: Samples,
        *,
        side_px: int,
        cache_bytes: int,
        threads: int,
        augment: AugmentConfig | None = None,
    ) -> None:
        self._reader, self._pairs, self.side_px = PackReader(store, pairs.place), pairs, side_px
        changed = augment is not None and augment.changes_background
        self.wants_background = changed and augment is not None and augment.background_mask == "motion"
        wants_scenery = changed and augment is not None and augment.background == "swap"
        self.has_background = np.zeros(len(pairs.pack), bool)
        if self.wants_background or wants_scenery:
            self.has_background = known_backgrounds(self._reader, pairs)
            _warn_of_unknown(self.has_background)
        self.scenery = SceneryDraw(pairs, self.has_background) if wants_scenery else None
        kinds = 1 + int(self.wants_background or wants_scenery)
        num_kept = min(len(pairs.pack), cache_bytes // (kinds * 3 * side_px * side_px))
        self._images = _Kept(num_kept, side_px)
        self._backgrounds = _Kept(num_kept if kinds > 1 else 0, side_px)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def images(self, crops: Int64) -> torch.Tensor:
        """(len(crops), 3, P, P) uint8."""
        return self._stacked(lambda crop: self._images.get(crop, self._image), crops)

    def backgrounds(self, crops: Int64) -> torch.Tensor:
        """(len(crops), 3, P, P) uint8 backgrounds at the crops' places; zeros where none is known."""
        return self._stacked(lambda crop: self._backgrounds.get(crop, self._background), crops)

    def _stacked(self, read: Callable[[int], UInt8], crops: Int64) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(self._pool.map(read, crops.tolist())))).permute(0, 3, 1, 2)

    def _address(self, crop: int) -> tuple[str, int]:
        return self._pairs.packs[self._pairs.pack[crop]], int(self._pairs.row[crop])

    def _image(self, crop: int) -> UInt8:
        image = self._reader.image(*self._address(crop), at_least_px=self.side_px)
        return np.asarray(cv2.resize(image, (self.side_px, self.side_px), interpolation=cv2.INTER_AREA), np.uint8)

    def _background(self, crop: int) -> UInt8:
        image = None
        if self.has_background[crop]:
            image = self._reader.background(*self._address(crop), at_least_px=self.side_px)
        if image is None:
            return np.zeros((self.side_px, self.side_px, 3), np.uint8)
        # enlarged by INTER_AREA, a small background would show blocks that its crop does not have
        smooth = cv2.INTER_AREA if min(image.shape[:2]) >= self.side_px else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (self.side_px, self.side_px), interpolation=smooth), np.uint8)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def open_cache(config: Config, store: Store, samples: Samples, *, cache_bytes: int, threads: int) -> CropCache:
    """The crops of some samples as a configuration wants them, wherever they are decoded."""
    side_px = math.ceil(MARGIN * config.backbone.image_size)
    return CropCache(store, samples, side_px=side_px, cache_bytes=cache_bytes, threads=threads, augment=config.augment)


class _Kept:
    """Room for the pictures of the first crops."""

    def __init__(self, num: int, side_px: int) -> None:
        self._pictures = np.empty((num, side_px, side_px, 3), np.uint8)
        self._filled = np.zeros(num, bool)

    def get(self, crop: int, read: Callable[[int], UInt8]) -> UInt8:
        if crop >= len(self._pictures):
            return read(crop)
        if not self._filled[crop]:
            self._pictures[crop] = read(crop)
            self._filled[crop] = True
        kept: UInt8 = self._pictures[crop]
        return kept


def known_backgrounds(reader: PackReader, pairs: Samples) -> npt.NDArray[np.bool_]:
    """(K,) which crops' backgrounds are known."""
    known = np.zeros(len(pairs.pack), bool)
    for place, pack in enumerate(pairs.packs):
        here = pairs.pack == place
        known[here] = reader.has_background(pack)[pairs.row[here]]
    return known


def camera_of_crops(pairs: Samples) -> Int64:
    """(K,) hashes of the crops' cameras."""
    camera = np.zeros(len(pairs.pack), np.int64)
    camera[pairs.crop.reshape(-1)] = np.repeat(pairs.camera_id, 2)
    return camera


def _warn_of_unknown(known: npt.NDArray[np.bool_]) -> None:
    share = float(known.mean()) if len(known) else 1.0
    if share < FEW_KNOWN:
        logger.warning(
            "augment.background: the background is known of %.0f %% of the crops only: stills have none, nor have "
            "crops that were cut before backgrounds were kept (run detect and mine again for those). Elsewhere the "
            "box stands for the animal.",
            100 * share,
        )


class SceneryDraw:
    """Which other camera's background takes the place of a crop's own.

    Args:
        pairs: The samples, of which K crops are distinct.
        known: (K,) which crops' backgrounds are known.

    Raises:
        StageError: There are no two cameras with known backgrounds.
    """

    def __init__(self, pairs: Samples, known: npt.NDArray[np.bool_]) -> None:
        camera = camera_of_crops(pairs)
        candidates = np.flatnonzero(known)
        self._crops = candidates[np.argsort(camera[candidates], kind="stable")]
        self._cameras = camera[self._crops]
        num_cameras = len(np.unique(self._cameras))
        if num_cameras < 2:
            raise StageError(
                f"augment.background swap takes scenery from other cameras, and crops with a known background are of "
                f"{num_cameras} cameras. Run detect and mine again (crops cut before backgrounds were kept have none), "
                f"or take --augment.background blur."
            )

    def crops(self, camera_id: Int64, numbers: Int64) -> Int64:
        """The crops whose background is taken.

        Args:
            camera_id: (B,) cameras whose own scenery is not wanted.
            numbers: (B,) random whole numbers from 0.

        Returns:
            (B,) of the K crops, each as likely as any other of another camera.
        """
        first = np.searchsorted(self._cameras, camera_id, side="left")
        last = np.searchsorted(self._cameras, camera_id, side="right")
        place = numbers % (len(self._crops) - (last - first))
        return np.asarray(self._crops[np.where(place >= first, place + last - first, place)], np.int64)


def read_crops(
    cache: CropCache,
    pairs: Samples,
    index: Int64,
    *,
    seed: int,
    epoch: int,
    num_sources: int,
    num_sceneries: int = 1,
) -> Crops:
    """The crops of some samples.

    Args:
        cache: Where they come from.
        pairs: The N samples.
        index: (B,) rows of the table; a row that comes several times in an epoch has a multiple of N added.
        seed: Of the run.
        epoch: From 0.
        num_sources: 2 for anchor and positive; 1 for one of the two, chosen by (seed, epoch, index).
        num_sceneries: Other cameras' backgrounds for each crop, where any are wanted.
    """
    rows = index % len(pairs)
    if num_sources == 2:
        side = np.tile(np.array([[0], [1]]), (1, len(rows)))
    else:
        side = np.array([[hash64(("side", seed, epoch, number)) & 1 for number in index.tolist()]])
    crops = pairs.crop[rows, side]
    images = cache.images(crops.reshape(-1))
    shape = (*crops.shape, *images.shape[1:])
    behind = cache.backgrounds(crops.reshape(-1)).view(shape) if cache.wants_background else None
    scenery = None
    if cache.scenery is not None:
        of_each = list(zip(np.tile(index, num_sources).tolist(), side.reshape(-1).tolist(), strict=True))
        keys = [(seed, epoch, *one, *((turn,) if turn else ())) for turn in range(num_sceneries) for one in of_each]
        draws = np.array([hash64(("scenery", *key)) & MAX_INT64 for key in keys], np.int64)
        others = cache.scenery.crops(np.tile(pairs.camera_id[rows], num_sources * num_sceneries), draws)
        scenery = cache.backgrounds(others).view(num_sceneries, *shape)
    facts = Facts(
        detection_id=torch.from_numpy(pairs.detection_id[rows, side]),
        frame_key=torch.from_numpy(pairs.frame_key[rows, side]),
        xyxy_px=torch.from_numpy(pairs.xyxy_px[rows, side]),
        camera_id=torch.from_numpy(np.tile(pairs.camera_id[rows], (num_sources, 1))),
        captured_at_s=torch.from_numpy(pairs.captured_at_s[rows, side]),
    )
    return Crops(
        images=images.view(shape),
        index=torch.from_numpy(index.copy()),
        tracklet_id=torch.from_numpy(pairs.tracklet_id[rows]),
        facts=facts,
        labels=None if pairs.labels is None else torch.from_numpy(pairs.labels[rows]),
        box=torch.from_numpy(pairs.boxes_in_crops()[rows, side]),
        background=behind,
        has_background=None if behind is None else torch.from_numpy(cache.has_background[crops]),
        scenery=scenery,
    )

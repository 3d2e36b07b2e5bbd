"""Labelled images as samples to train on, and the order in which supervised methods see them.

In: an import of labelled images (``wildray.labelled``). Out: ``Samples``, read by the loader as pairs are, and P x K
batches: P individuals, K images of each (Hermans et al., arXiv 1703.07737, section 2). Batches drawn image by image
would hardly ever hold two images of one individual, and triplets need them.

Shapes: N images, I individuals.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from wildray.config import Config
from wildray.errors import ConfigError, DataError, nearest
from wildray.labelled import Labelled, import_labelled, open_labelled
from wildray.learning.order import Int64
from wildray.learning.pairs import Samples, read_pairs
from wildray.schema import hash64
from wildray.store import Store

logger = logging.getLogger(__name__)

NUM_NAMED = 5
"""Individuals that an error names."""


def read_samples(config: Config, store: Store, digest: str) -> Samples:
    """What is trained on: the labelled images, where ``train.labels`` is given, else the pairs of that digest."""
    return read_pairs(store, digest) if config.train.labels is None else read_labels(store, digest)


def read_labels(store: Store, digest: str) -> Samples:
    """The images of an import whose individual is known: a sample's two crops are one image.

    Cameras come from a column ``camera_id`` where there is one; frames, boxes and clocks are not known. Every image is
    a tracklet of its own, not every individual: label-free methods, which may train on labelled images too, ask for
    tracklets and must not learn who is who that way.

    Raises:
        DataError: No image has an identity.
        StoreError: The import cannot be read.
    """
    labelled = open_labelled(store, digest)
    names = labelled.column("identity")
    kept = np.array([row for row, name in enumerate(names) if name is not None], np.int64)
    if len(kept) < len(names):
        logger.info("%d of %d labelled images have no identity and are left out", len(names) - len(kept), len(names))
    if not len(kept):
        raise DataError(f"None of the {len(names)} labelled images {digest} has an identity: nothing to train on.")
    identities, labels = np.unique(np.array([str(names[row]) for row in kept]), return_inverse=True)
    packs, pack = np.unique(np.array(labelled.column("crop_pack"), str)[kept], return_inverse=True)
    ids = np.array([hash64(("image", digest, row)) for row in kept.tolist()], np.int64)
    num = len(kept)
    return Samples(
        place=labelled.place,
        packs=tuple(str(name) for name in packs),
        crop=_twice(np.arange(num)),
        pack=pack.astype(np.int64),
        row=labelled.table.column("crop_row").to_numpy().astype(np.int64)[kept],
        detection_id=_twice(ids),
        tracklet_id=ids,
        camera_id=_cameras(labelled)[kept],
        frame_key=_twice(ids),
        xyxy_px=np.zeros((num, 2, 4), np.float32),
        captured_at_s=np.full((num, 2), np.nan),
        labels=labels.astype(np.int64),
        identities=tuple(str(name) for name in identities),
    )


def _twice(values: Int64) -> Int64:
    return np.stack([values, values], 1).astype(np.int64)


def _cameras(labelled: Labelled) -> Int64:
    """(rows,) hashes of the cameras; 0 where the import does not tell."""
    if "camera_id" not in labelled.table.column_names:
        return np.zeros(labelled.table.num_rows, np.int64)
    names = labelled.column("camera_id")
    hashes: Mapping[str | None, int] = {None: 0} | {name: hash64((name,)) for name in set(names) if name is not None}
    return np.array([hashes[name] for name in names], np.int64)


def with_imported_labels(config: Config, store: Store) -> Config:
    """The configuration with the digest in ``train.labels``, after importing the table that it names.

    Args:
        config: ``train.labels`` is unset, the digest of an import, or the path of a metadata CSV.
        store: Holds the import, or gets it. It does not become the newest: that is what evaluation falls back on.

    Raises:
        ConfigError: It is neither an import of the store nor a CSV.
        DataError: The table or its images cannot be used.
    """
    asked = config.train.labels
    if asked is None:
        return config
    known = sorted(path.parent.name for path in store.path("labelled").glob("*/metadata.parquet"))
    if asked in known:
        return config
    if not asked.lower().endswith(".csv"):
        hint = nearest(asked, known) if known else "It has none yet."
        raise ConfigError(f"train.labels: got {asked!r}, expected a metadata.csv or the digest of an import. {hint}")
    digest = import_labelled(
        store,
        asked,
        padding=config.detect.crop_padding,
        longest_px=config.detect.crop_longest_px,
        max_skipped=config.eval.max_skipped,
        newest=False,
    ).digest
    return config.model_copy(update={"train": config.train.model_copy(update={"labels": digest})})


def check_unseen(store: Store, *, trained: str, evaluated: str) -> None:
    """Refuse to measure on individuals that were trained on: what counts is animals the network never saw.

    Args:
        store: Holds both imports.
        trained: Digest of the labelled images that are trained on.
        evaluated: Digest of those that are evaluated.

    Raises:
        DataError: Some individuals are in both; they are named.
    """
    first, second = ({*open_labelled(store, digest).column("identity")} for digest in (trained, evaluated))
    shared = sorted(name for name in first & second if name is not None)
    if shared:
        more = f" and {len(shared) - NUM_NAMED} more" if len(shared) > NUM_NAMED else ""
        raise DataError(
            f"{len(shared)} individuals are both trained on (train.labels {trained}) and evaluated "
            f"(--data {evaluated}): {', '.join(shared[:NUM_NAMED])}{more}. Leave each in one of the two tables."
        )


def identity_order(labels: Int64, *, seed: int, epoch: int, batch_size: int, images_per_identity: int) -> Int64:
    """Samples of every P x K batch of an epoch, a function of (seed, epoch).

    Individuals come equally often, the images of each in turn, so that rare individuals are not drowned and no image is
    passed over. An individual with fewer than K images repeats them.

    Args:
        labels: (N,) identities from 0.
        seed: Of the run.
        epoch: From 0.
        batch_size: P * K, over all workers.
        images_per_identity: K.

    Returns:
        (N // batch_size, batch_size) int64 sample numbers: row + N * (how often the row came before in this
        epoch), so that no number comes twice and a row that comes again is augmented differently. A batch holds the
        first individual's K images, then the second's.

    Raises:
        ConfigError: K does not divide the batch, or there are fewer than P individuals.
    """
    num, num_identities = len(labels), int(labels.max()) + 1
    chosen = num_groups(num_identities, batch_size=batch_size, images_per_identity=images_per_identity)
    rng = np.random.default_rng([seed, epoch])
    images = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    individuals = _Rounds(rng, np.arange(num_identities))
    rounds = [_Rounds(rng, rows) for rows in images]
    batches = [
        np.concatenate([rounds[who].take(images_per_identity) for who in individuals.take(chosen)])
        for _ in range(num // batch_size)
    ]
    rows = np.stack(batches) if batches else np.empty((0, batch_size), np.int64)
    return rows + num * _times_before(rows.reshape(-1)).reshape(rows.shape)


def num_groups(num_identities: int, *, batch_size: int, images_per_identity: int) -> int:
    """P, the individuals in a batch; ConfigError where they cannot be P."""
    if batch_size % images_per_identity:
        below = batch_size // images_per_identity * images_per_identity
        sizes = " or ".join(str(size) for size in (below, below + images_per_identity) if size)
        raise ConfigError(
            f"train.batch_size {batch_size} is no multiple of train.images_per_identity {images_per_identity}: "
            f"take --train.batch-size {sizes}."
        )
    groups = batch_size // images_per_identity
    if num_identities < groups:
        raise ConfigError(
            f"A batch of {batch_size} with {images_per_identity} images of each individual wants {groups} individuals, "
            f"train.labels has {num_identities}: take --train.batch-size {num_identities * images_per_identity} or "
            f"less, or a higher --train.images-per-identity."
        )
    return groups


class _Rounds:
    """Values drawn in shuffled rounds: each comes once before any comes again."""

    def __init__(self, rng: np.random.Generator, values: Int64) -> None:
        self._rng, self._values, self._left = rng, values, values[:0]

    def take(self, num: int) -> Int64:
        """The next ``num`` values, without one twice among them as long as there are that many."""
        taken, self._left = self._left[:num], self._left[num:]
        while len(taken) < num:
            fresh = self._rng.permutation(self._values)
            if len(taken) < len(fresh):  # those just taken go to the end of the round
                again = np.isin(fresh, taken)
                fresh = np.concatenate([fresh[~again], fresh[again]])
            missing = num - len(taken)
            taken, self._left = np.concatenate([taken, fresh[:missing]]), fresh[missing:]
        return taken


def _times_before(values: Int64) -> Int64:
    """(len,) how often each value stands before its place."""
    order = np.argsort(values, kind="stable")
    ranks = np.arange(len(values)) - np.searchsorted(values[order], values[order])
    before = np.empty(len(values), np.int64)
    before[order] = ranks
    return before

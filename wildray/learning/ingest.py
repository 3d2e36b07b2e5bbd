"""Batches of crops, ahead of the training step.

In: samples, the order of an epoch, the first step. Out: this worker's ``Crops``, step by step, in the order of
``epoch_batches``, beginning at any step. Decoding is by this process's threads (``load_ahead``), or by Ray Data on any
node (``ray_ingest``): the same batches either way.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterator

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.batch import Crops
from wildray.learning.crops import CropCache, read_crops
from wildray.learning.job import Job, Place, num_batches
from wildray.learning.labels import identity_order, num_groups, read_labels
from wildray.learning.methods import Method
from wildray.learning.order import Int64, epoch_order, worker_slice
from wildray.learning.pairs import Samples, count_pairs
from wildray.store import Store

logger = logging.getLogger(__name__)

AHEAD = 4
"""Batches that wait for the training step."""


def check_labels(config: Config, kind: type[Method]) -> None:
    """Refuse settings of labels that do not go together.

    Raises:
        ConfigError: A supervised method has no labels or parts of a batch without two individuals, labels come with
            pairs, or a label-free method is to see two crops of a labelled image.
    """
    train = config.train
    if kind.supervised and train.labels is None:
        raise ConfigError(
            f"train.method {train.method} is supervised: give it labelled images, --train.labels metadata.csv "
            f"(columns image_id, identity, path), or take a label-free method such as simclr."
        )
    if kind.supervised and train.batch_size < 2 * train.images_per_identity:
        raise ConfigError(
            f"train.batch_size {train.batch_size} with train.images_per_identity {train.images_per_identity}: a batch "
            f"of a single individual leaves nothing to tell apart: expected a batch of at least "
            f"{2 * train.images_per_identity}, or fewer images of each."
        )
    part, fewest = train.batch_size // (config.scale.workers * train.accumulate), 2 * train.images_per_identity
    if kind.supervised and train.accumulate > 1 and part < fewest:
        raise ConfigError(
            f"train.accumulate {train.accumulate}: train.method {train.method} compares individuals within a part of "
            f"the batch, and a part of {part} images holds fewer than two with train.images_per_identity "
            f"{train.images_per_identity} each: expected at least {fewest} images, so take a smaller train.accumulate "
            f"or a larger train.batch_size."
        )
    if train.labels is not None and train.pairs is not None:
        raise ConfigError("train.labels and train.pairs are both given: training is on the one or the other.")
    if train.labels is not None and not kind.supervised and train.views != "self":
        raise ConfigError(
            f"train.views {train.views}: labelled images are no pairs, a label-free method makes both views of one "
            f"image: give --train.views self."
        )


def warn_of_unread(config: Config, kind: type[Method]) -> None:
    """Say which settings of ``method`` were given that the method does not read."""
    defaults = type(config.method)()
    given = [
        name for name in type(config.method).model_fields if getattr(config.method, name) != getattr(defaults, name)
    ]
    unread = [f"method.{name}" for name in given if name not in kind.reads]
    if unread:
        logger.warning(
            "train.method %s does not use %s. It uses %s.",
            config.train.method,
            ", ".join(unread),
            ", ".join(f"method.{name}" for name in sorted(kind.reads)),
        )


def check_samples(config: Config, store: Store, digest: str, kind: type[Method]) -> None:
    """Refuse, before a run is begun, data that make no batch.

    Raises:
        ConfigError: The batch cannot be shared out over individuals.
        StageError: There are too few pairs or images, or pairs have no crops.
        DataError: No labelled image has an identity.
    """
    train = config.train
    if train.labels is None:
        num_batches(count_pairs(store, digest), train)
        return
    samples = read_labels(store, digest)
    if kind.supervised:
        num_groups(len(samples.identities), batch_size=train.batch_size, images_per_identity=train.images_per_identity)
    num_batches(len(samples), train)


def spans(first: int, last: int, *, per_pass: int) -> Iterator[tuple[int, int, int]]:
    """The steps ``first`` to ``last`` of a run as parts of passes over its samples.

    Args:
        first: Step of the run, from 0.
        last: Step after the last.
        per_pass: Batches in a pass.

    Yields:
        (pass, its first batch, the batch after its last), all from 0.
    """
    while first < last:
        number, start = divmod(first, per_pass)
        stop = min(per_pass, start + last - first)
        yield number, start, stop
        first += stop - start


def epoch_batches(samples: Samples, config: Config, kind: type[Method], *, epoch: int) -> Int64:
    """Sample numbers of every batch of a pass, for all workers together: (steps, batch_size) int64.

    Supervised methods get P x K batches. The others see every sample once, those with negatives in batches in which
    animals of one frame meet (``method.same_frame_negatives``).
    """
    train = config.train
    if kind.supervised:
        assert samples.labels is not None
        return identity_order(
            samples.labels,
            seed=train.seed,
            epoch=epoch,
            batch_size=train.batch_size,
            images_per_identity=train.images_per_identity,
        )
    together = kind.negatives and config.method.same_frame_negatives
    return epoch_order(
        samples.pack[samples.crop[:, 0]],
        samples.camera_id if train.balance == "camera" else None,
        unit=samples.frame_key[:, 0] if together else None,
        seed=train.seed,
        epoch=epoch,
        batch_size=train.batch_size,
        window_packs=train.window_packs,
    )


def load(
    job: Job,
    place: Place,
    cache: CropCache,
    samples: Samples,
    *,
    epoch: int,
    first_step: int,
    stop: int,
    method: Method,
) -> Iterator[Crops]:
    """A worker's part of some batches of a pass, decoded where ``train.ingest`` says.

    Args:
        job: What is trained.
        place: Which worker this is.
        cache: Decodes crops in this process; for ``native``.
        samples: What is trained on.
        epoch: Number of the pass over the samples, from 0.
        first_step: The first of its batches that is wanted.
        stop: The batch after the last.
        method: For whom.
    """
    order = epoch_batches(samples, job.config, type(method), epoch=epoch)[:stop]
    if job.config.train.ingest == "native":
        read: Callable[..., Iterator[Crops]] = functools.partial(load_ahead, cache, samples)
    else:
        from wildray.learning.ray_ingest import Source, load_through_ray

        read = functools.partial(load_through_ray, Source(job.config, job.store, job.pairs))
    return read(
        order,
        seed=job.config.train.seed,
        epoch=epoch,
        first_step=first_step,
        num_sources=method.views.num_sources,
        num_sceneries=method.views.num_sceneries,
        rank=place.rank,
        num_workers=place.num_workers,
    )


def load_ahead(
    cache: CropCache,
    samples: Samples,
    order: Int64,
    *,
    seed: int,
    epoch: int,
    first_step: int,
    num_sources: int,
    num_sceneries: int = 1,
    rank: int,
    num_workers: int,
) -> Iterator[Crops]:
    """A worker's batches of an epoch from ``first_step`` on, read by a thread ahead of training."""
    ready: queue.Queue[Crops | Exception] = queue.Queue(AHEAD)
    stop = threading.Event()
    settings = {"seed": seed, "epoch": epoch, "num_sources": num_sources, "num_sceneries": num_sceneries}

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
            for numbers in order[first_step:]:
                mine = worker_slice(numbers, rank=rank, num_workers=num_workers)
                if not put(read_crops(cache, samples, mine, **settings)):
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

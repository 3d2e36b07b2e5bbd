"""The stage pretrain: pairs in, a backbone out, on one worker or many.

In: the configuration, a store with pairs, the run's name. Out: ``models/<run>/`` and a small result. What is left to
the data is settled here, workers are started by ``attempts``, and what they write is followed, shown and logged. A run
that was killed goes on from its newest checkpoint when it is run again under its name.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import ScalingConfig

from wildray.config import Config
from wildray.learning.attempts import scaling_of, train_here, train_on_ray
from wildray.learning.checkpoint import check_newest
from wildray.learning.first_backbone import check_backbone
from wildray.learning.follow import Follower
from wildray.learning.ingest import check_labels, check_samples, warn_of_unread
from wildray.learning.job import Job, KnowsData, Place, Probe
from wildray.learning.labels import with_imported_labels
from wildray.learning.methods import method_class
from wildray.learning.placing import check_shares
from wildray.learning.records import lineage
from wildray.learning.run import begun_settings, check_settings, claim_run, finished_result
from wildray.learning.settled import with_settled_background, with_settled_places
from wildray.learning.strategy import check_strategy, shard_of
from wildray.learning.worker import num_machines
from wildray.store import Store, check_run_name

logger = logging.getLogger(__name__)

OnEpoch = Callable[[Mapping[str, float]], None]
"""Takes the flat metrics of an epoch."""


@dataclass(frozen=True)
class PretrainResult:
    """What pretrain did.

    Attributes:
        run: Name of the run.
        epochs: Passes over the pairs.
        num_steps: Optimiser steps.
        loss: Mean loss of the last epoch.
        images_per_s: Crops trained on per second, over all workers, without measurements; median over epochs.
        seconds: Time spent training, over all attempts.
        pairs: Digest of the pairs, or of the labelled images that were trained on in their place.
        workers: Processes, or the most of them where their number may change.
    """

    run: str
    epochs: int
    num_steps: int
    loss: float
    images_per_s: float
    seconds: float
    pairs: str
    workers: int


def pretrain(
    config: Config,
    store: Store,
    *,
    run: str,
    probe: Probe | None = None,
    on_epoch: OnEpoch | None = None,
    tags: Mapping[str, str] | None = None,
    until: int | None = None,
    in_process: bool = False,
) -> PretrainResult:
    """Train a backbone on the store's pairs, or on labelled images (``train.labels``).

    Args:
        config: ``backbone``, ``augment``, ``method``, ``train``, ``scale`` and ``tracking`` are read; ``detect`` and
            ``eval.max_skipped`` where ``train.labels`` must be imported.
        store: Has pairs or labelled images; the run goes to ``models/<run>/``.
        run: Name. A run of that name that is not finished goes on; a finished one is returned at once.
        probe: Backbone to flat metrics, called on worker 0 at the end of epochs; must pickle.
        on_epoch: Called in this process, by another thread, with the flat metrics of each epoch as it ends; not with
            those of epochs that an earlier attempt ended.
        tags: Further tags of the tracked run.
        until: Epochs after which the run stops; called again with more, it goes on as if it had not. The learning rate
            is laid out over ``train.epochs`` all the same.
        in_process: Whether to train in this process, which has what a worker needs, and not in Ray Train's workers.

    Raises:
        ConfigError: A name is unknown, the run exists with other settings, the workers do not divide the batch, or the
            cluster has no place for them.
        DataError: The labelled images cannot be used.
        StageError: There are no pairs or crops to train on, the loss is not finite, or workers died too often.
    """
    workers, kind = config.scale.workers, method_class(config.train.method)
    check_run_name(run)
    check_training(config)
    warn_of_unread(config, kind)
    with store.lease(f"models-{run}"):
        config = _settled(config, store, run)
        pairs = str(config.train.labels or config.train.pairs)
        check_settings(config, store, run)
        check_newest(store.path("models", run), shard_of(config, Place(num_workers=workers)))
        job = Job(config, store, run, pairs, until)
        done = finished_result(store, run, epochs=job.last_epoch)
        if done is None:
            check_samples(config, store, pairs, kind)
            if not ray.is_initialized():
                ray.init()
            scaling = None if in_process else scaling_of(config)
            former = begun_settings(store, run)
            claim_run(config, store, run)
            _say_what(job, former)
            _train(job, scaling, probe, on_epoch=on_epoch, tags=tags or {})
            done = finished_result(store, run, epochs=job.last_epoch)
            assert done is not None, "training ended without a result"
        else:
            logger.info("pretrain %s: finished before, nothing to do", run)
    result = PretrainResult(run=run, pairs=pairs, workers=workers, **done)
    logger.info("pretrain %s: %d steps, loss %.4f, %.1f s", run, result.num_steps, result.loss, result.seconds)
    return result


def _say_what(job: Job, former: Mapping[str, Any] | None) -> None:
    """Log what is trained on what, as a run begins or goes on."""
    train = job.config.train
    if former is not None and former["train"]["epochs"] < train.epochs:
        logger.info("pretrain %s: more epochs than before: the learning rate is laid out anew over all", job.run)
    what = "pairs" if train.labels is None else "labelled images"
    logger.info("pretrain %s: %s on %s, %s %s", job.run, train.method, job.config.backbone.name, what, job.pairs)


def check_training(config: Config) -> None:
    """Refuse what settings alone can say will not train.

    Raises:
        ConfigError: A name is unknown, or settings do not go together.
    """
    check_labels(config, method_class(config.train.method))
    check_backbone(config.backbone)
    check_shares(config)
    check_strategy(config)


def _settled(config: Config, store: Store, run: str) -> Config:
    """The configuration with all that it leaves to the data: what is trained on, scenery, places."""
    if config.train.labels is None:
        train = config.train.model_copy(update={"pairs": _pairs_of(config, store, run)})
        config = config.model_copy(update={"train": train})
    else:
        config = with_imported_labels(config, store)
    return with_settled_places(with_settled_background(config, store, run), store)


def _pairs_of(config: Config, store: Store, run: str) -> str:
    """Digest of the pairs to train on: those that are asked for, else those the run was begun with, else the newest."""
    asked = config.train.pairs
    former = begun_settings(store, run)
    begun_with = former["train"].get("pairs") if former else None
    if asked is None and begun_with is not None:
        newest = store.newest("pairs")
        if newest not in (None, begun_with):
            logger.info("pretrain %s: goes on with the pairs %s, though %s are newer", run, begun_with, newest)
        return str(begun_with)
    return store.choose("pairs", asked, option="train.pairs")


def _train(
    job: Job,
    scaling: ScalingConfig | None,
    probe: Probe | None,
    *,
    on_epoch: OnEpoch | None,
    tags: Mapping[str, str],
) -> None:
    """Train to the end, followed and logged; raises what a worker raised."""
    history = job.run_dir / "history.json"
    known = json.loads(history.read_text()) if history.is_file() else []
    (job.run_dir / ".progress.json").unlink(missing_ok=True)
    inputs = [lineage(job), *([probe.lineage()] if isinstance(probe, KnowsData) else [])]
    tracked = _tracked(job, on_epoch, tags, inputs, known)
    with tracked as follow, Follower(job.run_dir, follow, num_known=len(known), method=job.config.train.method):
        if scaling is None:
            train_here(job, probe)
        else:
            train_on_ray(job, probe, scaling)


@contextlib.contextmanager
def _tracked(
    job: Job,
    on_epoch: OnEpoch | None,
    tags: Mapping[str, str],
    inputs: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, float]],
) -> Iterator[OnEpoch]:
    """Give a callback that logs an epoch's metrics, by one writer: this process; and hands them on.

    Epochs that are known are logged first, where they are not yet: a process that was killed could not say them all.
    """
    from wildray import runlog

    tracking = job.config.tracking
    runlog.check_uri(runlog.uri_of(tracking, job.store.root), num_nodes=num_machines())
    tags = {"stage": "pretrain", "pairs": job.pairs, **tags}
    with runlog.open_in(tracking, job.store.root, job.run, tags) as log:
        log.params(job.config.model_dump(mode="json", exclude={"simulate"}))
        for each in inputs:
            log.input(**each)
        for epoch in known:
            log.metrics(epoch, step=int(epoch["epoch"]))

        def follow(metrics: Mapping[str, float]) -> None:
            log.metrics(metrics, step=int(metrics["epoch"]))
            if on_epoch is not None:
                on_epoch(metrics)

        yield follow
        log.artifact(job.run_dir / "config.yaml")

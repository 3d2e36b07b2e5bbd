"""The stage pretrain: pairs in, a backbone out, on one worker or many [Ray Train V2].

In: the configuration, a store with pairs, the run's name. Out: ``models/<run>/`` and a small result. The workers of a
``TorchTrainer`` run ``loop.run_training``; Ray places them, sets up torch.distributed and notices their death. A run
that was killed goes on from its newest checkpoint when it is run again under its name; each attempt is a new Ray Train
run, since what Ray Train would restore may lag behind and, killed while it writes, may not be readable at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from wildray.config import Config
from wildray.errors import ConfigError, StageError, nearest, user_error
from wildray.learning.backbone import check_backbone
from wildray.learning.follow import Follower
from wildray.learning.job import Job, Place, Probe, num_batches
from wildray.learning.loop import run_training
from wildray.learning.methods import method_class
from wildray.learning.pairs import count_pairs
from wildray.learning.run import begun_settings, check_run_name, check_settings, claim_run, finished_result
from wildray.store import Store

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Times that training goes on by itself after a worker died."""


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
        pairs: Digest of the pairs.
        workers: Processes of the last attempt.
    """

    run: str
    epochs: int
    num_steps: int
    loss: float
    images_per_s: float
    seconds: float
    pairs: str
    workers: int


def pretrain(config: Config, store: Store, *, run: str, probe: Probe | None = None) -> PretrainResult:
    """Train a backbone on the store's pairs.

    Args:
        config: ``backbone``, ``augment``, ``method``, ``train``, ``scale`` and ``tracking`` are read.
        store: Has pairs; the run goes to ``models/<run>/``.
        run: Name. A run of that name that is not finished goes on; a finished one is returned at once.
        probe: Backbone to flat metrics, called on worker 0 at the end of epochs; must pickle.

    Raises:
        ConfigError: A name is unknown, the run exists with other settings, the workers do not divide the batch, or the
            cluster has no place for them.
        StageError: There are no pairs or crops to train on, the loss is not finite, or workers died too often.
    """
    workers, train = config.scale.workers, config.train
    check_run_name(run)
    method_class(train.method)
    check_backbone(config.backbone)
    _check_shares(train.batch_size, workers)
    with store.lease(f"models-{run}"):
        pairs = _pairs_of(config, store, run)
        config = config.model_copy(update={"train": train.model_copy(update={"pairs": pairs})})
        check_settings(config, store, run)
        done = finished_result(config, store, run)
        if done is None:
            num_batches(count_pairs(store, pairs), train.batch_size)
            if not ray.is_initialized():
                ray.init()
            scaling = _scaling(config)
            claim_run(config, store, run)
            logger.info("pretrain %s: %s on %s, pairs %s", run, train.method, config.backbone.name, pairs)
            _train(Job(config, store, run, pairs), scaling, probe)
            done = finished_result(config, store, run)
            assert done is not None, "training ended without a result"
        else:
            logger.info("pretrain %s: finished before, nothing to do", run)
    result = PretrainResult(run=run, pairs=pairs, workers=workers, **done)
    logger.info("pretrain %s: %d steps, loss %.4f, %.1f s", run, result.num_steps, result.loss, result.seconds)
    return result


def _check_shares(batch_size: int, workers: int) -> None:
    if batch_size % workers:
        below = batch_size // workers * workers
        sizes = " or ".join(str(size) for size in (below, below + workers) if size >= 2)
        raise ConfigError(
            f"train.batch_size {batch_size} cannot be shared out evenly over {workers} workers (scale.workers): "
            f"take --train.batch-size {sizes}, or a number of workers that divides {batch_size}."
        )


def _pairs_of(config: Config, store: Store, run: str) -> str:
    """Digest of the pairs to train on: those that are asked for, else those the run was begun with, else the newest."""
    asked = config.train.pairs
    known = [path.parent.name for path in store.path("pairs").glob("*/collection.json")]
    if asked is not None and asked not in known:
        hint = nearest(asked, known) if known else "It has none yet: run 'wildray mine' first."
        raise ConfigError(f"train.pairs: the store has no pairs {asked!r}. {hint}")
    newest = store.newest("pairs")
    former = begun_settings(store, run)
    begun_with = former["train"].get("pairs") if former else None
    if asked is None and begun_with is not None:
        if newest not in (None, begun_with):
            logger.info("pretrain %s: goes on with the pairs %s, though %s are newer", run, begun_with, newest)
        return str(begun_with)
    pairs = asked or newest
    if pairs is None:
        raise StageError("There are no pairs: run 'wildray mine' first.")
    return pairs


def _train(job: Job, scaling: ScalingConfig, probe: Probe | None) -> None:
    """Run attempts until training is finished; raises what a worker raised."""
    scratch = job.run_dir / ".ray"
    history = job.run_dir / "history.json"
    num_known = len(json.loads(history.read_text())) if history.is_file() else 0
    (job.run_dir / ".progress.json").unlink(missing_ok=True)
    with _tracked(job) as on_epoch, Follower(job.run_dir, on_epoch, num_known=num_known):
        for attempt in range(MAX_RESTARTS + 1):
            trainer = TorchTrainer(
                _worker,
                train_loop_config={"job": job, "probe": probe},
                scaling_config=scaling,
                run_config=RunConfig(
                    storage_path=str(scratch), name=uuid.uuid4().hex[:12], failure_config=FailureConfig(max_failures=0)
                ),
            )
            try:
                with _interruptible():
                    trainer.fit()
                break
            except ray.train.TrainingFailedError as error:
                for failure in getattr(error, "worker_failures", {}).values():
                    known = user_error(failure)
                    if known is not None:
                        raise known from None
                if attempt == MAX_RESTARTS:
                    raise StageError(
                        f"Training of {job.run} failed {attempt + 1} times, lastly with: {_last_line(error)}. "
                        f"Run the same command again to go on from the last checkpoint."
                    ) from error
                logger.warning("a worker died (%s): going on from the last checkpoint", _last_line(error))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make an interrupt a KeyboardInterrupt: Ray Train exits on it, by a handler that it leaves behind."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _worker(settings: dict[str, Any]) -> None:
    """What every worker of a TorchTrainer does; its working directory is another one, paths are absolute."""
    job, probe = settings["job"], settings["probe"]
    logging.basicConfig(level=logging.INFO)
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        num_workers=context.get_world_size(),
        device=get_device(),
        threads=_threads(job.config.scale.cpus_per_worker, context.get_local_world_size()),
    )
    run_training(job, place, probe=probe, on_epoch=_report)


def _report(metrics: Mapping[str, float]) -> None:
    ray.train.report(dict(metrics))  # a barrier: no worker runs ahead into an epoch that another is still measuring


def _threads(asked: float | None, workers_here: int) -> int:
    """CPU threads of a worker. Ray sets OMP_NUM_THREADS to 1 where a worker did not ask for CPUs."""
    if asked is not None:
        return max(1, int(asked))
    node = ray.get_runtime_context().get_node_id()
    cpus = next(found["Resources"].get("CPU", 1.0) for found in _nodes() if found["NodeID"] == node)
    return max(1, int(cpus // workers_here))


def _nodes() -> list[dict[str, Any]]:
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def _scaling(config: Config) -> ScalingConfig:
    workers = config.scale.workers
    alive = [node["Resources"] for node in _nodes()]
    num_gpus = sum(resources.get("GPU", 0.0) for resources in alive)
    use_gpu = config.scale.use_gpu if config.scale.use_gpu is not None else num_gpus >= workers
    if use_gpu and num_gpus < workers:
        raise ConfigError(
            f"scale.workers: got {workers} workers that want a GPU each, the cluster has {num_gpus:g} GPUs, "
            f"expected at most {num_gpus:g} workers, or --scale.use-gpu false."
        )
    cpus = cpu_share([r.get("CPU", 0.0) for r in alive], workers, asked=config.scale.cpus_per_worker)
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=_resources(cpus, use_gpu=use_gpu))


def _resources(cpus: float, *, use_gpu: bool) -> dict[str, float]:
    return {"CPU": cpus, "GPU": 1.0} if use_gpu else {"CPU": cpus}


def cpu_share(node_cpus: list[float], workers: int, *, asked: float | None = None) -> float:
    """CPUs that each worker asks for, so that all find a place.

    Args:
        node_cpus: CPUs of each node.
        workers: How many must be placed.
        asked: CPUs of a worker where the user gave them; below 1, workers share a CPU.

    Returns:
        What was asked, else the largest whole number with room for every worker.

    Raises:
        ConfigError: They do not all find a place; Ray would wait for more nodes without an end.
    """
    shares = [asked] if asked is not None else [float(cpus) for cpus in range(int(max(node_cpus, default=0)), 0, -1)]
    room = 0
    for cpus in shares:
        room = sum(int(node / cpus + 1e-6) for node in node_cpus)
        if room >= workers:
            return cpus
    each = "" if asked is None else f" with {asked:g} CPUs each"
    raise ConfigError(
        f"scale.workers: got {workers} workers{each}, the cluster has {sum(node_cpus):g} CPUs, expected at most {room} "
        f"workers. More of them share CPUs only where --scale.cpus-per-worker is given, below 1."
    )


@contextlib.contextmanager
def _tracked(job: Job) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Give a callback that logs an epoch's metrics, by one writer: this process."""
    from wildray import runlog

    uri = job.config.tracking.uri or runlog.default_uri(job.store.root)
    runlog.check_uri(uri, num_nodes=sum(bool(node["Alive"]) for node in ray.nodes()))
    with runlog.open_run(
        uri, job.config.tracking.experiment, job.run, {"stage": "pretrain", "pairs": job.pairs}
    ) as log:
        log.params(job.config.model_dump(mode="json"))
        yield lambda metrics: log.metrics(metrics, step=int(metrics["epoch"]))
        log.artifact(job.run_dir / "config.yaml")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

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
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from wildray.config import Config
from wildray.errors import ConfigError, StageError, WildrayError
from wildray.learning.follow import Follower
from wildray.learning.job import Job, Place, Probe
from wildray.learning.loop import run_training
from wildray.learning.methods import method_class
from wildray.learning.run import claim_run, finished_result
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
        ConfigError: A name is unknown, the run exists with other settings, or the workers do not divide the batch.
        StageError: There are no pairs or crops to train on, the loss is not finite, or workers died too often.
    """
    workers, train = config.scale.workers, config.train
    method_class(train.method)
    if train.batch_size % workers:
        raise ConfigError(
            f"train.batch_size {train.batch_size} cannot be shared out evenly over {workers} workers (scale.workers): "
            f"take {max(1, train.batch_size // workers) * workers}."
        )
    pairs = train.pairs or store.newest("pairs")
    if pairs is None:
        raise StageError("There are no pairs: run 'wildray mine' first.")
    config = config.model_copy(update={"train": train.model_copy(update={"pairs": pairs})})
    with store.lease(f"models-{run}"):
        claim_run(config, store, run)
        done = finished_result(config, store, run)
        if done is None:
            logger.info("pretrain %s: %s on %s, pairs %s", run, train.method, config.backbone.name, pairs)
            _train(Job(config, store, run, pairs), probe)
            done = finished_result(config, store, run)
            assert done is not None, "training ended without a result"
        else:
            logger.info("pretrain %s: finished before, nothing to do", run)
    result = PretrainResult(run=run, pairs=pairs, workers=workers, **done)
    logger.info("pretrain %s: %d steps, loss %.4f, %.1f s", run, result.num_steps, result.loss, result.seconds)
    return result


def _train(job: Job, probe: Probe | None) -> None:
    """Run attempts until training is finished; raises what a worker raised."""
    if not ray.is_initialized():
        ray.init()
    scratch = job.run_dir / ".ray"
    history = job.run_dir / "history.json"
    num_known = len(json.loads(history.read_text())) if history.is_file() else 0
    (job.run_dir / ".progress.json").unlink(missing_ok=True)
    with _tracked(job) as on_epoch, Follower(job.run_dir, on_epoch, num_known=num_known):
        for attempt in range(MAX_RESTARTS + 1):
            trainer = TorchTrainer(
                _worker,
                train_loop_config={"job": job, "probe": probe},
                scaling_config=_scaling(job.config),
                run_config=RunConfig(
                    storage_path=str(scratch), name=uuid.uuid4().hex[:12], failure_config=FailureConfig(max_failures=0)
                ),
            )
            try:
                trainer.fit()
                break
            except ray.train.TrainingFailedError as error:
                known = _own_error(error)
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
            f"{workers} workers want a GPU each and the cluster has {num_gpus:g}: lower scale.workers, "
            f"or give --scale.use-gpu false."
        )
    cpus = config.scale.cpus_per_worker or cpu_share([r.get("CPU", 0.0) for r in alive], workers)
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=_resources(cpus, use_gpu=use_gpu))


def _resources(cpus: float, *, use_gpu: bool) -> dict[str, float]:
    return {"CPU": cpus, "GPU": 1.0} if use_gpu else {"CPU": cpus}


def cpu_share(node_cpus: list[float], workers: int) -> float:
    """CPUs that each worker asks for, so that all find a place: whole ones where there are enough.

    Args:
        node_cpus: CPUs of each node.
        workers: How many must be placed.

    Returns:
        The largest whole number with room for every worker; else half of an even share.
    """
    for cpus in range(int(max(node_cpus, default=1.0)), 0, -1):
        if sum(int(node // cpus) for node in node_cpus) >= workers:
            return float(cpus)
    return max(0.01, sum(node_cpus) / workers * 0.5)


@contextlib.contextmanager
def _tracked(job: Job) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Give a callback that logs an epoch's metrics, by one writer: this process."""
    from wildray import runlog

    uri = job.config.tracking.uri or runlog.default_uri(job.store.root)
    with runlog.open_run(
        uri, job.config.tracking.experiment, job.run, {"stage": "pretrain", "pairs": job.pairs}
    ) as log:
        log.params(job.config.model_dump(mode="json"))
        yield lambda metrics: log.metrics(metrics, step=int(metrics["epoch"]))
        log.artifact(job.run_dir / "config.yaml")


def _own_error(error: BaseException) -> WildrayError | None:
    """The error of ours that made a worker fail, if it was one."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, WildrayError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

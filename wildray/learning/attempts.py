"""Attempts at a training: by Ray Train's workers, started again when one dies, or in this process [Ray Train V2].

In: a job. Out: what the loop writes. Each attempt is a new Ray Train run, since what Ray Train would restore may lag
behind and, killed while it writes, may not be readable at all; the loop goes on from its own checkpoint. A trial of a
sweep with one worker is in a process of its own already, with all that a worker has: to start two more, Ray Train's
controller and its worker, took twenty seconds of a processor, and a small trial no longer than that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from wildray.config import Config
from wildray.errors import StageError, WildrayError, user_error
from wildray.learning.checkpoint import checkpoints
from wildray.learning.entry import enter, packed
from wildray.learning.job import Job, Place, Probe
from wildray.learning.loop import run_training
from wildray.learning.placing import place_workers
from wildray.learning.worker import alive_nodes, threads_of
from wildray.nodes import of_kind, selector

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Times that training goes on by itself after a worker died."""


def train_here(job: Job, probe: Probe | None) -> None:
    """Train in this process.

    Raises:
        WildrayError: As ``run_training``; StageError for whatever else went wrong.
    """
    gpu = torch.cuda.is_available() and job.config.scale.use_gpu is not False
    threads = threads_of(job.config.scale.cpus_per_worker, workers_here=1)
    try:
        run_training(job, Place(device=torch.device("cuda" if gpu else "cpu"), threads=threads), probe=probe)
    except WildrayError:
        raise
    except Exception as error:
        raise StageError(
            f"Training of {job.run} failed with: {_last_line(error)}. "
            f"Run the same command again to go on from the last checkpoint."
        ) from error


def train_on_ray(job: Job, probe: Probe | None, scaling: ScalingConfig) -> None:
    """Run attempts until training is finished; raises what a worker raised.

    Raises:
        WildrayError: As ``run_training``; StageError where workers died too often.
    """
    # Ray Train writes nothing there that is read again; in object storage it would be hundreds of requests
    scratch = Path(tempfile.mkdtemp(prefix="wildray-")) if job.store.is_remote else job.run_dir / ".ray"
    if job.config.scale.min_workers is not None:
        # Ray Train waits so long for all of an elastic range before it begins with those that are there; unset, minutes
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    former = None
    for attempt in range(MAX_RESTARTS + 1):
        trainer = TorchTrainer(
            enter,
            train_loop_config=packed(job, probe),
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
            # the same words at the same step: trying again will not help
            state = (_last_line(error), [path.name for path in checkpoints(job.run_dir)])
            if attempt == MAX_RESTARTS or state == former:
                raise StageError(
                    f"Training of {job.run} failed {attempt + 1} times, lastly with: {_last_line(error)}. "
                    f"Run the same command again to go on from the last checkpoint."
                ) from error
            former = state
            logger.warning("a worker died (%s): going on from the last checkpoint", _last_line(error))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def scaling_of(config: Config) -> ScalingConfig:
    """What Ray Train is asked for; ConfigError where the cluster has no place for it."""
    nodes = of_kind(alive_nodes(), config.scale.train_nodes)
    placement = place_workers(config, [node["Resources"] for node in nodes])
    options: dict[str, Any] = {"num_workers": placement.workers, "label_selector": selector(config.scale.train_nodes)}
    # Ray Train V2's own; the types are of the class it takes the place of
    return ScalingConfig(use_gpu=placement.use_gpu, resources_per_worker=placement.resources, **options)


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


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

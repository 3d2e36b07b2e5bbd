"""The training loop of one worker: batches in, weights, checkpoints and a history out.

In: a job (configuration, store, run, pairs) and this worker's place among the others. Out: the final ``State``; in the
run's folder ``checkpoints/``, ``history.json`` after every epoch, ``.progress.json`` every second, at the end
``backbone.safetensors`` and, last, ``result.json``. Nothing here knows Ray: a test runs it in its own process, Ray
Train in its workers. All that is random is a function of (seed, step, worker), so a run that goes on from any
checkpoint ends with the weights of one that was not interrupted, at the same number of workers and threads.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from wildray.learning.batch import Batch
from wildray.learning.batchnorm import share_batchnorm
from wildray.learning.checkpoint import State, load_newest, remove_temporary, save_checkpoint
from wildray.learning.crops import open_cache
from wildray.learning.ingest import load, spans
from wildray.learning.job import (
    Job,
    Place,
    Probe,
    batches_per_epoch,
    make_method,
    num_batches,
    recipe_of,
    seed_of,
)
from wildray.learning.labels import read_samples
from wildray.learning.monitor import health, monitored_crops
from wildray.learning.networks import plain_attention
from wildray.learning.optim import learning_rate_at, make_optimizer, peak_learning_rate
from wildray.learning.order import Int64
from wildray.learning.records import nonfinite_error, write_progress
from wildray.learning.strategy import all_agree, make_strategy, shard_of

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S, REMOTE_PROGRESS_EVERY_S = 1.0, 10.0
LEAVING_EVERY_S = 5.0
"""Clouds give half a minute (GCP) to two (AWS) before they take a machine away."""


class Trainer:
    """One worker's networks, data and place in the training.

    Args:
        job: What is trained.
        place: Which worker this is.
        probe: Called on worker 0 at the end of epochs.
        leaving: As in ``run_training``.
    """

    def __init__(self, job: Job, place: Place, probe: Probe | None, leaving: Callable[[], bool] | None = None) -> None:
        self.job, self.place, self.probe, self.train_config = job, place, probe, job.config.train
        self.leaving = leaving
        torch.set_num_threads(place.threads)
        if place.device.type == "cuda":  # else cuBLAS may sum in another order each time
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        filling: Any = torch.utils.deterministic  # has properties, which type checkers do not know of modules
        # else every new tensor is filled with NaN first: 22 ms of a million numbers, and memory of what is not touched
        filling.fill_uninitialized_memory = False
        self.samples = read_samples(job.config, job.store, job.pairs)
        self.method = make_method(job.config, num_identities=len(self.samples.identities))
        if place.device.type == "cpu":
            plain_attention(self.method)
        share_batchnorm(self.method, num_workers=place.num_workers)
        self.method.to(place.device)
        recipe = recipe_of(self.method, job.config)
        self.peak = peak_learning_rate(recipe, self.train_config)
        self.optimizer = make_optimizer(self.method, recipe, self.train_config)
        found = load_newest(
            job.run_dir,
            place.device,
            shard=shard_of(job.config, place),
            agreed=lambda readable: all_agree(readable, place),
        )
        self.state = found or State()
        self.strategy = make_strategy(self.method, self.optimizer, config=job.config, place=place, state=self.state)
        self.state.method, self.state.optimizer = {}, {}  # else the weights stay in memory twice
        if self.train_config.recompute:
            self.method.backbone.recompute()
        if self.train_config.compile:
            self.method.backbone.compile()  # in place: the state dict keeps its names
        if found is not None:
            logger.info("run %s goes on from step %d, epoch %d", job.run, self.state.step, self.state.epoch + 1)
        cache_bytes = self.train_config.cache_mb * 1024 * 1024
        self.cache = open_cache(job.config, job.store, self.samples, cache_bytes=cache_bytes, threads=place.threads)
        self.steps_per_pass = num_batches(len(self.samples), self.train_config)  # a pass is an epoch by default
        self.steps_per_epoch = batches_per_epoch(len(self.samples), self.train_config)
        self.num_steps = self.steps_per_epoch * self.train_config.epochs
        self._last_progress_s = 0.0
        self._asked_s, self._asks = time.monotonic(), False

    def step(self, batch: Batch) -> None:
        """One optimiser step over this worker's part of a batch.

        Raises:
            StageError: The loss or the gradient is not finite: raised on every worker, before the weights change.
        """
        state, train = self.state, self.train_config
        rate = learning_rate_at(state.step, self.num_steps, peak=self.peak, warmup=train.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        parts = batch.split(train.accumulate)
        total = torch.zeros(2, dtype=torch.float64, device=self.place.device)  # the loss; whether worker 0 would ask
        for number, part in enumerate(parts, start=1):
            total[0] += self.strategy.backward(part, num_parts=len(parts), last=number == len(parts))
        total[1] = float(self.place.rank == 0 and time.monotonic() - self._asked_s > LEAVING_EVERY_S)
        if self.place.num_workers > 1:
            dist.all_reduce(total)
        summed, asks = total.tolist()
        loss, self._asks = summed / (len(parts) * self.place.num_workers), bool(asks)
        norm = self.strategy.step(clip_norm=train.clip_norm) if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            raise nonfinite_error(self.job, self.place, batch, step=state.step + 1, loss=loss, norm=norm, rate=rate)
        state.step += 1
        state.epoch_loss += loss
        state.epoch_norm += norm
        self.strategy.after_step(state.step / self.num_steps)

    def run_epoch(self) -> None:
        """Train to the end of the epoch that is under way."""
        self.method.train()
        end = (self.state.epoch + 1) * self.steps_per_epoch
        begin = end - self.steps_per_epoch + self.state.epoch_step
        for number, first_step, stop in spans(begin, end, per_pass=self.steps_per_pass):
            self.run_span(number, first_step, stop)

    def run_span(self, number: int, first_step: int, stop: int) -> None:
        """Train on the batches ``first_step`` to ``stop`` of a pass over the samples."""
        state, train, place = self.state, self.train_config, self.place
        steps = {"epoch": number, "first_step": first_step, "stop": stop}
        began = time.monotonic()
        for crops in load(self.job, place, self.cache, self.samples, method=self.method, **steps):
            torch.manual_seed(seed_of("step", train.seed, state.step, place.rank))
            self.step(self.method.views.batch(crops, seed=train.seed, epoch=number, device=place.device))
            state.epoch_step += 1
            now = time.monotonic()
            state.epoch_s, began = state.epoch_s + now - began, now
            self.show_progress(now)
            if (train.checkpoint_steps and state.step % train.checkpoint_steps == 0) or self.must_leave():
                self.save()
                began = time.monotonic()

    def must_leave(self) -> bool:
        """Whether a worker's machine is about to go: all of them ask at the same step, every few seconds."""
        if self.leaving is None or not self._asks:
            return False
        self._asked_s = time.monotonic()
        if not self.leaving():
            return False
        if self.place.rank == 0:
            logger.warning("a worker's node is about to go: checkpoint at step %d", self.state.step)
        return True

    def end_epoch(self) -> dict[str, float]:
        """Measure, write the history, go to the next epoch; returns the epoch's flat metrics (worker 0's)."""
        state, train = self.state, self.train_config
        began = time.monotonic()
        num_images = self.steps_per_epoch * train.batch_size * self.method.views.num_sources
        metrics = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "loss": state.epoch_loss / self.steps_per_epoch,
            "gradient_norm": state.epoch_norm / self.steps_per_epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_s": num_images / max(state.epoch_s, 1e-9),
        }
        last = state.epoch + 1 == self.job.last_epoch
        metrics |= self.measure(probing=last or bool(train.probe_every and (state.epoch + 1) % train.probe_every == 0))
        metrics["seconds"] = state.epoch_s + time.monotonic() - began
        state.total_s += metrics["seconds"]
        state.history.append({key: float(value) for key, value in metrics.items()})
        state.epoch, state.epoch_step = state.epoch + 1, 0
        state.epoch_loss, state.epoch_norm, state.epoch_s = 0.0, 0.0, 0.0
        if last or state.epoch % train.checkpoint_every == 0:
            self.save()
        self.write_history()
        return state.history[-1]

    def write_history(self) -> None:
        """Write what the epochs so far measured (worker 0)."""
        if self.place.rank == 0:
            text = json.dumps(self.state.history, indent=1)
            self.job.store.write_text(text, "models", self.job.run, "history.json")

    def measure(self, *, probing: bool) -> dict[str, float]:
        """Learning health of the backbone as it stands, and what the probe says of it; worker 0's."""
        backbone = self.strategy.whole_backbone()
        if backbone is None:
            return {}
        metrics = health(backbone, self.cache.images(self.monitored))
        if self.probe is not None and probing:
            training = backbone.training
            backbone.eval()
            with torch.no_grad():
                metrics |= {key: float(value) for key, value in self.probe(backbone).items()}
            backbone.train(training)
        return metrics

    @property
    def monitored(self) -> Int64:
        """(2 M,) crops whose vectors are measured, the same in every epoch: M first ones, then their positives."""
        return monitored_crops(self.samples, seed=self.train_config.seed)

    def save(self) -> None:
        """Write a checkpoint: worker 0 all of it, or each worker its part."""
        shard = self.strategy.shard
        if self.place.rank and shard is None:
            return
        self.state.method, self.state.optimizer = self.strategy.states()
        save_checkpoint(self.job.store, self.job.run_dir, self.state, shard=shard, meet=self._meet)
        self.state.method, self.state.optimizer = {}, {}

    def _meet(self) -> None:
        if self.place.num_workers > 1:
            dist.barrier()

    def show_progress(self, now_s: float) -> None:
        """Tell the driver how far training is (worker 0, once a second)."""
        every_s = REMOTE_PROGRESS_EVERY_S if self.job.store.is_remote else PROGRESS_EVERY_S
        if self.place.rank or now_s - self._last_progress_s < every_s:
            return
        self._last_progress_s = now_s
        num_images = self.train_config.batch_size * self.method.views.num_sources
        write_progress(self.job, self.state, num_steps=self.num_steps, images_per_step=num_images)

    def finish(self) -> None:
        """Write the backbone and the result (worker 0; every worker calls it)."""
        backbone = self.strategy.whole_backbone()
        if backbone is None:
            return
        state, job = self.state, self.job
        job.store.publish(job.run_dir / "backbone.safetensors", backbone.save)
        result = {
            "epochs": state.epoch,
            "num_steps": state.step,
            "loss": state.history[-1]["loss"],
            "images_per_s": float(np.median([epoch["images_per_s"] for epoch in state.history])),
            "seconds": state.total_s,
        }
        job.store.write_text(json.dumps(result), "models", job.run, "result.json")


def run_training(
    job: Job,
    place: Place,
    *,
    probe: Probe | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    leaving: Callable[[], bool] | None = None,
) -> State:
    """Train to the end, or to ``job.until``, from the newest checkpoint or from the beginning.

    Args:
        job: What is trained.
        place: Which worker this is; with several, ``torch.distributed`` is initialised.
        probe: Called with the backbone on worker 0 at the end of epochs, in evaluation mode.
        on_epoch: Called on every worker at the end of every epoch with its flat metrics.
        leaving: Whether a worker's machine is about to be taken away. Asked every few seconds, by all workers at the
            same step; while it says so, each time a checkpoint is written, so that little is lost with the machine.

    Raises:
        StageError: The pairs are too few for a batch, have no crops, or the loss is not finite.
    """
    if place.rank == 0:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        remove_temporary(job.run_dir)
    trainer = Trainer(job, place, probe, leaving)
    try:
        if trainer.state.history:
            trainer.write_history()  # killed just after a checkpoint, the run's last epoch is not in it yet
        while trainer.state.epoch < job.last_epoch:
            trainer.run_epoch()
            metrics = trainer.end_epoch()
            if on_epoch is not None:
                on_epoch(metrics)
        trainer.finish()
    finally:
        trainer.cache.close()
    return trainer.state

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
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wildray.errors import StageError
from wildray.learning.batchnorm import share_batchnorm
from wildray.learning.checkpoint import State, load_newest, remove_temporary, save_checkpoint
from wildray.learning.crops import MARGIN, CropCache
from wildray.learning.ingest import load_ahead
from wildray.learning.job import Job, Place, Probe, make_method, num_batches, recipe_of, seed_of, takes_bf16
from wildray.learning.monitor import spread
from wildray.learning.optim import learning_rate_at, make_optimizer, peak_learning_rate
from wildray.learning.order import Int64, epoch_order
from wildray.learning.pairs import read_pairs

logger = logging.getLogger(__name__)

NUM_MONITORED = 256
"""Crops over which rank and spread are measured: more than the rank of anything trained for an hour, and a second."""
PROGRESS_EVERY_S = 1.0


class Trainer:
    """One worker's networks, data and place in the training.

    Args:
        job: What is trained.
        place: Which worker this is.
        probe: Called on worker 0 at the end of epochs.
    """

    def __init__(self, job: Job, place: Place, probe: Probe | None) -> None:
        self.job, self.place, self.probe, self.train_config = job, place, probe, job.config.train
        torch.set_num_threads(place.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.method = make_method(job.config)
        share_batchnorm(self.method, num_workers=place.num_workers)
        self.method.to(place.device)
        recipe = recipe_of(self.method, job.config)
        self.peak = peak_learning_rate(recipe, self.train_config)
        self.optimizer = make_optimizer(self.method, recipe, self.train_config)
        self.state = load_newest(job.run_dir, place.device) or State()
        if self.state.step:
            self.method.load_state_dict(self.state.method)
            self.optimizer.load_state_dict(self.state.optimizer)
            logger.info("run %s goes on from step %d, epoch %d", job.run, self.state.step, self.state.epoch + 1)
        self.parallel: nn.Module = self.method
        if place.num_workers > 1:
            on_gpu = [place.device] if place.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.method, device_ids=on_gpu)
        self.pairs = read_pairs(job.store, job.pairs)
        self.cache = CropCache(
            job.store,
            self.pairs,
            side_px=math.ceil(MARGIN * job.config.backbone.image_size),
            cache_bytes=self.train_config.cache_mb * 1024 * 1024,
            threads=place.threads,
        )
        self.steps_per_epoch = num_batches(len(self.pairs), self.train_config.batch_size)
        self.num_steps = self.steps_per_epoch * self.train_config.epochs
        self.bf16 = takes_bf16(self.train_config.precision, place.device)
        self._last_progress_s = 0.0

    def step(self, loss: Tensor) -> float:
        """One optimiser step; returns the loss averaged over workers.

        Raises:
            StageError: The loss or the gradient is not finite: raised on every worker, before the weights change.
        """
        state, train = self.state, self.train_config
        mean_loss = loss.detach().double()
        if self.place.num_workers > 1:
            dist.all_reduce(mean_loss)
            mean_loss /= self.place.num_workers
        value = float(mean_loss)
        rate = learning_rate_at(state.step, self.num_steps, peak=self.peak, warmup=train.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        norm = math.nan
        if math.isfinite(value):
            torch.autograd.backward(loss)
            norm = float(nn.utils.clip_grad_norm_(self.method.parameters(), train.clip_norm))
        if not math.isfinite(norm):
            raise StageError(
                f"The loss became {value} with a gradient norm of {norm} at step {state.step + 1} of run "
                f"{self.job.run} (learning rate {rate:.2g}). Begin another --run with a lower train.learning_rate "
                f"(now {self.peak:.2g}), or with train.precision fp32."
            )
        self.optimizer.step()
        state.step += 1
        self.method.after_step(state.step / self.num_steps)
        return value

    def run_epoch(self) -> None:
        """Train to the end of the epoch that is under way."""
        state, train, place = self.state, self.train_config, self.place
        order = self.epoch_rows(state.epoch)
        crops_ahead = load_ahead(
            self.cache,
            self.pairs,
            order,
            seed=train.seed,
            epoch=state.epoch,
            first_step=state.epoch_step,
            num_sources=self.method.views.num_sources,
            rank=place.rank,
            num_workers=place.num_workers,
        )
        self.parallel.train()
        began = time.monotonic()
        for crops in crops_ahead:
            torch.manual_seed(seed_of("step", train.seed, state.step, place.rank))
            batch = self.method.views.batch(crops, seed=train.seed, epoch=state.epoch, device=place.device)
            with torch.autocast(place.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.parallel(batch)
            state.epoch_loss += self.step(loss)
            state.epoch_step += 1
            now = time.monotonic()
            state.epoch_s, began = state.epoch_s + now - began, now
            self.show_progress(now)
            if train.checkpoint_steps and state.step % train.checkpoint_steps == 0:
                self.save()
                began = time.monotonic()

    def epoch_rows(self, epoch: int) -> Int64:
        """(steps, batch_size) rows of the pairs table."""
        train = self.train_config
        return epoch_order(
            self.pairs.pack[self.pairs.crop[:, 0]],
            self.pairs.camera_id if train.balance == "camera" else None,
            seed=train.seed,
            epoch=epoch,
            batch_size=train.batch_size,
            window_packs=train.window_packs,
        )

    def end_epoch(self) -> dict[str, float]:
        """Measure, write the history, go to the next epoch; returns the epoch's flat metrics (worker 0's)."""
        state, train = self.state, self.train_config
        began = time.monotonic()
        num_images = self.steps_per_epoch * train.batch_size * self.method.views.num_sources
        metrics = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "loss": state.epoch_loss / self.steps_per_epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_s": num_images / max(state.epoch_s, 1e-9),
        }
        last = state.epoch + 1 == train.epochs
        if self.place.rank == 0:
            metrics |= spread(self.method.backbone, self.monitored_images())
            if self.probe is not None and (last or (train.probe_every and (state.epoch + 1) % train.probe_every == 0)):
                metrics |= self.measure(self.probe)
        metrics["seconds"] = state.epoch_s + time.monotonic() - began
        state.total_s += metrics["seconds"]
        state.history.append({key: float(value) for key, value in metrics.items()})
        state.epoch, state.epoch_step, state.epoch_loss, state.epoch_s = state.epoch + 1, 0, 0.0, 0.0
        if last or state.epoch % train.checkpoint_every == 0:
            self.save()
        if self.place.rank == 0:
            self.job.store.write_text(json.dumps(state.history, indent=1), "models", self.job.run, "history.json")
        return state.history[-1]

    def measure(self, probe: Probe) -> dict[str, float]:
        """The probe's metrics of the backbone as it stands, in evaluation mode."""
        backbone = self.method.backbone
        training = backbone.training
        backbone.eval()
        with torch.no_grad():
            metrics = probe(backbone)
        backbone.train(training)
        return {key: float(value) for key, value in metrics.items()}

    def monitored_images(self) -> Tensor:
        """(M, 3, P, P) uint8 crops, the same in every epoch."""
        rng = np.random.default_rng([self.train_config.seed, 0x5EED])
        chosen = rng.permutation(len(self.pairs.pack))[:NUM_MONITORED].astype(np.int64)
        return self.cache.images(chosen)

    def save(self) -> None:
        """Write a checkpoint (worker 0)."""
        if self.place.rank == 0:
            self.state.method = self.method.state_dict()
            self.state.optimizer = self.optimizer.state_dict()
            save_checkpoint(self.job.store, self.job.run_dir, self.state)

    def show_progress(self, now_s: float) -> None:
        """Tell the driver how far training is (worker 0, once a second)."""
        if self.place.rank or now_s - self._last_progress_s < PROGRESS_EVERY_S:
            return
        self._last_progress_s = now_s
        state, train = self.state, self.train_config
        step_s = state.epoch_s / max(1, state.epoch_step)
        content = {
            "epoch": state.epoch + 1,
            "epochs": train.epochs,
            "step": state.step,
            "num_steps": self.num_steps,
            "loss": state.epoch_loss / max(1, state.epoch_step),
            "images_per_s": train.batch_size * self.method.views.num_sources / max(step_s, 1e-9),
            "eta_s": step_s * (self.num_steps - state.step),
        }
        temporary = self.job.run_dir / ".progress.json.new"
        temporary.write_text(json.dumps(content))
        temporary.replace(self.job.run_dir / ".progress.json")

    def finish(self) -> None:
        """Write the backbone and the result (worker 0)."""
        if self.place.rank:
            return
        state, job = self.state, self.job
        job.store.publish(job.run_dir / "backbone.safetensors", self.method.backbone.save)
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
) -> State:
    """Train to the end, from the newest checkpoint or from the beginning.

    Args:
        job: What is trained.
        place: Which worker this is; with several, ``torch.distributed`` is initialised.
        probe: Called with the backbone on worker 0 at the end of epochs, in evaluation mode.
        on_epoch: Called on every worker at the end of every epoch with its flat metrics.

    Raises:
        StageError: The pairs are too few for a batch, have no crops, or the loss is not finite.
    """
    if place.rank == 0:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        remove_temporary(job.run_dir)
    trainer = Trainer(job, place, probe)
    try:
        while trainer.state.epoch < job.config.train.epochs:
            trainer.run_epoch()
            metrics = trainer.end_epoch()
            if on_epoch is not None:
                on_epoch(metrics)
        trainer.finish()
    finally:
        trainer.cache.close()
    return trainer.state

"""What a sweep would do, without doing it: trials, shared work, time.

In: a sweep and a store. Out: a ``Plan`` to be printed. Throughput is measured, not guessed: from the trials of the
sweep that have ended where there are some, else by a few steps on random images on this machine. Where the pairs do not
exist yet, neither do their numbers; budgets are in images and need none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import fmean, median

import torch

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.learning.batch import Crops, Facts
from wildray.learning.job import make_method
from wildray.store import Store
from wildray.sweep.budget import with_work, work_of
from wildray.sweep.population import boundaries
from wildray.sweep.space import Settings, all_settings
from wildray.sweep.spec import SweepSpec
from wildray.trials import Ledger

STEPS = 3
"""Steps that are timed, after one that is not."""
MAX_TIMED = 64
"""Samples of a step that is timed: a batch that no memory holds may well be among what is searched."""
STARTUP_S = 15.0
"""Of a trial, where none has been measured: Ray's processes and imports."""


@dataclass(frozen=True)
class PlannedTrial:
    """One trial as it would be.

    Attributes:
        settings: What is searched.
        seed: Of the trial.
        num_steps: Of its training.
        num_images: That its network sees.
        seconds: Estimate of its training.
        problem: Why it cannot be run, if so.
    """

    settings: Settings
    seed: int
    num_steps: int
    num_images: float
    seconds: float
    problem: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        trials: In order; with Optuna none are known, and there is one with the base settings for the estimate.
        num_trials: How many there will be.
        num_pair_sets: Different settings of mining.
        num_backbones: Untrained networks that are measured.
        concurrency: Trials at a time.
        hours: Estimate, without early stopping.
        core_hours: CPUs that are held times that.
        measured: Where the estimate comes from.
    """

    trials: tuple[PlannedTrial, ...]
    num_trials: int
    num_pair_sets: int
    num_backbones: int
    concurrency: int
    hours: float
    core_hours: float
    measured: str


def plan(spec: SweepSpec, store: Store | None, *, concurrency: int) -> Plan:
    """Work out what a sweep would do.

    Args:
        spec: The sweep.
        store: With records of earlier starts, if there is one.
        concurrency: Trials that find a place at a time.
    """
    known = (
        [] if store is None else [record for record in Ledger(store, spec.name).all() if record.status == "finished"]
    )
    points = (
        [({}, seed) for seed in spec.seeds]
        if spec.algorithm.kind == "optuna"
        else [(settings, seed) for settings in all_settings(spec) for seed in spec.seeds]
    )
    speeds: dict[str, float] = {}
    trials, mining, backbones = [], set(), set()
    for settings, seed in points:
        try:
            config = spec.config({**settings, "train.seed": seed})
            work = work_of(config, spec.budget)
        except ConfigError as error:
            trials.append(PlannedTrial(settings, seed, 0, 0.0, 0.0, str(error)))
            continue
        config = with_work(config, work)
        mining.add(config.mine.digest())
        backbones.add(config.backbone.digest())
        key = "/".join((config.backbone.digest(), config.train.method, config.train.views, str(work.batch_size)))
        if key not in speeds:
            speeds[key] = step_seconds(config, threads=max(1, int(spec.resources.cpus)))
        seconds = work.num_steps * speeds[key] / spec.resources.workers
        images = work.num_steps * work.batch_size * work.images_per_sample
        trials.append(PlannedTrial(settings, seed, work.num_steps, images, seconds))
    startup_s = median([part for record in known for part in record.startup_s] or [STARTUP_S])
    population = spec.scheduler.kind == "pbt"  # starts again after each exchange, and records are of parts of a budget
    starts = len(boundaries(spec.budget.measurements, spec.scheduler.interval)) if population else 1
    each_s = fmean(trial.seconds + starts * startup_s if trial.problem is None else 0.0 for trial in trials)
    if known and not population:
        each_s = fmean(record.seconds for record in known)
    num_trials = (spec.budget.trials or 0) * len(spec.seeds) if spec.algorithm.kind == "optuna" else len(trials)
    hours = num_trials * each_s / max(1, concurrency) / 3600
    held = spec.resources.workers * spec.resources.cpus
    return Plan(
        tuple(trials), num_trials, len(mining), len(backbones), concurrency, hours, num_trials * each_s * held / 3600,
        f"{STEPS} steps of each kind here" if population or not known else f"{len(known)} trials of this sweep",
    )  # fmt: skip


def step_seconds(config: Config, *, threads: int) -> float:
    """Median time of a training step on random images, without reading them; that of a large batch is reckoned."""
    timed = min(config.train.batch_size, MAX_TIMED)
    share = config.train.batch_size / timed
    config = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": timed})})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        settled = "keep" if config.augment.background == "auto" else config.augment.background
        augment = config.augment.model_copy(update={"background": "keep" if settled == "swap" else settled})
        method = make_method(config.model_copy(update={"augment": augment}), num_identities=64).train()
        optimizer = torch.optim.AdamW(method.parameters(), fused=True)
        crops = _random_crops(config, num_sources=method.views.num_sources)
        times = []
        for step in range(STEPS + 1):
            begun = time.monotonic()
            loss = method(method.views.batch(crops, seed=0, epoch=step, device=torch.device("cpu")))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.monotonic() - begun)
        return median(times[1:]) * share
    finally:
        torch.set_num_threads(before)


def _random_crops(config: Config, *, num_sources: int) -> Crops:
    num, side = config.train.batch_size, config.backbone.image_size
    names = torch.arange(num_sources * num).view(num_sources, num)
    each = config.train.images_per_identity
    return Crops(
        images=torch.randint(0, 256, (num_sources, num, 3, side, side), dtype=torch.uint8),
        index=torch.arange(num),
        tracklet_id=torch.arange(num),
        facts=Facts(
            detection_id=names,
            frame_key=names,
            xyxy_px=torch.zeros(num_sources, num, 4),
            camera_id=names,
            captured_at_s=torch.full((num_sources, num), float("nan"), dtype=torch.float64),
        ),
        labels=(torch.arange(num) // each) % 64,
        box=torch.tensor([0.1, 0.1, 0.9, 0.9]).expand(num_sources, num, 4),
    )

"""A queue of training runs that can be stopped and gone on with.

In: runs, in order of priority, each a configuration, its pairs, a budget of images and what is measured. Out: a JSON
file for every finished run in a folder; what is there is not run again, what was stopped goes on from its checkpoint.
Beside a page ``docs/NAME.md`` the runs are recorded in ``docs/runs/NAME.md``, from where another machine goes on.
Runs go through ``run_training``, the loop that Ray's workers run, without Ray: several processes with one thread each.
On a small machine that gives more than one process with all threads, and processes fill a GPU that one leaves idle.
Since every run is measured in the same way, their images per second compare with each other (not with a run that has
the machine to itself).

Methods see different numbers of views of a sample, so equal batches would be unequal budgets. Here every method sees
the same number of images in a step and in all: with twice the views a sample, a batch has half the samples. Counted is
what the student sees; a view of a smaller side counts by its share of pixels; a teacher's inputs are not counted. The
learning rate is the recipe's for the batch that a method's usual views give; with other kinds of views it stays, since
a step is of as many images.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import cv2

from bench.measures import Measured, fastest, gain, per_individual
from bench.record import Result, Results, commit, machine, page_of_runs, read_results, restore
from wildray.config import Config
from wildray.errors import StageError
from wildray.learning.backbone import Backbone
from wildray.learning.first_backbone import first_backbone, open_backbone
from wildray.learning.job import Job, Place, make_method, recipe_of
from wildray.learning.loop import run_training
from wildray.learning.methods import method_class
from wildray.learning.run import claim_run
from wildray.store import Store
from wildray.sweep.budget import batch_of

logger = logging.getLogger(__name__)

Measure = Callable[[Backbone], Measured]

IMAGES_PER_STEP = 64
"""Images that the student sees in a step: 32 pairs with a view of each crop."""
CHECKPOINT_STEPS = 100
"""Steps between checkpoints: under a minute of work is lost when a run is stopped."""


@dataclass(frozen=True)
class Run:
    """One training run and what is measured of it; pickles.

    Attributes:
        name: Of the run's folder and of its result.
        config: Everything but batch size and epochs, which the budget decides.
        store: Holds the samples; takes ``models/<name>/``.
        samples: Digest of the pairs, or of the labelled images of a supervised method.
        num_samples: Samples in an epoch: pairs, or labelled images of a supervised method.
        num_images: Budget: images that the student is to see at least, and less than an epoch more.
        measure: Of the backbone before and after.
        rate_share: Share of the recipe's learning rate that is taken, where the configuration gives none.
        facts: Numbers about what is trained on that stand in the result.
    """

    name: str
    config: Config
    store: Store
    samples: str
    num_samples: int
    num_images: int
    measure: Measure
    rate_share: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A bench: what it runs and the page it makes.

    Attributes:
        name: Of the folder of its results.
        plan: Folder and whether this is a smoke trial, to a function that gives all runs in order of priority, once
            more after each that finished.
        page: Results by name, to Markdown.
        figures: Results by name, to files that the page shows and that lie beside it, by name.
    """

    name: str
    plan: Callable[[Path, bool], Callable[[Results], list[Run]]]
    page: Callable[[Results], str]
    figures: Callable[[Results], Mapping[str, bytes]] = lambda results: {}


def budgeted(run: Run) -> tuple[Config, float]:
    """The configuration with the batch size and epochs that the budget gives, and the images in a sample."""
    config = run.config
    kind = method_class(config.train.method)
    batch_size, per_sample = batch_of(config, images=IMAGES_PER_STEP)
    per_epoch = run.num_samples // batch_size * batch_size * per_sample
    changes: dict[str, object] = {
        "batch_size": batch_size,
        "epochs": max(1, math.ceil(run.num_images / max(per_epoch, 1.0))),
        "checkpoint_steps": CHECKPOINT_STEPS,
        "checkpoint_every": 1_000_000,  # and once at the end, whatever this says
        "labels" if kind.supervised else "pairs": run.samples,
    }
    if config.train.learning_rate is None:
        usual = config.model_copy(update={"train": config.train.model_copy(update={"views": "temporal"})})
        reference, _ = batch_of(usual, images=IMAGES_PER_STEP)
        changes["learning_rate"] = run.rate_share * recipe_of(kind, config).peak(reference)
    return config.model_copy(update={"train": config.train.model_copy(update=changes)}), per_sample


def execute(run: Run, folder: Path) -> None:
    """Train a run to its end, measure, write its result; a run that was stopped goes on."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cv2.setNumThreads(1)
    _log_to(folder / f"{run.name}.log")
    config, per_sample = budgeted(run)
    job = Job(config, run.store, run.name, run.samples)
    try:
        with run.store.lease(f"models-{run.name}"):
            claim_run(config, run.store, run.name)
            run_training(job, Place(device=fastest(), threads=1))
        result = _result(run, job, per_sample)
    except StageError as error:  # a loss that is not finite is a result too
        logger.exception("%s failed", run.name)
        result = {"error": str(error)}
    facts = {"name": run.name, "seed": config.train.seed, "commit": commit(), "machine": machine(), **run.facts}
    facts["config"] = _settings(config)
    temporary = folder / f".{run.name}.json"
    temporary.write_text(json.dumps(facts | result, indent=1))
    temporary.replace(folder / f"{run.name}.json")
    shutil.rmtree(job.run_dir / "checkpoints", ignore_errors=True)


def _result(run: Run, job: Job, per_sample: float) -> Result:
    device = fastest()
    train = job.config.train
    before = run.measure(first_backbone(job.config).to(device).eval().requires_grad_(False))
    after = run.measure(open_backbone(job.run_dir / "backbone.safetensors").to(device).eval().requires_grad_(False))
    history = job.store.read_json("models", job.run, "history.json")
    finished = job.store.read_json("models", job.run, "result.json")
    num_steps, seconds = int(finished["num_steps"]), float(finished["seconds"])
    num_sources = make_method(job.config, num_identities=2).views.num_sources
    return {
        "error": None,
        "before": before.figures,
        "after": after.figures,
        "gain": gain(before, after),
        "loss_first": history[0]["loss"],
        "loss_last": history[-1]["loss"],
        "embedding_rank": history[-1]["embedding_rank"],
        "embedding_std": history[-1]["embedding_std"],
        "seconds": seconds,
        "images_per_s": finished["images_per_s"] * per_sample / num_sources,
        "num_steps": num_steps,
        "num_seen_images": round(num_steps * train.batch_size * per_sample),
        "individuals": per_individual(after),
    }


def _settings(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name).model_dump(mode="json") for name in ("backbone", "augment", "method", "train")}


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def work_through(
    plan: Callable[[Results], Sequence[Run]],
    folder: Path,
    *,
    jobs: int = 2,
    max_minutes: float | None = None,
    target: Callable[[Run, Path], None] = execute,
) -> int:
    """Run what is not finished, the first of the plan first, ``jobs`` at a time.

    Args:
        plan: All runs in order of priority, given the results so far; asked again whenever one ended.
        folder: Takes ``<name>.json`` of each run.
        jobs: Processes at a time.
        max_minutes: Time after which what is under way is stopped; the next call goes on with it.
        target: What a process does.

    Returns:
        Number of processes that died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    end_s = time.monotonic() + (math.inf if max_minutes is None else 60 * max_minutes)
    running: dict[str, SpawnProcess] = {}
    died: set[str] = set()
    try:
        while time.monotonic() < end_s:
            results = read_results(folder)
            todo = [run for run in plan(results) if run.name not in {*results, *running, *died}]
            for run in todo[: jobs - len(running)]:
                running[run.name] = context.Process(target=target, args=(run, folder), name=run.name)
                running[run.name].start()
                logger.info("%s begins; %d more to do", run.name, len(todo) - 1)
            if not running:
                break
            left_s = None if math.isinf(end_s) else max(0.0, end_s - time.monotonic())
            multiprocessing.connection.wait([process.sentinel for process in running.values()], left_s)
            for name in [name for name, process in running.items() if process.exitcode is not None]:
                exitcode = running.pop(name).exitcode
                if exitcode or not (folder / f"{name}.json").is_file():
                    died.add(name)
                    logger.error("%s died with exit status %s, see %s", name, exitcode, folder / f"{name}.log")
                else:
                    logger.info("%s is done", name)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return len(died)


def command(bench: Bench, arguments: Sequence[str] | None = None) -> int:
    """The command line of a bench; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{bench.name}", description=f"The bench {bench.name}.")
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="folder of data, runs and results")
    parser.add_argument("--only", nargs="*", default=["*"], metavar="NAME", help="runs to do, such as 'simclr-*'")
    parser.add_argument("--max-minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs at a time, a thread each; all on the GPU where there is one"
    )
    parser.add_argument(
        "--table",
        type=Path,
        help="write the page of what is finished here, and its runs to runs/ beside it, from where a bench goes on",
    )
    parser.add_argument("--list", action="store_true", help="show which runs are finished, and run nothing")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a little data, to see that it goes")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that they are stopped too
    folder: Path = asked.work.absolute() / "results" / f"{bench.name}{'-smoke' if asked.smoke else ''}"
    # runs that were recorded on another machine are not done again
    record = None if asked.table is None or asked.smoke else asked.table.parent / "runs" / asked.table.name
    if record is not None:
        logger.info("%d runs are taken from %s", restore(record, folder), record)
    num_died = 0
    plan = None if asked.max_minutes == 0 and not asked.list else bench.plan(asked.work.absolute(), asked.smoke)

    def chosen(results: Results) -> list[Run]:
        runs = [] if plan is None else plan(results)
        return [run for run in runs if any(fnmatch(run.name, pattern) for pattern in asked.only)]

    if asked.list:
        results = read_results(folder) if folder.is_dir() else {}
        print("\n".join(f"{'done' if run.name in results else '    '} {run.name}" for run in chosen(results)))
        return 0
    try:
        if plan is not None:
            num_died = work_through(chosen, folder, jobs=asked.jobs, max_minutes=asked.max_minutes)
    finally:  # interrupted, too, it leaves the pages of what is finished
        _write_pages(bench, read_results(folder), page=asked.table, record=record)
    return 1 if num_died else 0


def _write_pages(bench: Bench, results: Results, *, page: Path | None, record: Path | None) -> None:
    if page is None:
        return
    texts = {page: bench.page(results)}
    if record is not None:
        texts[record] = page_of_runs(results, bench=bench.name)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, content in bench.figures(results).items():
        (page.parent / name).write_bytes(content)

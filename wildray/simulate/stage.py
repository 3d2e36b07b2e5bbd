"""The stage: a whole reserve on disk, made by several processes at once.

In: the configuration and a folder. Out: ``media/`` (videos, stills, a manifest), ``truth/`` and ``labelled/``. Captures
are planned in one place and made anywhere: each depends on the configuration and its own plan alone, so that the
number of processes changes the time and nothing else. Threads would share Python's lock between encoders.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
from rich.console import Console
from rich.progress import Progress

from wildray.config import Config, SimulateConfig
from wildray.errors import DataError
from wildray.simulate.coats import U8
from wildray.simulate.encoding import write_still, write_video
from wildray.simulate.labelled import Shot, photograph, shots, write_metadata
from wildray.simulate.rendering import Seen, render
from wildray.simulate.scenery import camera_name
from wildray.simulate.script import Capture, captures
from wildray.simulate.truth import Recorded, write_truth

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass(frozen=True)
class SimulateResult:
    """What was made.

    Attributes:
        num_videos, num_stills: Files under ``media/``.
        num_empty: Videos without an animal.
        num_frames: Frames of the videos.
        num_boxes: Boxes of animals in videos and stills.
        num_individuals: Animals that are seen in them.
        num_labelled: Labelled pictures.
        num_labelled_individuals: Held-out animals in those.
        frames_per_s: Pictures of all kinds a second.
        uri: The folder.
        seconds: How long it took.
    """

    num_videos: int
    num_stills: int
    num_empty: int
    num_frames: int
    num_boxes: int
    num_individuals: int
    num_labelled: int
    num_labelled_individuals: int
    frames_per_s: float
    uri: str
    seconds: float


def simulate(config: Config, out: str | Path, *, workers: int | None = None) -> SimulateResult:
    """Make a reserve.

    Args:
        config: Its section ``simulate`` decides what is made.
        out: The folder: new, empty, or of a reserve of the same settings, which is made anew.
        workers: Processes; default one per CPU that this process may use. The files do not depend on it.

    Raises:
        ConfigError: Settings that contradict each other.
        DataError: The folder holds something else.
    """
    begin = time.monotonic()
    settings, root = config.simulate, Path(out)
    plan, labelled = captures(settings), shots(settings)
    _claim(root, settings)
    for camera in sorted({capture.camera for capture in plan}):
        (root / "media" / camera_name(camera)).mkdir(parents=True, exist_ok=True)
    (root / "labelled" / "images").mkdir(parents=True, exist_ok=True)
    processes = min(workers or len(os.sched_getaffinity(0)), len(plan))
    logger.info("simulate: %d files and %d labelled pictures with %d processes", len(plan), len(labelled), processes)
    seen = list(_spread(partial(_record, settings, str(root / "media")), plan, processes, "files"))
    portraits = list(
        _spread(partial(_portrait, settings, str(root / "labelled" / "images")), labelled, processes, "labelled")
    )
    recorded = list(zip(plan, seen, strict=True))
    write_truth(root / "truth", settings, recorded)
    write_metadata(root / "labelled", list(zip(labelled, portraits, strict=True)))
    _write_manifest(root / "media" / "manifest.csv", plan)
    result = _result(root, recorded, portraits, time.monotonic() - begin)
    logger.info("simulate: %d frames, %d boxes in %.1f s", result.num_frames, result.num_boxes, result.seconds)
    return result


def _claim(root: Path, settings: SimulateConfig) -> None:
    """Take a folder that is new, empty, or of the same reserve."""
    record = root / "reserve.json"
    text = json.dumps(settings.model_dump(mode="json"), indent=1) + "\n"
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file, expected a folder to make. Name another place.")
    if root.is_dir() and any(root.iterdir()) and not (record.is_file() and record.read_text() == text):
        raise DataError(
            f"{root} holds something other than a reserve of these settings, expected a new or empty folder. "
            "Name another folder, or remove this one."
        )
    root.mkdir(parents=True, exist_ok=True)
    record.write_text(text)


def _spread(make: Callable[[Job], Done], jobs: list[Job], processes: int, what: str) -> Iterator[Done]:
    """The results of all jobs in order."""
    with Progress(console=Console(file=sys.stderr), disable=not sys.stderr.isatty(), transient=True) as progress:
        if processes <= 1:
            yield from progress.track(map(make, jobs), total=len(jobs), description=what)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as pool:
            done = pool.map(make, jobs, chunksize=1 if what == "files" else 8)
            yield from progress.track(done, total=len(jobs), description=what)


def _begin_worker() -> None:
    """One thread per worker; and a worker whose parent was killed ends, where the pool would let it wait for ever."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are started by the stage"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _record(settings: SimulateConfig, media: str, capture: Capture) -> list[Seen]:
    """Make one file; returns what is seen in its frames."""
    seen: list[Seen] = []

    def frames() -> Iterator[U8]:
        for frame, visible in render(settings, capture):
            seen.extend(visible)
            yield frame

    path = Path(media, capture.name)
    if capture.is_video:
        write_video(path, frames(), fps=settings.fps, captured_at=capture.captured_at)
    else:
        write_still(path, next(frames()), captured_at=capture.captured_at)
    return seen


def _portrait(settings: SimulateConfig, folder: str, shot: Shot) -> Seen:
    """Make one labelled picture; returns what is seen in it."""
    frame, seen = photograph(settings, shot)
    write_still(Path(folder, shot.capture.name), frame, captured_at=shot.capture.captured_at)
    return seen


def _write_manifest(path: Path, plan: list[Capture]) -> None:
    """A row per file: its path relative to the manifest, its camera and its time."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("uri", "camera_id", "captured_at"))
        for capture in plan:
            writer.writerow((capture.name, camera_name(capture.camera), capture.captured_at.isoformat()))


def _result(root: Path, recorded: list[Recorded], portraits: list[Seen], seconds: float) -> SimulateResult:
    animals = [one for _, seen in recorded for one in seen if one.mot_id]
    videos = [(capture, seen) for capture, seen in recorded if capture.is_video]
    num_frames = sum(capture.num_frames for capture, _ in videos)
    num_stills = len(recorded) - len(videos)
    return SimulateResult(
        num_videos=len(videos),
        num_stills=num_stills,
        num_empty=sum(not any(one.mot_id for one in seen) for _, seen in videos),
        num_frames=num_frames,
        num_boxes=len(animals),
        num_individuals=len({one.identity for one in animals}),
        num_labelled=len(portraits),
        num_labelled_individuals=len({one.identity for one in portraits}),
        frames_per_s=(num_frames + num_stills + len(portraits)) / max(seconds, 1e-9),
        uri=str(root),
        seconds=seconds,
    )

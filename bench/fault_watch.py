"""What is done twice, seen from outside: a thread that looks at a store, and at the processes that work on it.

In: the root of a store, the folder of the media. Out: counts. Nothing is built into the stages for it: a decoder has
the file open that it decodes, a shard that is published again is another inode, training writes the step that it is at
once a second (and at the first step of each attempt), a trial takes a lease of its own each time it begins.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from wildray.store import Store

EVERY_S, REMOTE_EVERY_S = 0.1, 0.5


class Watch(threading.Thread):
    """Looks from its start until ``stop``.

    Args:
        root: Of the store.
        media: Folder of the media.

    Attributes:
        marks: What was finished (chunks, shards, checkpoints), and when it was seen first, of ``time.monotonic``.
    """

    def __init__(self, root: str, media: Path) -> None:
        super().__init__(daemon=True)
        self.marks: dict[str, float] = {}
        self._store, self._media, self._over = Store(root), f"{media}{os.sep}", threading.Event()
        self._decoders: dict[str, set[int]] = defaultdict(set)
        self._inodes: dict[str, set[int]] = defaultdict(set)
        self._steps: dict[str, list[int]] = defaultdict(list)
        self._further: dict[str, list[float]] = defaultdict(list)  # when a training was seen further than ever
        self._attempts: dict[str, set[str]] = defaultdict(set)

    def run(self) -> None:
        """Look."""
        every_s = REMOTE_EVERY_S if self._store.is_remote else EVERY_S
        while not self._over.wait(every_s):
            with contextlib.suppress(Exception):  # what is looked at changes meanwhile, or storage fails on purpose
                self._look()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()

    def repeated(self) -> dict[str, int]:
        """What was done twice: media decoded, shards mined, steps trained, trials begun."""
        return {
            "media": sum(len(pids) > 1 for pids in self._decoders.values()),
            "shards": sum(len(inodes) - 1 for inodes in self._inodes.values()),
            "steps": sum(map(steps_repeated, self._steps.values())),
            "trials": sum(len(tokens) - 1 for tokens in self._attempts.values()),
        }

    def standstill(self, stage: str, at_s: float) -> float | None:
        """The longest time from a moment on in which nothing of a stage was finished that was not before, in seconds.

        Args:
            stage: Its chunks, shards or steps; of a sweep, the steps of each trial.
            at_s: The moment; counted is from the last that was finished before it.

        Returns:
            None where nothing was finished after it.
        """
        folder = {"detect": "detections", "mine": "pairs"}.get(stage)
        if folder is not None:
            return longest_gap([seen_s for path, seen_s in self.marks.items() if f"/{folder}/" in path], at_s)
        gaps = [longest_gap(times, at_s) for times in self._further.values()]
        return max((gap for gap in gaps if gap is not None), default=None)

    def _look(self) -> None:
        store, now_s = self._store, time.monotonic()
        chunks = [*store.path("detections").glob("*/.chunks/*.done.json")]
        planned = next(iter(store.path("detections").glob("*/.chunks/*.planned.json")), None)
        shards = [*store.path("pairs").glob("*/.chunks/*.done.json")]
        for path in (*chunks, *shards, *store.path("models").glob("*/checkpoints/step-*.pt")):
            self.marks.setdefault(f"/{path}", now_s)
        if planned is not None and not shards:
            self._look_at_decoders()
        if not store.is_remote:
            for path in store.path("pairs").glob("*/*.parquet"):
                self._inodes[str(path)].add(path.stat().st_ino)
        for path in store.path("models").glob("*/.progress.json"):
            with contextlib.suppress(OSError, ValueError):
                self._note_step(path.parent.name, json.loads(path.read_text())["step"])
        for path in store.path(".leases").glob("models-*.json"):
            with contextlib.suppress(OSError, ValueError):
                self._attempts[path.name.split(".")[0]].add(json.loads(path.read_text())["token"])

    def _note_step(self, run: str, step: int) -> None:
        if step > max(self._steps[run], default=0):
            self._further[run].append(time.monotonic())
        if not self._steps[run] or self._steps[run][-1] != step:
            self._steps[run].append(step)

    def _look_at_decoders(self) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                for name in os.listdir(f"/proc/{process.pid}/fd"):
                    target = os.readlink(f"/proc/{process.pid}/fd/{name}")
                    if target.startswith(self._media):
                        self._decoders[target].add(process.pid)


def steps_repeated(seen: Sequence[int]) -> int:
    """Steps trained more than once, of the steps that training said it was at; a fall is a new attempt's first."""
    return sum(max(0, before - (step - 1)) for before, step in itertools.pairwise(seen) if step <= before)


def longest_gap(times: Iterable[float], at_s: float) -> float | None:
    """The longest time between two neighbours of which the later comes after ``at_s``; None where there are none."""
    gaps = [after - before for before, after in itertools.pairwise(sorted(times)) if after > at_s]
    return max(gaps, default=None)


def finished(store: Store, stage: str) -> int:
    """How much of a stage is finished: chunks, shards, checkpoints, measured trials."""
    patterns: dict[str, tuple[str, str]] = {
        "detect": ("detections", "*/.chunks/*.done.json"),
        "mine": ("pairs", "*/.chunks/*.done.json"),
        "pretrain": ("models", "*/checkpoints/step-*.pt"),
        "sweep": ("models", "*/checkpoints/step-*.pt"),
    }
    folder, pattern = patterns[stage]
    found: list[Any] = [*store.path(folder).glob(pattern)]
    return len(found)

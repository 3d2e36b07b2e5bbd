"""What the user sees of training while it runs: a progress bar, a line per epoch, loud warnings, tracked metrics.

In: ``.progress.json`` and ``history.json``, which worker 0 writes. Out: to stderr and to a callback. The workers print
into other processes, perhaps on other machines, and Ray Train's reports arrive when its controller polls; two small
files in the store reach the driver from anywhere.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from wildray.learning.monitor import collapse_warning
from wildray.remote import is_storage_error

logger = logging.getLogger(__name__)

POLL_S, REMOTE_POLL_S = 0.5, 5.0  # every look is two requests, where it is object storage that is asked


class Follower:
    """A context in which a run's files are followed by a thread.

    Args:
        run_dir: The run's folder.
        on_epoch: Called once with each new epoch's flat metrics.
        num_known: Epochs that were finished before, and of which nothing is said.
        method: Name of the method, for what is said of a collapse.
    """

    def __init__(
        self,
        run_dir: Path,
        on_epoch: Callable[[Mapping[str, float]], None],
        *,
        num_known: int = 0,
        method: str | None = None,
    ) -> None:
        self._run_dir, self._on_epoch, self._num_seen, self._method = run_dir, on_epoch, num_known, method
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("pretrain", total=None, facts="starting workers")

    def __enter__(self) -> Follower:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.stop()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S if isinstance(self._run_dir, Path) else REMOTE_POLL_S):
            self._look()
        self._look()

    def _look(self) -> None:
        progress = _read(self._run_dir / ".progress.json")
        if progress is not None:
            facts = (
                f"loss {progress['loss']:.3f}  {progress['images_per_s']:.0f} images/s  {eta(progress['eta_s'])} left"
            )
            self._bar.update(
                self._task,
                total=progress["num_steps"],
                completed=progress["step"],
                description=f"pretrain, epoch {progress['epoch']}/{progress['epochs']}",
                facts=facts,
            )
        history = _read(self._run_dir / "history.json") or []
        for metrics in history[self._num_seen :]:
            self._num_seen += 1
            logger.info("epoch %s", epoch_line(metrics))
            warning = collapse_warning(metrics, method=self._method)
            if warning:
                logger.warning("epoch %d: %s", metrics["epoch"], warning)
            self._on_epoch(metrics)


def epoch_line(metrics: Mapping[str, float]) -> str:
    """One epoch's metrics in a line."""
    shown = {key: value for key, value in metrics.items() if key not in ("epoch", "step")}
    return f"{metrics['epoch']:.0f}: " + ", ".join(f"{key} {value:.4g}" for key, value in shown.items())


def eta(seconds: float) -> str:
    """H:MM:SS."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there yet: it is replaced whole, never torn
        return None
    except Exception as error:  # object storage is out of reach: the next look may do better
        if not is_storage_error(error):
            raise
        return None

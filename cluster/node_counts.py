"""The number of workers over time, for whoever watches a cluster grow and shrink.

In: a function that counts. Out: the counts whenever they change, and a line for each.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable


class NodeCounts(threading.Thread):
    """Counts every half second until ``stop``.

    Args:
        count: Workers that are alive; one that raises is asked again.
        say: Takes each line.

    Attributes:
        counts: Pairs of seconds since the start, and workers.
    """

    def __init__(self, count: Callable[[], int], say: Callable[[str], object] = print) -> None:
        super().__init__(daemon=True)
        self.counts: list[tuple[float, int]] = []
        self._count, self._say, self._over = count, say, threading.Event()
        self._begun = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def run(self) -> None:
        """Count."""
        while not self._over.wait(0.5):
            with contextlib.suppress(OSError, KeyError, TypeError, ValueError):  # a dashboard that is starting
                found = self._count()
                if not self.counts or self.counts[-1][1] != found:
                    self.counts.append((self.elapsed_s, found))
                    self._say(f"{self.elapsed_s:7.1f} s  {found} workers")

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join()

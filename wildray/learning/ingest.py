"""Batches of crops, ahead of the training step.

In: pairs, the order of an epoch, the first step. Out: this worker's ``Crops``, step by step, in the order of
``order.epoch_order``, beginning at any step. Ray Data would balance decoding over nodes, but cannot resume within an
epoch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from wildray.learning.batch import Crops
from wildray.learning.crops import CropCache, read_crops
from wildray.learning.order import Int64, worker_slice
from wildray.learning.pairs import PairTable

AHEAD = 4
"""Batches that wait for the training step."""


def load_ahead(
    cache: CropCache,
    pairs: PairTable,
    order: Int64,
    *,
    seed: int,
    epoch: int,
    first_step: int,
    num_sources: int,
    rank: int,
    num_workers: int,
) -> Iterator[Crops]:
    """A worker's batches of an epoch from ``first_step`` on, read by a thread ahead of training."""
    ready: queue.Queue[Crops | Exception] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: Crops | Exception) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for rows in order[first_step:]:
                mine = worker_slice(rows, rank=rank, num_workers=num_workers)
                if not put(read_crops(cache, pairs, mine, seed=seed, epoch=epoch, num_sources=num_sources)):
                    return
        except Exception as error:  # raised again by the training thread
            put(error)

    thread = threading.Thread(target=read, name="load_ahead", daemon=True)
    thread.start()
    try:
        for _ in range(first_step, len(order)):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()

"""Which samples make up which batch: a function of (seed, epoch), and of nothing that may change between attempts.

In: each sample's pack, camera and frame. Out: (steps, batch) rows of the table. Packs are shuffled, then the samples of
several packs together, so that a remote store is read in large pieces. Every batch is global: worker r of W takes its
slice of it, so the order does not depend on W, and a run goes on from any (epoch, step). A streaming shuffle buffer
could do neither.

Shapes: N samples.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

LOOKAHEAD = 64
"""Units that may wait for a batch with room for them: far more than there are animals in a herd, and soon searched."""
MAX_UNIT_SHARE = 4
"""A unit is cut to a quarter of a batch, so that every batch shows several scenes."""


def epoch_order(
    pack: Int64,
    group: Int64 | None,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    window_packs: int,
    unit: Int64 | None = None,
) -> Int64:
    """Rows of every batch of an epoch.

    Args:
        pack: (N,) pack of each sample, as any number.
        group: (N,) camera of each sample, to make batches of one camera as far as its samples suffice; None mixes
            cameras.
        seed: Of the run.
        epoch: From 0.
        batch_size: Samples in a batch, over all workers.
        window_packs: Packs whose samples are shuffled together.
        unit: (N,) frame of each sample's first crop: those that share it stay in one batch. Chains of frames (one
            pair's second frame is the next one's first) are not followed: they lead along a whole clip, and the batch
            would fill with one animal.

    Returns:
        (N // batch_size, batch_size) int64; no row twice, the rest is left out of this epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    if unit is not None:  # a frame's crops may lie in two packs
        _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
        pack = pack[first[unit]]
        unit = unit if len(first) < len(unit) else None
    packs = rng.permutation(np.unique(pack))
    full: list[Int64] = []
    rest: list[Int64] = []
    for begin in range(0, len(packs), window_packs):
        rows = rng.permutation(np.flatnonzero(np.isin(pack, packs[begin : begin + window_packs])))
        if group is None:
            rest.append(rows)
            continue
        batches = []
        for value in rng.permutation(np.unique(group[rows])):
            mine = _laid_out(rows[group[rows] == value], unit, batch_size)
            whole = len(mine) // batch_size * batch_size
            batches += list(mine[:whole].reshape(-1, batch_size))
            rest.append(mine[whole:])
        full += [batches[i] for i in rng.permutation(len(batches))]
    left = _laid_out(np.concatenate(rest) if rest else np.empty(0, np.int64), unit, batch_size)
    left = left[: len(left) // batch_size * batch_size].reshape(-1, batch_size)
    if not full:
        return left.astype(np.int64)
    # the mixed batches are spread among those of one camera, not put at the end of every epoch
    order = np.concatenate([np.stack(full), left])
    return order[rng.permutation(len(order))].astype(np.int64)


def worker_slice(rows: Int64, *, rank: int, num_workers: int) -> Int64:
    """Worker ``rank``'s part of a global batch; ``num_workers`` divides its length."""
    each = len(rows) // num_workers
    return rows[rank * each : (rank + 1) * each]


def _laid_out(rows: Int64, unit: Int64 | None, batch_size: int) -> Int64:
    """The rows in an order in which no batch boundary cuts a unit, as far as that can be.

    A unit that a batch has no room for waits for the next one while smaller ones fill the gap; where too many wait, one
    is cut.
    """
    if unit is None or not len(rows):
        return rows
    coming = deque(_units(rows, unit, max(1, batch_size // MAX_UNIT_SHARE)))
    waiting: deque[Int64] = deque()
    out: list[Int64] = []
    room = batch_size
    while coming or waiting:
        fitting = next((i for i, one in enumerate(waiting) if len(one) <= room), None)
        if fitting is not None:
            one = waiting[fitting]
            del waiting[fitting]
        elif coming and len(waiting) < LOOKAHEAD:
            one = coming.popleft()
            if len(one) > room:
                waiting.append(one)
                continue
        else:
            one, late = np.split(waiting.popleft(), [room])
            waiting.appendleft(late)
        out.append(one)
        room = room - len(one) or batch_size
    return np.concatenate(out)


def _units(rows: Int64, unit: Int64, largest: int) -> list[Int64]:
    """The rows of each unit, in the order in which units first come in ``rows``, in pieces of at most ``largest``."""
    _, first, place = np.unique(unit[rows], return_index=True, return_inverse=True)
    order = np.argsort(first[place], kind="stable")
    sizes = np.bincount(place)[np.argsort(first)]
    whole = np.split(rows[order], np.cumsum(sizes)[:-1])
    return [one[begin : begin + largest] for one in whole for begin in range(0, len(one), largest)]

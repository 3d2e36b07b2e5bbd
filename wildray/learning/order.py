"""Which pairs make up which batch: a function of (seed, epoch), and of nothing that may change between attempts.

In: each pair's pack and camera. Out: (steps, batch) rows of the pairs table. Packs are shuffled, then the pairs of
several packs together, so that a remote store is read in large pieces. Every batch is global: worker r of W takes its
slice of it, so the order does not depend on W, and a run goes on from any (epoch, step). A streaming shuffle buffer
could do neither.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def epoch_order(
    pack: Int64,
    group: Int64 | None,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    window_packs: int,
) -> Int64:
    """Rows of every batch of an epoch.

    Args:
        pack: (N,) pack of each pair, as any number.
        group: (N,) camera of each pair, to make batches of one camera as far as its pairs suffice; None mixes cameras.
        seed: Of the run.
        epoch: From 0.
        batch_size: Pairs in a batch, over all workers.
        window_packs: Packs whose pairs are shuffled together.

    Returns:
        (N // batch_size, batch_size) int64; no row twice, the rest is left out of this epoch.
    """
    rng = np.random.default_rng([seed, epoch])
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
            mine = rows[group[rows] == value]
            whole = len(mine) // batch_size * batch_size
            batches += list(mine[:whole].reshape(-1, batch_size))
            rest.append(mine[whole:])
        full += [batches[i] for i in rng.permutation(len(batches))]
    left = np.concatenate(rest) if rest else np.empty(0, np.int64)
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

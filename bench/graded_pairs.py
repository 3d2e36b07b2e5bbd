"""Pair sets of a chosen purity, gap and size, from footage whose individuals are known.

In: an annotated collection of detections in a store, and what a set is to be. Out: a pair set in that store, which
trains as mined ones do. Right pairs come from one linker and wrong ones from another, as they made them: two boxes
drawn at random from the footage would be a wrong pair that no miner makes, of animals that were never near each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.config import MineConfig
from wildray.errors import DataError
from wildray.mining.judge import DETECTION_COLUMNS, PAIR_COLUMNS, eligible, judge
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.matching import match
from wildray.mining.mine import sequence_gap_s
from wildray.mining.pairs import DETECTION_COLUMNS as MINED_COLUMNS
from wildray.mining.pairs import mine_tables
from wildray.mining.purity import DIFFERENT, SAME
from wildray.mining.sequences import assign_sequences
from wildray.mining.tracklets import components
from wildray.schema import hash64
from wildray.store import Store

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Mined:
    """Pairs with their verdicts.

    Attributes:
        pairs: (P,) rows of schema ``PAIRS``.
        verdict: (P,) int8, as ``wildray.mining.purity`` names them.
    """

    pairs: pa.Table
    verdict: Int8

    @property
    def right(self) -> pa.Table:
        """The pairs that join one individual."""
        return self.pairs.filter(pa.array(self.verdict == SAME))

    @property
    def wrong(self) -> pa.Table:
        """The pairs that join two individuals; those with a box of none are neither."""
        return self.pairs.filter(pa.array(self.verdict == DIFFERENT))

    @property
    def purity(self) -> float:
        """Share of the right pairs."""
        return float((self.verdict == SAME).mean())


def mined(footage: AnnotatedCollection, config: MineConfig) -> Mined:
    """Mine all of a collection that lies in memory, and judge the pairs by its truth."""
    sequences = assign_sequences(footage.media, gap_s=sequence_gap_s(config))
    _, pairs = mine_tables(
        sequences, footage.frames, footage.detections.select(MINED_COLUMNS), config, footage.vectors_of(config)
    )
    usable = eligible(footage.detections.select(DETECTION_COLUMNS), config.model_dump())
    matching = match(usable, footage.truth.boxes, footage.files, frames=footage.frames, min_iou=footage.min_iou)
    judged = judge(pairs.select(PAIR_COLUMNS), usable, matching, footage.truth.boxes)
    assert len(judged) == pairs.num_rows, "the truth covers all media of an annotated collection"
    return Mined(pairs, judged.verdict)


def graded(right: pa.Table, wrong: pa.Table, *, purity: float, num: int, seed: int) -> pa.Table:
    """So many pairs of which a share is right.

    Of one seed the right pairs of a less pure set are among those of a purer one, and the wrong ones likewise.

    Args:
        right: Rows of schema ``PAIRS`` that join one individual.
        wrong: Those that join two.
        purity: Share of right ones, rounded to whole pairs.
        num: Pairs of the set.
        seed: Of the draw.

    Raises:
        DataError: There are too few of either kind.
    """
    wanted = {"right": (right, round(purity * num)), "wrong": (wrong, num - round(purity * num))}
    parts = []
    for number, (kind, (table, count)) in enumerate(wanted.items()):
        if table.num_rows < count:
            raise DataError(
                f"Got {table.num_rows} {kind} pairs, expected {count}: choose a smaller set or more footage."
            )
        rows = np.random.default_rng((seed, number)).permutation(table.num_rows)[:count]
        parts.append(table.take(pa.array(np.sort(rows))))
    return _together(pa.concat_tables(parts))


def _together(pairs: pa.Table) -> pa.Table:
    """The pairs with one tracklet for all boxes that hang together, as a miner that made these very pairs would say."""
    columns = [pairs[name].to_numpy().astype(np.int64) for name in ("anchor_id", "positive_id", "tracklet_id")]
    # a tracklet is called after one of its boxes
    ids, node = np.unique(np.concatenate(columns), return_inverse=True)
    anchor, positive, tracklet = np.split(node, 3)
    part = components(np.concatenate([anchor, anchor]), np.concatenate([positive, tracklet]), len(ids))
    smallest = np.full(int(part.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, part, ids)
    place = pairs.schema.get_field_index("tracklet_id")
    return pairs.set_column(place, pairs.schema.field(place), pa.array(smallest[part[anchor]]))


def kept(store: Store, pairs: pa.Table, *, detections: str, facts: dict[str, object]) -> str:
    """Put a pair set into a store; returns its digest, which is of what it holds.

    Args:
        store: Has the detections.
        pairs: Rows of schema ``PAIRS``.
        detections: Digest of the detections.
        facts: What is recorded beside them.
    """
    rows = [tuple(pairs[name].to_pylist()) for name in ("anchor_id", "positive_id", "tracklet_id")]
    target = store.collection("pairs", f"{hash64((detections, *rows)) & (2**64 - 1):016x}")
    target.begin({**facts, "detections": detections})
    target.write("pairs", "000000", pairs)
    target.done("000000", {"num_pairs": pairs.num_rows})
    return target.digest

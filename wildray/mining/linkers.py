"""Linkers: which boxes of two frames are one animal.

In: boxes ordered by frame, and pairs of frames. Out: pairs of boxes with their IoU and their margin. Functions over
arrays that look at all pairs of frames at once: a loop in Python over a million frames takes minutes. No state
survives a pair of frames.

``direct`` is the published rule (arXiv 2507.02403): every two boxes that overlap enough. In company it joins mostly
different animals. ``assigned``: one-to-one by optimal assignment, and where a rival overlaps nearly as well, neither is
taken. ``tracklets`` holds the default, which looks at the frames between as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

BLOCK = 100_000
"""Pairs of boxes compared at once: they stay in the processor's cache, and memory is bounded whatever the herd."""
DUPLICATE_IOU = 0.8
"""Two boxes of one frame that overlap more than this are one animal seen twice, not two animals."""


@dataclass(frozen=True)
class Links:
    """Pairs of boxes, one from the earlier and one from the later frame of a pair of frames.

    Attributes:
        group: (L,) int64, number of the pair of frames.
        first: (L,) int64, row of the box in the earlier frame.
        second: (L,) int64, row of the box in the later frame.
        iou: (L,) float64, their overlap.
        margin: (L,) float64, their overlap less the largest overlap that either has with another box of the other
            frame; the overlap itself where there is none.
    """

    group: Int64
    first: Int64
    second: Int64
    iou: Float64
    margin: Float64

    def __len__(self) -> int:
        return len(self.group)

    def where(self, keep: Bool) -> Links:
        """The links that ``keep`` (L,) marks."""
        return Links(self.group[keep], self.first[keep], self.second[keep], self.iou[keep], self.margin[keep])


def aligned_iou(a: Floats, b: Floats) -> Floats:
    """IoU of boxes row by row.

    Columns and not rows are contiguous here, and the floats stay as wide as they come: several times faster over
    millions of boxes than ``boxes.box_iou_rows``.

    Args:
        a: (4, N) corners x1, y1, x2, y2 in one unit, half-open.
        b: (4, N), likewise.

    Returns:
        (N,) in [0, 1]; 0 where a box has no area.
    """
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def crossings(
    first_start: Int64, first_count: Int64, second_start: Int64, second_count: Int64
) -> Iterator[tuple[Int64, Int64, Int64]]:
    """Every row of one run with every row of another, for many pairs of runs, in blocks of bounded size.

    Args:
        first_start: (G,) first row of each first run.
        first_count: (G,) its length.
        second_start: (G,) first row of each second run.
        second_count: (G,) its length.

    Yields:
        group, row of the first run, row of the second: (C,) int64 each, in this order.
    """
    sizes = first_count * second_count
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        part = sizes[begin:end]
        group = np.repeat(np.arange(begin, end), part)
        within = np.arange(len(group)) - np.repeat(ends[begin:end] - part - done, part)
        row, column = np.divmod(within, second_count[group])
        yield group, first_start[group] + row, second_start[group] + column
        begin = end


def overlapping(xyxy: Floats, category: Int64, starts: Int64, *, first_frame: Int64, second_frame: Int64) -> Links:
    """All pairs of boxes of paired frames that overlap at all and are of one category, with their margins.

    Args:
        xyxy: (4, N) corners in one unit per file, rows ordered by frame.
        category: (N,) code of each box's category.
        starts: (F + 1,) frame f holds the rows ``starts[f]`` to ``starts[f + 1]``.
        first_frame: (P,) earlier frame of each pair.
        second_frame: (P,) later frame.
    """
    counts = np.diff(starts)
    parts: list[tuple[Int64, Int64, Int64]] = []
    overlaps: list[Float64] = []
    runs = starts[first_frame], counts[first_frame], starts[second_frame], counts[second_frame]
    for group, first, second in crossings(*runs):
        iou = aligned_iou(xyxy[:, first], xyxy[:, second])
        hit = (iou > 0) & (category[first] == category[second])
        parts.append((group[hit], first[hit], second[hit]))
        overlaps.append(iou[hit].astype(np.float64))
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Links(none, none, none, np.zeros(0), np.zeros(0))
    group, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    iou = np.concatenate(overlaps)
    rival = np.maximum(runner_up(iou, group, first, none=0.0), runner_up(iou, group, second, none=0.0))
    return Links(group, first, second, iou, iou - rival)


def direct(links: Links, *, min_iou: float) -> Links:
    """The published rule: every two boxes of the two frames with an IoU of at least ``min_iou``."""
    return links.where(links.iou >= min_iou)


def assigned(links: Links, *, min_iou: float, min_margin: float) -> Links:
    """One-to-one links of the largest total IoU, those with a near rival refused.

    Among the links of at least ``min_iou`` the optimal assignment of each pair of frames is taken. A link of it is
    refused where its margin is below ``min_margin``: a rival of any overlap counts, below ``min_iou`` too. A margin of
    0 refuses nothing.

    Args:
        links: What ``overlapping`` gives.
        min_iou: Least IoU of a link.
        min_margin: Least margin of a link, or 0.
    """
    links = links.where(links.iou >= min_iou)
    # An optimal assignment holds every link that outweighs the best rival of its row and of its column together:
    # putting it in place of both would gain. So only the other links need the assignment to be computed.
    rivals = sum(runner_up(links.iou, links.group, side, none=0.0) for side in (links.first, links.second))
    chosen = links.iou > rivals
    passing = links.margin >= min_margin if min_margin > 0 else np.ones(len(links), dtype=bool)
    open_groups = np.unique(links.group[passing & ~chosen])
    begins = np.searchsorted(links.group, open_groups)
    ends = np.searchsorted(links.group, open_groups, side="right")
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        chosen[begin:end] = _optimal(links.first[begin:end], links.second[begin:end], links.iou[begin:end])
    return links.where(chosen & passing)


def seen_twice(xyxy: Floats, category: Int64, score: Floats, starts: Int64) -> tuple[Bool, Bool]:
    """Boxes that see an animal a second time, and boxes in company.

    Of two boxes of one frame that overlap by ``DUPLICATE_IOU`` the one that scores lower is the second look: as rivals
    of each other the two would make every match of their animal ambiguous. In company is what overlaps another animal.

    Args:
        xyxy: (4, N) corners, rows ordered by frame.
        category: (N,) code of each box's category.
        score: (N,) detector's scores; of equal ones the first row counts as higher.
        starts: (F + 1,) rows of each frame.

    Returns:
        (N,) bool each.
    """
    crowded = np.flatnonzero(np.diff(starts) > 1)
    links = overlapping(xyxy, category, starts, first_frame=crowded, second_frame=crowded)
    links = links.where(links.first != links.second)
    a, b = links.first, links.second
    twice = links.iou >= DUPLICATE_IOU
    lower = twice & ((score[a] < score[b]) | ((score[a] == score[b]) & (a > b)))
    doubled, company = np.zeros((2, xyxy.shape[1]), dtype=bool)
    doubled[a[lower]] = True
    company[a[~twice & ~doubled[b]]] = True
    return doubled, company


def runner_up(score: Float64, *keys: Int64, none: float) -> Float64:
    """(L,) the largest score among the other items with the same keys (L,) each; ``none`` where there is no other."""
    order = np.lexsort((-score, *reversed(keys)))
    new = np.zeros(len(order), dtype=bool)
    new[:1] = True
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    heads = np.flatnonzero(new)
    sizes = np.diff(np.append(heads, len(order)))
    ranked = np.append(score[order], none)
    best = np.repeat(ranked[heads], sizes)
    second = np.repeat(np.where(sizes > 1, ranked[heads + 1], none), sizes)
    rival = np.empty(len(order))
    rival[order] = np.where(new, second, best)
    return rival


def _optimal(first: Int64, second: Int64, iou: Float64) -> Bool:
    """(L,) whether each link is in the assignment of largest total IoU."""
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    weights = np.zeros((len(rows), len(columns)))
    weights[row, column] = iou
    taken = np.zeros(weights.shape, dtype=bool)
    taken[linear_sum_assignment(weights, maximize=True)] = True
    chosen: Bool = taken[row, column]
    return chosen

"""Tracklets: the boxes of one animal along a run of near frames, cut wherever a link is doubtful.

In: boxes ordered by frame, runs of frames that follow each other closely, and what the boxes look like where that is
known. Out: for every box its tracklet, and how sure the links are. Two boxes of distant frames that overlap show, in
company, mostly different animals; two boxes of neighbouring frames hardly ever do. So distant pairs come from chains
of near links: a box is predicted by constant velocity (an alpha-beta filter), compared by overlap and colour, and
linked where track and box choose each other with a margin over every rival. A track that cannot choose ends.

Tracks are followed once forwards and once backwards in time, and what both agree on is kept: an animal that steps
before another deceives one direction, seldom both. (Links that one direction saw clearly and the other did not gainsay
bring two pairs in a hundred more, and swaps with them.) What is left is cut where the colour changes for good
(``settled``). All runs are followed at once, frame by frame: a loop over sequences takes minutes where this takes
seconds. Optimal assignment instead of mutual choice gives the same links, once those with a near rival are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wildray.mining.following import Float32, Rules, Sightings, followed
from wildray.mining.linkers import Bool, Int64

SOON_STEP_S, FAR_STEP_S = 0.08, 0.25
"""Times between frames. Closer than the first, less proof by colour is asked for in company; from the second on, one
box of a link in company is enough to doubt it. Measured with 25, 8 and 2 frames a second."""
ALONE_CHANGE, SOON_CHANGE, COMPANY_CHANGE = 0.9, 0.8, 0.52
"""Most that the colour may change between boxes that are surely one animal: alone, in company in frames close together,
and in company otherwise. A lone animal turns; where others overlap it a change as large is mostly a swap."""
ALONE_STEPS, COMPANY_STEPS = 5, 3
"""So many boxes further on an animal may look like itself again, after something passed in front."""


@dataclass(frozen=True)
class Chains:
    """Which boxes follow each other.

    Attributes:
        chain: (N,) int64, equal for boxes that are linked, one of each frame at most.
        margin: (N,) float32, by how much the link to the box before exceeded its rivals; infinite for a first box.
    """

    chain: Int64
    margin: Float32


def chained(boxes: Sightings, rules: Rules) -> Chains:
    """Link what following forwards and following backwards in time agree on.

    Args:
        boxes: The boxes; of an animal that is boxed twice in a frame one box alone, or each is the other's rival.
        rules: When a box continues a track.
    """
    before, margin = followed(boxes, rules)
    after, margin_after = followed(boxes.reversed(), rules)
    num = len(before)
    after = np.where(after[::-1] >= 0, num - 1 - after[::-1], -1)  # box that follows, by box
    margin_after = margin_after[::-1]
    rows = np.flatnonzero(before >= 0)
    rows = rows[after[before[rows]] == rows]
    of_link = np.full(num, np.inf, dtype=np.float32)
    of_link[rows] = np.minimum(margin[rows], margin_after[before[rows]])
    return Chains(components(before[rows], rows, num), of_link)


def settled(boxes: Sightings, chain: Int64, company: Bool, *, most_in_company: float = COMPANY_CHANGE) -> Int64:
    """Cut chains where the animal looks different from then on.

    Boxes of a chain hang together where the colour changes little from one to the next, or to one a few boxes on: what
    passes in front of an animal changes it for a moment, a swap changes it for good. Where colours are unknown nothing
    is cut.

    Args:
        boxes: The boxes.
        chain: (N,) as ``chained`` gives it.
        company: (N,) whether another box of the frame overlaps.
        most_in_company: Most change in company; less gives purer and fewer pairs.

    Returns:
        (N,) int64, as ``chain``.
    """
    order = np.lexsort((boxes.frame, chain))
    step_s = np.diff(boxes.time_s, prepend=-np.inf)[boxes.frame]
    links = [(np.zeros(0, dtype=np.int64),) * 2]
    for steps in range(1, max(ALONE_STEPS, COMPANY_STEPS) + 1):
        first, second = order[:-steps], order[steps:]
        same = chain[first] == chain[second]
        first, second = first[same], second[same]
        far = step_s[second] >= FAR_STEP_S
        doubtful = np.where(far, company[first] | company[second], company[first] & company[second])
        in_company = np.where(step_s[second] < SOON_STEP_S, SOON_CHANGE, most_in_company)
        most = np.where(doubtful, in_company, ALONE_CHANGE)
        sure = ~(boxes.measure(boxes.look[first], boxes.look[second]) > most)  # unknown is no change
        sure &= steps <= np.where(doubtful, COMPANY_STEPS, ALONE_STEPS)
        links.append((first[sure], second[sure]))
    first, second = (np.concatenate(part) for part in zip(*links, strict=True))
    return components(first, second, len(chain))


def components(first: Int64, second: Int64, num: int) -> Int64:
    """(N,) int64, a number that boxes have in common which hang together by links ``first`` (L,) to ``second`` (L,)."""
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(num, num))
    parts: Int64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return parts


def weakest(chain: Int64, frame: Int64, margin: Float32, first: Int64, second: Int64) -> Float32:
    """(P,) float32, the smallest margin among the links that lead from ``first`` (P,) to ``second`` (P,).

    Args:
        chain: (N,) chain of each box.
        frame: (N,) its frame.
        margin: (N,) margin of its link to the box before in its chain.
        first: (P,) rows of boxes.
        second: (P,) rows of later boxes of the same chains.
    """
    order = np.lexsort((frame, chain))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    begin, end = place[first] + 1, place[second] + 1
    level = np.frexp(end - begin)[1] - 1  # floor of the logarithm
    smallest = margin[order]
    found = np.full(len(first), np.inf, dtype=np.float32)
    for power in range(int(level.max(initial=-1)) + 1):
        rows = np.flatnonzero(level == power)
        found[rows] = np.minimum(smallest[begin[rows]], smallest[end[rows] - (1 << power)])
        ahead = np.full(len(smallest), np.inf, dtype=np.float32)
        ahead[: -(1 << power)] = smallest[1 << power :]
        smallest = np.minimum(smallest, ahead)
    return found

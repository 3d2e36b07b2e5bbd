"""What to choose, in a sentence for each number of animals in the frame, derived from the figures and nothing else.

In: a study. Out: ``Advice`` for every density: the longest interval at which some setting is right often enough, the
setting of the largest yield among those, and what the published rule comes to there. Short intervals are pure and give
many pairs that are nearly copies, so that the largest yield alone would always say: one frame.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from wildray.report.pair_quality.records import Share, Study, pooled

TARGET, WORST = 0.95, 0.9
"""Purity that is asked for over all footages as one, and in each of them with pairs enough: many pairs of easy footage
would hide that a setting fails in another."""
SAME_GAP = 0.75
"""Intervals of so much of the longest one that is good, or more, count as equally long."""
MIN_PAIRS = 30
"""Fewer pairs decide nothing in favour of a setting."""
MIN_PAIRS_AGAINST = 10
"""So many in one footage may speak against it."""
MAX_WIDTH = 0.2
"""Nor does a share whose interval is wider."""
PUBLISHED = ("direct", 0.2, 0.5)
"""Linker, least overlap and confidence of arXiv 2507.02403."""
DENSITIES = {
    "1": "Alone in the frame",
    "2-3": "Two or three animals in the frame",
    "4-7": "Four to seven animals in the frame",
    "8+": "Eight animals or more in the frame",
}
Setting = tuple[str, str, float, float]


@dataclass(frozen=True)
class Advice:
    """What to choose in one kind of company.

    Attributes:
        density: Animals in the frame.
        setting: Linker, interval, least overlap and confidence.
        share: What it comes to.
        reached: Whether that is as asked for.
        worst: Least purity of a footage with pairs enough.
        gap_s: Least and largest median gap of the pairs over the footages.
        published: The published rule at the same interval; None where it was not tried.
        sentence: All of it in words.
    """

    density: str
    setting: Setting
    share: Share
    reached: bool
    worst: float
    gap_s: tuple[float, float]
    published: Share | None
    sentence: str


@dataclass(frozen=True)
class Candidate:
    """One setting over the densest look at some footages, in one kind of company.

    Attributes:
        setting: Linker, interval, least overlap and confidence.
        share: All footages as one.
        worst: Least purity of a footage with ``MIN_PAIRS_AGAINST`` pairs or more; 1 where none has.
        refuted: Whether the interval of a footage, of however few pairs, lies below ``WORST``.
        gap_s: Least and largest median gap of the pairs.
    """

    setting: Setting
    share: Share
    worst: float
    refuted: bool
    gap_s: tuple[float, float]

    @property
    def is_good(self) -> bool:
        """Whether it is right often enough, over all footages and in each of them."""
        return self.share.purity >= TARGET and self.worst >= WORST and not self.refuted


def advise(study: Study) -> list[Advice]:
    """Advice for every density of which there are pairs, over the densest look at each advised footage."""
    return [found for density in DENSITIES if (found := _advice(study, density)) is not None]


def candidates(study: Study, density: str | None = None) -> dict[Setting, Candidate]:
    """Every setting over the densest look at all advised footages; of all pairs, or of one density."""
    found: dict[Setting, list[tuple[Share, float | None]]] = defaultdict(list)
    for footage in study.footages:
        points = [point for point in study.densest(footage) if point.advised]
        if density is not None and not any(density in point.parts for point in points):
            continue  # its minutes show no such company
        for point in points:
            none = Share(0, 0, 0.0, 1.0, point.share.minutes)
            share = point.share if density is None else point.parts.get(density, none)
            found[point.setting].append((share, point.gap_s))
    made = {}
    for setting, some in found.items():
        gaps = [gap for share, gap in some if share.num_pairs and gap is not None]
        worst = min((share.purity for share, _ in some if share.num_pairs >= MIN_PAIRS_AGAINST), default=1.0)
        refuted = any(share.high < WORST for share, _ in some)
        gap_s = (min(gaps), max(gaps)) if gaps else (math.nan, math.nan)
        made[setting] = Candidate(setting, pooled(share for share, _ in some), worst, refuted, gap_s)
    return made


def _advice(study: Study, density: str) -> Advice | None:
    everything = candidates(study, density)
    known = [one for one in everything.values() if _decides(one.share)]
    if not known:
        return None
    good = [one for one in known if one.is_good]
    if good:
        longest = max(one.gap_s[1] for one in good)
        as_long = [one for one in good if one.gap_s[1] > longest * SAME_GAP]
        best = max(as_long, key=lambda one: (one.share.per_minute, one.worst))
    else:
        best = max(known, key=lambda one: (one.share.purity, one.share.per_minute))
    linker, min_iou, min_score = PUBLISHED
    published = everything.get((linker, best.setting[1], min_iou, min_score))
    share = None if published is None else published.share
    sentence = _sentence(density, best, share, reached=bool(good))
    return Advice(density, best.setting, best.share, bool(good), best.worst, best.gap_s, share, sentence)


def _decides(share: Share) -> bool:
    return share.num_pairs >= MIN_PAIRS and share.high - share.low <= MAX_WIDTH


def _sentence(density: str, best: Candidate, published: Share | None, *, reached: bool) -> str:
    linker, interval, min_iou, min_score = best.setting
    share, (least, largest) = best.share, best.gap_s
    gap = f"{least:.2g} s" if largest - least < 0.05 else f"{least:.2g} to {largest:.2g} s"
    worth = (
        f"{share.purity:.3f} ({share.low:.3f} to {share.high:.3f}) of {share.num_pairs:,} pairs are right, at worst "
        f"{best.worst:.3f} in one footage"
    )
    choice = f"mine.linker {linker}, mine.min_iou {min_iou:g}, mine.min_score {min_score:g}, mine.interval {interval}"
    head = f"{DENSITIES[density]}: "
    if reached:
        text = f"{head}up to {interval} ({gap}) apart, take {choice}: {worth}, {share.per_minute:,.0f} a minute"
    else:
        text = (
            f"{head}no setting is right in {TARGET:g} over all footages and {WORST:g} in each; the purest is {choice} "
            f"({gap}): {worth}"
        )
    if published is not None and published.num_pairs:
        text += f"; the published rule is right in {published.purity:.3f} of its {published.num_pairs:,} there"
    return text + "."


def fronts(study: Study) -> Mapping[str, dict[Setting, Share]]:
    """Settings with pairs enough by interval, the shortest first; intervals without any are left out."""
    shares = {setting: one.share for setting, one in candidates(study).items() if one.share.num_pairs >= MIN_PAIRS}
    found = {
        interval: {setting: share for setting, share in shares.items() if setting[1] == interval}
        for interval in study.intervals
    }
    return {interval: some for interval, some in found.items() if some}

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

TARGET = 0.95
"""Purity that is asked for."""
MIN_PAIRS = 30
"""Fewer pairs decide nothing."""
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
        setting: Linker, interval, least overlap and confidence; None where no setting has pairs enough.
        share: What it comes to.
        reached: Whether that is ``TARGET`` or more.
        gap_s: Least and largest median gap of the pairs over the footages.
        published: The published rule at the same interval; None where it was not tried.
        sentence: All of it in words.
    """

    density: str
    setting: Setting | None
    share: Share | None
    reached: bool
    gap_s: tuple[float, float] | None
    published: Share | None
    sentence: str


def advise(study: Study) -> list[Advice]:
    """Advice for every density of which there are pairs, over the densest look at each advised footage."""
    return [found for density in DENSITIES if (found := _advice(study, density)) is not None]


def by_setting(study: Study, density: str | None = None) -> dict[Setting, Share]:
    """Every setting over the densest look at all advised footages as one; of all pairs, or of one density."""
    shares: dict[Setting, list[Share]] = defaultdict(list)
    for footage in study.footages:
        points = [point for point in study.densest(footage) if point.advised]
        if density is not None and not any(density in point.parts for point in points):
            continue  # its minutes show no such company
        for point in points:
            none = Share(0, 0, 0.0, 1.0, point.share.minutes)
            shares[point.setting].append(point.share if density is None else point.parts.get(density, none))
    return {setting: pooled(some) for setting, some in shares.items()}


def _advice(study: Study, density: str) -> Advice | None:
    shares = {setting: share for setting, share in by_setting(study, density).items() if _decides(share)}
    if not shares:
        return None
    best: tuple[Setting, Share] | None = None
    for interval in study.intervals:  # the longest that is good enough comes last
        good = [
            (setting, share) for setting, share in shares.items() if setting[1] == interval and share.purity >= TARGET
        ]
        if good:
            longest = max(good, key=lambda one: (one[1].per_minute, one[1].purity))
            if best is None or _gap_s(study, longest[0])[1] > _gap_s(study, best[0])[1]:
                best = longest
    setting, share = best or max(shares.items(), key=lambda one: (one[1].purity, one[1].per_minute))
    linker, min_iou, min_score = PUBLISHED
    published = by_setting(study, density).get((linker, setting[1], min_iou, min_score))
    gap_s = _gap_s(study, setting)
    sentence = _sentence(density, setting, share, gap_s, published, reached=best is not None)
    return Advice(density, setting, share, best is not None, gap_s, published, sentence)


def _decides(share: Share) -> bool:
    return share.num_pairs >= MIN_PAIRS and share.high - share.low <= MAX_WIDTH


def _gap_s(study: Study, setting: Setting) -> tuple[float, float]:
    gaps = [
        point.gap_s
        for footage in study.footages
        for point in study.densest(footage)
        if point.advised and point.setting == setting and point.gap_s is not None
    ]
    return (min(gaps), max(gaps)) if gaps else (math.nan, math.nan)


def _sentence(
    density: str,
    setting: Setting,
    share: Share,
    gap_s: tuple[float, float],
    published: Share | None,
    *,
    reached: bool,
) -> str:
    linker, interval, min_iou, min_score = setting
    gap = f"{gap_s[0]:.2g} s" if gap_s[1] - gap_s[0] < 0.05 else f"{gap_s[0]:.2g} to {gap_s[1]:.2g} s"
    worth = f"{share.purity:.3f} ({share.low:.3f} to {share.high:.3f}) of {share.num_pairs:,} pairs are right"
    choice = f"mine.linker {linker}, mine.min_iou {min_iou:g}, mine.min_score {min_score:g}, mine.interval {interval}"
    head = f"{DENSITIES[density]}: "
    if reached:
        text = f"{head}up to {interval} ({gap}) apart, take {choice}: {worth}, {share.per_minute:,.0f} a minute"
    else:
        text = f"{head}no setting reaches a purity of {TARGET:g}; the purest is {choice} ({gap}): {worth}"
    if published is not None and published.num_pairs:
        text += f"; the published rule is right in {published.purity:.3f} of its {published.num_pairs:,} there"
    return text + "."


def fronts(study: Study) -> Mapping[str, dict[Setting, Share]]:
    """Settings with pairs enough by interval, the shortest first; intervals without any are left out."""
    shares = {setting: share for setting, share in by_setting(study).items() if share.num_pairs >= MIN_PAIRS}
    found = {
        interval: {setting: share for setting, share in shares.items() if setting[1] == interval}
        for interval in study.intervals
    }
    return {interval: some for interval, some in found.items() if some}

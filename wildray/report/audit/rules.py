"""Stricter settings of mining, and which of them would have kept a set pure enough with the most pairs.

In: facts of all pairs; later, verdicts on a sample. Out: ``Rule``, and a recommendation. A rule keeps the pairs that
fulfil it out of those that were mined, which is what mining again with it comes to, but for matches that a stricter
threshold frees. Two settings at once at most: more would leave no verdicts on what they keep.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.report.audit.estimate import CONFIDENCE, Estimate, estimate

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LIMITS = {
    "mine.min_iou": ("iou", (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
    "mine.min_margin": ("margin", (0.1, 0.2, 0.3, 0.4, 0.5)),
    "mine.interval": ("gap_s", (0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)),
    "mine.max_animals": ("density", (1, 2, 3, 4, 6, 8)),
}
"""What is limited: the fact it looks at, and the values that are tried."""
AT_MOST = ("mine.interval", "mine.max_animals")
"""Limits from above; the others are from below."""
CONFIDENCE_CHOSEN = 0.99
"""Coverage of the interval that a stricter setting must pass. It is chosen among a hundred or so on the same verdicts:
in simulations with 200 and 500 verdicts, at 95 % up to 13 of 150 samples recommended one that was truly below the
target, at 99 % up to 3 did, at the price of recommending something less often."""
MIN_TOLD = 10
"""Verdicts without which nothing is said of what a setting keeps."""
TOLERANCE_S = 0.05
"""A pair so little further apart than an interval was still mined at it."""


@dataclass(frozen=True)
class Rule:
    """Limits, and how many pairs of a set they keep.

    Attributes:
        limits: Values by name in ``LIMITS``; none keep all.
        num_pairs: Pairs kept.
    """

    limits: dict[str, float]
    num_pairs: int

    def keeps(self, facts: Mapping[str, Float64]) -> npt.NDArray[np.bool_]:
        """(P,) which pairs it keeps, of facts by name."""
        kept = np.ones(len(facts["iou"]), dtype=bool)
        for name, value in self.limits.items():
            fact = facts[LIMITS[name][0]]
            slack = TOLERANCE_S if name == "mine.interval" else 0.0
            kept &= fact <= value + slack if name in AT_MOST else fact >= value
        return kept

    def __str__(self) -> str:
        if not self.limits:
            return "the settings as they are"
        units = {"mine.interval": "s"}
        words = [
            f"{name} {'<= ' if name in AT_MOST else ''}{value:g}{units.get(name, '')}"
            for name, value in self.limits.items()
        ]
        return " and ".join(words)


def rules(facts: Mapping[str, Float64], linker: str = "direct") -> list[Rule]:
    """The rules that keep some pairs of a set, those that keep most first; of equal ones the one of fewer limits.

    Args:
        facts: (P,) values by name.
        linker: Of the set. With ``chained`` the overlap of a pair is not what ``mine.min_iou`` limits.
    """
    names = [name for name in LIMITS if linker != "chained" or name != "mine.min_iou"]
    single = [{name: float(value)} for name in names for value in LIMITS[name][1]]
    double = [one | other for one, other in itertools.combinations(single, 2) if one.keys() != other.keys()]
    found: dict[bytes, Rule] = {}
    for limits in [{}, *single, *double]:
        kept = Rule(limits, 0).keeps(facts)
        if kept.any():
            found.setdefault(np.packbits(kept).tobytes(), Rule(limits, int(kept.sum())))
    return sorted(found.values(), key=lambda rule: -rule.num_pairs)


@dataclass(frozen=True)
class Sample:
    """A judged stratified sample.

    Attributes:
        size: (H,) pairs in each stratum.
        code: (S,) stratum of each judged pair.
        same, told: (S,) whether it shows one animal; whether it could be told.
        facts: (S,) values by name.
    """

    size: Int64
    code: Int64
    same: npt.NDArray[np.bool_]
    told: npt.NDArray[np.bool_]
    facts: dict[str, Float64]

    def counts(self, chosen: npt.NDArray[np.bool_]) -> Int64:
        """(H,) how many of the chosen pairs lie in each stratum."""
        return np.bincount(self.code, weights=chosen, minlength=len(self.size)).astype(np.int64)

    def purity(self, kept: npt.NDArray[np.bool_], confidence: float) -> Estimate:
        """Share of *same* among the pairs that could be told, of those that are kept."""
        everything = np.ones(len(self.code), dtype=bool)
        members = kept & self.told
        counts = (self.counts(chosen) for chosen in (everything, members, members & self.same))
        return estimate(self.size, *counts, confidence=confidence)


def recommend(found: Sequence[Rule], sample: Sample, target: float) -> dict[str, Any]:
    """The rule that keeps most pairs at a purity that is at least ``target``, as far as the sample can tell.

    Args:
        found: As ``rules`` gives them.
        sample: What was judged.
        target: Purity that is wanted, 0 to 1.

    Returns:
        ``supported``: whether the lower end of a rule's interval reaches the target; ``rule``, ``limits``,
        ``num_pairs`` and its purity, of that rule, else of the one whose estimate reaches it (None where none does);
        ``sentence``.
    """
    levels = [CONFIDENCE_CHOSEN if rule.limits else CONFIDENCE for rule in found]
    rated = [
        (rule, sample.purity(rule.keeps(sample.facts), level), level) for rule, level in zip(found, levels, strict=True)
    ]
    told = [one for one in rated if one[1].value is not None and one[1].members >= MIN_TOLD]
    sure = next((one for one in told if one[1].low >= target), None)
    chosen = sure or next((one for one in told if (one[1].value or 0.0) >= target), None)
    result: dict[str, Any] = {"target": target, "supported": sure is not None, "num_tried": len(found)}
    if chosen is None:
        sentence = (
            f"not reached in this sample, neither by the settings as they are nor by those of {len(found) - 1} "
            f"stricter ones that keep {MIN_TOLD} verdicts or more."
        )
        return result | {"rule": None, "sentence": sentence}
    rule, share, level = chosen
    total = max(one.num_pairs for one in found)
    figures = f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f}, {level:.0%} interval)"
    keeps = f"{rule}: {rule.num_pairs:,} of {total:,} pairs, purity {figures}"
    if sure is None:
        needed = ceil(log((1 - level) / 2) / log(target))
        sentence = (
            f"not supported by this sample. Nearest is {keeps}, from {share.members} verdicts. It takes {needed} at "
            f"least, all of them right: raise audit.num_pairs."
        )
    elif rule.limits:
        sentence = (
            f"reached with {keeps}. It was chosen among {len(found)} on these same verdicts: mine with it, and audit "
            f"a fresh sheet."
        )
    else:
        sentence = f"reached with {keeps}."
    shares = {"purity": share.value, "purity_low": share.low, "purity_high": share.high, "num_told": share.members}
    kept = {"rule": str(rule), "limits": rule.limits, "num_pairs": rule.num_pairs, "confidence": level}
    return result | kept | shares | {"sentence": sentence}

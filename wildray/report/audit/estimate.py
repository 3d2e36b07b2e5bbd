"""Shares of a whole pair set from the verdicts on a stratified sample, with intervals.

In: counts per stratum. Out: ``Estimate``. A share is a ratio of two weighted totals (Cochran, Sampling Techniques,
6.11), since the pairs that nobody could judge are part of no stratum's size: the share of *same* among the pairs that
could be told, of *different* among those that show animals.

The interval is Clopper and Pearson's with an effective number of verdicts (Korn and Graubard 1998), which holds near 1,
where good pairs are and where plus or minus two standard errors has no width. Two things differ from theirs. The
stratum's shares in the variance are drawn towards that of all, as if ``PRIOR`` verdicts more had been given: a stratum
with two verdicts, both right, is not known to be pure. And the effective number is at most what it would be if the
strata did not differ: with strata of a few verdicts, the gain over that cannot be told from luck. In a simulation of
eight populations of purity 0.64 to 0.996 and 50 to 200 verdicts it covers the truth in 95 to 100 of 100 samples;
without the bound in as few as 63.

Pairs are drawn singly, by chance, from a set that is given, so that nothing need be assumed about how pairs of one
sequence resemble each other. Of other footage the interval says nothing; a bootstrap over sequences would, but with a
handful of verdicts in each sequence it would mostly measure its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CONFIDENCE = 0.95
PRIOR = 4.0
"""Verdicts as which the share of all strata counts in the variance of each."""


@dataclass(frozen=True)
class Estimate:
    """A share.

    Attributes:
        value: The estimate; None where no verdict says anything of it.
        low, high: Its interval.
        hits: Verdicts that count for it.
        members: Verdicts among which they are.
    """

    value: float | None
    low: float
    high: float
    hits: int
    members: int


def estimate(size: Int64, judged: Int64, members: Int64, hits: Int64, *, confidence: float = CONFIDENCE) -> Estimate:
    """The share of hits among members in a population, from a stratified sample of it.

    Args:
        size: (H,) pairs in each stratum.
        judged: (H,) of them, drawn by chance and judged; strata without a verdict are left out.
        members: (H,) of the judged, those among which the share is taken.
        hits: (H,) of the members, those that count.
        confidence: Coverage of the interval.
    """
    counts = (int(hits.sum()), int(members.sum()))
    known = judged > 0
    if not counts[1]:
        return Estimate(None, 0.0, 1.0, *counts)
    n, a, x = (part[known].astype(np.float64) for part in (judged, members, hits))
    weight = size[known] / size[known].sum()
    mean_members = float((weight * a / n).sum())
    share = float((weight * x / n).sum()) / mean_members
    number = _effective(size[known].astype(np.float64), n, a, x, share)
    if number is None:
        return Estimate(share, share, share, *counts)
    tail, right = (1 - confidence) / 2, share * number
    low = float(beta.ppf(tail, right, number - right + 1)) if right > 1e-9 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, number - right)) if number - right > 1e-9 else 1.0
    return Estimate(share, min(low, share), max(high, share), *counts)


def _effective(size: Float64, n: Float64, a: Float64, x: Float64, share: float) -> float | None:
    """Verdicts of a simple random sample that would tell as much; None where every pair was judged."""
    weight, unseen = size / size.sum(), np.clip(1 - n / size, 0, 1)
    inside = a / n
    mean = float((weight * inside).sum())
    alike = float((weight**2 * unseen * inside / n).sum()) / mean**2
    if alike <= 0:
        return None
    # two verdicts more of each kind (Agresti and Coull 1998), so that no share is taken for certain
    smoothed = (share / alike + 2) / (1 / alike + 4)
    shares = (x + PRIOR * smoothed) / (a + PRIOR)
    spread = inside * (shares * (1 - smoothed) ** 2 + (1 - shares) * smoothed**2) - (inside * (shares - smoothed)) ** 2
    variance = float((weight**2 * unseen * spread / n).sum()) / mean**2
    return min(1 / alike, smoothed * (1 - smoothed) / variance)

"""What results say: whether a run learned, and whether a claim holds.

In: results of runs. Out: a word for each run, and for each claim a contrast (a weighted sum of the mAP of runs, whose
weights say what is compared with what), its interval over identities, its error over seeds, and a verdict by a rule
that is stated before the figures are seen. A single p-value would hide which of the two is large: other animals, or
another seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.measures import each_query, interval
from bench.record import Result, Results
from wildray.learning.monitor import COLLAPSED_RANK, COLLAPSED_STD, collapse_warning

NUM_ERRORS = 2.0
"""Standard errors over seeds by which a contrast must differ from 0: 95 % of a normal distribution."""

STATUS_RULE = (
    "A run **failed** where its loss became infinite or no number; it **did not learn** where its embeddings "
    f"collapsed (effective rank below {COLLAPSED_RANK} or spread below {COLLAPSED_STD}, `wildray.learning.monitor`), "
    "or where mAP did not rise and the rank of the embeddings of the held-out images fell below the untrained "
    "network's; such runs decide nothing. It **learned** where the 95 % interval over identities of what it added to "
    "the untrained network's mAP lies above 0; else there was **no gain**: it is no collapse, and counts."
)
VERDICT_RULE = (
    "Every claim is written as a contrast D: a mean of mAP over some runs minus the mean over others. Its 95 % "
    "interval is a bootstrap over the held-out individuals, the same for all runs; its error over seeds is s * "
    "sqrt(sum of squared weights), s being the standard deviation between seeds, pooled over all settings that were "
    f"run with several. **Held**: the interval lies above 0 and D exceeds {NUM_ERRORS:g} errors over seeds. **Not "
    "held**: the same with the opposite sign. **Undecided**: everything else, also where no setting was run with "
    "several seeds."
)


def status(result: Result) -> str:
    """failed, did not learn, no gain, or learned."""
    if result["error"] is not None:
        return "failed"
    health = {"embedding_rank": result["embedding_rank"], "embedding_std": result["embedding_std"]}
    if collapse_warning(health) is not None:
        return "did not learn"
    if result["gain"]["mAP_low"] > 0:
        return "learned"
    return "did not learn" if result["after"]["rank"] < result["before"]["rank"] else "no gain"


def counts(result: Result) -> bool:
    """Whether a run may decide a claim."""
    return status(result) in ("learned", "no gain")


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of mAP.

    Attributes:
        value: D.
        low, high: Its interval over identities.
        seed_error: Its standard error over seeds; NaN where no setting was run with several.
        num_runs: Runs in it.
    """

    value: float
    low: float
    high: float
    seed_error: float
    num_runs: int

    @property
    def verdict(self) -> str:
        """Held, not held or undecided."""
        if math.isnan(self.seed_error) or abs(self.value) <= NUM_ERRORS * self.seed_error:
            return "undecided"
        return "held" if self.low > 0 else "not held" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        error = "not measured" if math.isnan(self.seed_error) else f"{self.seed_error:.3f}"
        return f"D = {self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f}), error over seeds {error}"


def contrast(results: Results, weights: Mapping[str, float], *, seed_std: float) -> Contrast:
    """The contrast of runs by name with their weights, paired by query.

    Args:
        results: All results.
        weights: Of finished runs, all measured on the same images.
        seed_std: Standard deviation between seeds.
    """
    _, identity = each_query(results[next(iter(weights))]["individuals"])
    values = np.zeros(len(identity))
    for name, weight in weights.items():
        precision, individual = each_query(results[name]["individuals"])
        assert np.array_equal(individual, identity), f"{name} was measured on other images"
        values += weight * precision
    low, high = interval(values, identity)
    error = seed_std * math.sqrt(sum(weight**2 for weight in weights.values()))
    return Contrast(float(values.mean()), low, high, error, len(weights))


def pooled_std(results: Results, groups: Sequence[Sequence[str]]) -> float:
    """Standard deviation of mAP between seeds, pooled over groups of runs that differ in the seed; NaN without any."""
    squares, freedom = 0.0, 0
    for group in groups:
        found = [results[name]["after"]["mAP"] for name in group if name in results and counts(results[name])]
        if len(found) > 1:
            squares += (len(found) - 1) * float(np.var(found, ddof=1))
            freedom += len(found) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def mean_weights(groups: Sequence[Sequence[str]], results: Results, *, sign: float) -> dict[str, float]:
    """Weights of a mean over groups of the means within them, of the runs that may decide; empty without any."""
    usable = [[name for name in group if name in results and counts(results[name])] for group in groups]
    usable = [group for group in usable if group]
    return {name: sign / len(usable) / len(group) for group in usable for name in group}

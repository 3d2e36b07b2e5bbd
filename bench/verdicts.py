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
import scipy.stats

from bench.measures import each_query, standard_error
from bench.record import Result, Results
from wildray.learning.monitor import COLLAPSED_RANK, COLLAPSED_STD, collapse_warning

COVERAGE = 0.95
"""Of intervals."""
HALF_RANK = 0.5
"""Share of the untrained network's rank under which vectors have lost what they told apart."""

STATUS_RULE = (
    "A run **failed** where its loss became infinite or no number; it **did not learn** where its embeddings "
    f"collapsed (effective rank below {COLLAPSED_RANK} or spread below {COLLAPSED_STD}, `wildray.learning.monitor`), "
    "or where mAP did not rise and the rank of the embeddings of the held-out images fell to less than half of the "
    "untrained network's; such runs decide nothing. It **learned** where the 95 % interval over identities of what it "
    "added to the untrained network's mAP lies above 0; else there was **no gain**: it is no collapse, and counts."
)
VERDICT_RULE = (
    "Every claim is written as a contrast D: a mean of mAP over some runs minus the mean over others. Other animals "
    "and other seeds would each have given another D. The error over individuals is the standard deviation of a "
    "bootstrap over those held out, the same for all runs; that over seeds is s * sqrt(sum of squared weights), s "
    "being the standard deviation between seeds, pooled over all settings that were run with several. The 95 % "
    "interval is D plus and minus Student's t times the root of the sum of both squares, with Welch and "
    "Satterthwaite's degrees of freedom. **Held**: it lies above 0. **Not held**: below. **Undecided**: everything "
    "else, also where no setting was run with several seeds."
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
    lost = result["after"]["rank"] < HALF_RANK * result["before"]["rank"]
    return "did not learn" if lost and result["gain"]["mAP"] <= 0 else "no gain"


def counts(result: Result) -> bool:
    """Whether a run may decide a claim."""
    return status(result) in ("learned", "no gain")


@dataclass(frozen=True)
class SeedSpread:
    """Standard deviation of mAP between seeds, and the degrees of freedom behind it; NaN and 0 where unknown."""

    std: float
    freedom: int


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of mAP.

    Attributes:
        value: D.
        individual_error: Its standard error over individuals.
        seed_error: Its standard error over seeds; NaN where no setting was run with several.
        low, high: Its interval by both; NaN as above.
        num_runs: Runs in it.
    """

    value: float
    individual_error: float
    seed_error: float
    low: float
    high: float
    num_runs: int

    @property
    def verdict(self) -> str:
        """Held, not held or undecided."""
        return "held" if self.low > 0 else "not held" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        if math.isnan(self.seed_error):
            return f"D = {self.value:+.3f}, error over individuals {self.individual_error:.3f}, over seeds not measured"
        return (
            f"D = {self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f}), error over individuals "
            f"{self.individual_error:.3f}, over seeds {self.seed_error:.3f}"
        )


def contrast(results: Results, weights: Mapping[str, float], *, spread: SeedSpread) -> Contrast:
    """The contrast of runs by name with their weights, paired by query.

    Args:
        results: All results; those without ``seconds`` are of no training, and the same with every seed.
        weights: Of finished runs, all measured on the same images.
        spread: Between seeds.
    """
    _, identity = each_query(results[next(iter(weights))]["individuals"])
    values = np.zeros(len(identity))
    for name, weight in weights.items():
        precision, individual = each_query(results[name]["individuals"])
        assert np.array_equal(individual, identity), f"{name} was measured on other images"
        values += weight * precision
    over_individuals = standard_error(values, identity)
    over_seeds = spread.std * math.sqrt(
        sum(weight**2 for name, weight in weights.items() if "seconds" in results[name])
    )
    error = math.hypot(over_individuals, over_seeds)
    num_individuals = len(np.unique(identity))
    parts = [(over_individuals, num_individuals - 1), (over_seeds, spread.freedom)]
    freedom = error**4 / max(sum(part**4 / max(own, 1) for part, own in parts), 1e-300)
    reach = error * float(scipy.stats.t.ppf((1 + COVERAGE) / 2, max(freedom, 1.0))) if error else 0.0
    mean = float(values.mean())
    return Contrast(mean, over_individuals, over_seeds, mean - reach, mean + reach, len(weights))


def pooled_std(results: Results, groups: Sequence[Sequence[str]]) -> SeedSpread:
    """Of mAP between seeds, pooled over groups of runs that differ in the seed."""
    squares, freedom = 0.0, 0
    for group in groups:
        found = [results[name]["after"]["mAP"] for name in group if name in results and counts(results[name])]
        if len(found) > 1:
            squares += (len(found) - 1) * float(np.var(found, ddof=1))
            freedom += len(found) - 1
    return SeedSpread(math.sqrt(squares / freedom) if freedom else math.nan, freedom)


def mean_weights(groups: Sequence[Sequence[str]], results: Results, *, sign: float) -> dict[str, float]:
    """Weights of a mean over groups of the means within them, of the runs that may decide; empty without any."""
    usable = [[name for name in group if name in results and counts(results[name])] for group in groups]
    usable = [group for group in usable if group]
    return {name: sign / len(usable) / len(group) for group in usable for name in group}


def left_out(groups: Sequence[Sequence[str]], results: Results) -> str:
    """Words on finished runs of these that may not decide; empty where all may."""
    names = [name for group in groups for name in group if name in results and not counts(results[name])]
    return f" Left out, since they did not learn or failed: {', '.join(names)}." if names else ""

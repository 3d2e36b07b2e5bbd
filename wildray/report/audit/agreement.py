"""How far two reviewers agree, beyond what chance would have them agree.

In: two verdict files. Out: ``Agreement``: Cohen's kappa (1960) over the pairs that both judged, *unsure* being a
verdict like the others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wildray.verdicts import WORDS, VerdictFile


@dataclass(frozen=True)
class Agreement:
    """Two reviewers.

    Attributes:
        reviewers: Their names.
        num_pairs: Pairs that both judged.
        agreed: Share of them with equal verdicts; None without any.
        kappa: 1 where they agree always, 0 where no more than by chance; None where chance alone would have them agree
            always, as where both say *same* to every pair.
        conflicts: Pairs on which one says *same* and the other *different*.
    """

    reviewers: tuple[str, str]
    num_pairs: int
    agreed: float | None
    kappa: float | None
    conflicts: int


def agreement(one: VerdictFile, other: VerdictFile) -> Agreement:
    """Compare two reviewers."""
    both = [(word, other.verdicts[key]) for key, word in one.verdicts.items() if key in other.verdicts]
    names = (one.reviewer, other.reviewer)
    conflicts = sum({first, second} == {"same", "different"} for first, second in both)
    if not both:
        return Agreement(names, 0, None, None, 0)
    number = len(both)
    agreed = sum(first == second for first, second in both) / number
    firsts, seconds = (Counter(words) for words in zip(*both, strict=True))
    chance = sum(firsts[word] * seconds[word] for word in WORDS) / number**2
    kappa = None if chance >= 1 else (agreed - chance) / (1 - chance)
    return Agreement(names, number, agreed, kappa, conflicts)

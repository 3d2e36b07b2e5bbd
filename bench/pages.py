"""Markdown pages out of results: tables that say what is missing, and where and how they were measured.

In: results by name. Out: text. What is not finished stands as "not yet run", so that a page of half a bench is honest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.measures import each_query, interval
from bench.record import Result, Results
from bench.verdicts import status

MISSING = "not yet run"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))


def origin(results: Results, *, command: str) -> str:
    """Where the figures come from: command, commits, machine, seeds."""
    commits = sorted({str(result["commit"]) for result in results.values()})
    machines = sorted({str(result["machine"]) for result in results.values()})
    seeds = sorted({int(result["seed"]) for result in results.values()})
    return (
        f"Made by `{command}` at commit {', '.join(commits) or 'none yet'} (a plus: with changes not yet committed) on "
        f"{'; '.join(machines) or 'none yet'} with several runs at a time, a thread each; seeds "
        f"{', '.join(map(str, seeds)) or 'none yet'}. Seconds and images per second are of the runs on "
        f"{usual_machine(results)} alone, on which other work ran at times: they compare roughly, and within this page "
        "only."
    )


def usual_machine(results: Results) -> str:
    """The machine of the most runs."""
    machines = [str(result["machine"]) for result in results.values()]
    return max(sorted(set(machines)), key=machines.count, default="none yet")


def speed(found: Sequence[Result], results: Results) -> str:
    """Seconds and images per second of the runs among these that the usual machine did."""
    here = [result for result in found if result["machine"] == usual_machine(results)]
    if not here:
        return "another machine"
    return f"{over(here, lambda result: result['seconds'], 0)}, {over(here, lambda result: result['images_per_s'], 0)}"


def span(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and where there are several values their standard deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def over(results: Sequence[Result], read: Callable[[Result], float], digits: int = 3) -> str:
    """``span`` of a figure over runs."""
    return span([read(result) for result in results], digits)


def with_interval(results: Sequence[Result]) -> str:
    """Mean average precision over runs that differ in the seed, and its interval over identities."""
    each = [each_query(result["individuals"]) for result in results]
    low, high = interval(np.mean([precision for precision, _ in each], axis=0), each[0][1])
    return f"{over(results, lambda result: result['after']['mAP'])} ({low:.3f} to {high:.3f})"


def states(results: Sequence[Result]) -> str:
    """What became of runs: learned, or counts of each word."""
    words = [status(result) for result in results]
    kinds = sorted(set(words))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{words.count(kind)} {kind}" for kind in kinds)

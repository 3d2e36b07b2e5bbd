"""Progress bars on stderr, quiet where it is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def tracked(items: Iterable[T], total: int, what: str, *, weigh: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """Give the items on, drawing how many of ``total`` have come and when the rest will.

    Args:
        items: What is waited for.
        total: How many there will be.
        what: The word before the bar.
        weigh: How many of ``total`` an item stands for.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task, weigh(item))

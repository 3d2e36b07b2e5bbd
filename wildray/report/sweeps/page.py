"""The frame of a sweep's page: its sections, and links to those that are there.

In: markup. Out: one self-contained page with the look, and the content policy, of the stage report.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from wildray.report import page
from wildray.report.page import Html, tag, text
from wildray.report.sweeps.records import UNKNOWN
from wildray.report.sweeps.words import SECTIONS

section = functools.partial(page.section, words=SECTIONS)
"""A section of a sweep's page."""
document = functools.partial(page.document, words=SECTIONS)
"""The whole page."""


def interval_text(value: float | None, low: float | None, high: float | None) -> Html:
    """A figure with its interval in brackets."""
    if value is None:
        return text(UNKNOWN)
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return Html(tag("b", f"{value:.3f}") + tag("small", interval))


def tiles(numbers: Iterable[tuple[str, str]]) -> Html:
    """Large numbers with a word each."""
    shown = (tag("div", tag("b", number), tag("span", name), class_="tile") for number, name in numbers)
    return tag("div", shown, class_="tiles")

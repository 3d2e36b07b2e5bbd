"""The frame of a sweep's page: its sections, and links to those that are there.

In: markup. Out: one self-contained page with the look, and the content policy, of the stage report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wildray.report.page import Content, Html, document, tag, text
from wildray.report.sweep_records import UNKNOWN
from wildray.report.sweep_words import SECTIONS


def section(identifier: str, *body: Content | Iterable[Html]) -> Html:
    """A section of ``sweep_words.SECTIONS``: title, how to read it, what there is."""
    _, title, how = SECTIONS[identifier]
    return tag("section", tag("h2", title), tag("p", how, class_="how"), *body, id=identifier)


def sweep_document(title: str, subtitle: Content, sections: Mapping[str, Html], footer: str) -> str:
    """The whole page.

    Args:
        title: Heading of the page.
        subtitle: The line under it.
        sections: Identifiers of ``sweep_words.SECTIONS`` to elements, in order.
        footer: The last line.
    """
    links = tag("nav", (tag("a", SECTIONS[name][0], href=f"#{name}") for name in sections))
    # ``document`` knows the sections of the stage report alone; no text can look like its empty elements, being escaped
    page = document(title, subtitle, {}, footer)
    return page.replace("<nav></nav>", links, 1).replace("<main></main>", tag("main", sections.values()), 1)


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

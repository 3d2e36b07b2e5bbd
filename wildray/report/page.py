"""HTML by construction: every string is escaped unless it was built here.

In: text and nested elements. Out: one self-contained page: styles inline, pictures as data URIs, no script, nothing
fetched. A template engine would need the author to remember to escape; here a camera that is called ``<script>`` cannot
become one.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from wildray.report.style import STYLE
from wildray.report.words import SECTIONS


class Html(str):
    """Markup that is safe to stand in a page."""

    __slots__ = ()


Content = Html | str | int | float | None
Words = Mapping[str, tuple[str, str, str]]
"""Sections by identifier: short name, title, how to read it."""


def tag(kind: str, /, *children: Content | Iterable[Html], **attributes: object) -> Html:
    """An element.

    Args:
        kind: Name of the element.
        children: Markup as it is, anything else as escaped text; None is nothing.
        attributes: ``class_`` is written ``class``, ``stroke_width`` ``stroke-width``; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(text(child) for child in children)
    return Html(
        f"<{kind}{written}>" if kind in ("img", "br", "meta", "input") else f"<{kind}{written}>{inner}</{kind}>"
    )


def text(child: Content | Iterable[Html]) -> Html:
    """Escaped text, or markup as it is."""
    if child is None:
        return Html("")
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return Html(html.escape(str(child), quote=True))
    return Html("".join(child))


def image(data: bytes, description: str, *, kind: str = "jpeg", **attributes: object) -> Html:
    """A picture inside the page; ``kind`` is jpeg or png."""
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return tag("img", src=uri, alt=description, **attributes)


def table(header: Sequence[Content], rows: Iterable[Sequence[Content]], *, numeric: Sequence[int] = ()) -> Html:
    """A table; the columns in ``numeric`` are aligned by their digits."""

    def cells(kind: str, row: Sequence[Content]) -> Html:
        return tag("tr", (tag(kind, cell, class_="n" if i in numeric else None) for i, cell in enumerate(row)))

    body = tag("tbody", (cells("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", cells("th", header)), body), class_="scroll")


def missing(sentence: str, command: str | None = None) -> Html:
    """A place for what is not there yet, and the command that makes it."""
    shown = None if command is None else tag("code", command)
    return tag("p", tag("strong", "Not there yet. "), sentence, " " if command else None, shown, class_="missing")


def note(*children: Content) -> Html:
    """A sentence that nobody should overlook."""
    return tag("p", *children, class_="note")


def section(
    identifier: str, *body: Content | Iterable[Html], title: str | None = None, words: Words = SECTIONS
) -> Html:
    """A section: title, how to read it, what there is."""
    _, usual, how = words[identifier]
    return tag("section", tag("h2", title or usual), tag("p", how, class_="how"), *body, id=identifier)


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def head(title: str, *, style: str, policy: str) -> Html:
    """The head of a page that needs nothing but itself.

    Args:
        title: Of the window.
        style: CSS.
        policy: What the browser may load and run (Content-Security-Policy).
    """
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("style", Html(style)),
    )


def document(
    title: str, subtitle: Content, sections: Mapping[str, Html], footer: str, *, words: Words = SECTIONS
) -> str:
    """The whole page.

    Args:
        title: Heading of the page.
        subtitle: The line under it.
        sections: Identifiers of ``words`` to elements, in order.
        footer: The last line.
        words: Of each section: its link, its title, how to read it.
    """
    links = tag("nav", (tag("a", words[name][0], href=f"#{name}") for name in sections))
    # nothing is fetched and nothing runs, whatever a name in the data may hold
    top = head(title, style=STYLE, policy=_POLICY)
    header = tag("header", tag("h1", title), tag("p", subtitle), links)
    main = tag("main", sections.values())
    body = tag("body", header, main, tag("footer", footer))
    return "<!doctype html>\n" + tag("html", top, body, lang="en") + "\n"

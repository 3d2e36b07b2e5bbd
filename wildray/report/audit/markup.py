"""The page of a sheet: what stands on it before a pair is shown.

In: a record and the items of its pairs. Out: one HTML file with pictures, style and script inside. The only script that
its policy lets run is ours, by its hash: a camera that is called ``<script>`` stays a name. Nothing is fetched or sent;
verdicts stay in the browser and in the files that the reviewer saves.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from wildray.report.audit.look import LOOK
from wildray.report.audit.record import Record
from wildray.report.audit.script import SCRIPT
from wildray.report.page import Html, head, tag
from wildray.verdicts import FORMAT, VERSION, WORDS

KEYS = {"same": ("S", "1"), "different": ("D", "2"), "not_an_animal": ("N", "3"), "unsure": ("U", "4")}
"""The keys of each verdict."""
NAMES = {"same": "Same", "different": "Different", "not_an_animal": "Not an animal", "unsure": "Unsure"}
MEANINGS = {
    "same": "both crops show one individual; where a crop shows several, the one in its middle counts",
    "different": "they show two individuals",
    "not_an_animal": "one of them, or both, shows none: a plant, a rock, a person, a vehicle",
    "unsure": "it cannot be told",
}
MOVES = (
    ("back", "← Back", "ArrowLeft Backspace", "Left arrow or Backspace", "look at the pair before"),
    ("next", "Next →", "ArrowRight", "Right arrow", "look at the pair after"),
    ("undo", "Undo", "Z", "Z", "take the last verdict back"),
    ("open", "Next open", "O", "O", "go to the next pair without a verdict"),
    ("place", "Empty place", "B", "B", "show the place of the crops without what moves, where it is known"),
)
"""Buttons that move: id, text, keys for assistive technology, keys in words, what they do."""


def sheet_page(record: Record, items: Sequence[dict[str, Any]]) -> str:
    """The page.

    Args:
        record: The sheet.
        items: Of each pair ``anchor_id``, ``positive_id``, ``crops`` and ``places`` (data URIs from left to right),
            ``camera`` and ``facts``.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "id": record.sheet,
        "pairs": record.pairs,
        "linker": str(record.mining.get("linker", "unknown")),
        "words": list(WORDS),
        "names": NAMES,
        "keys": {key.lower(): word for word, keys in KEYS.items() for key in keys},
        "items": list(items),
    }
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'"
    top = head(f"Same animal? wildray audit {record.sheet}", style=LOOK, policy=policy)
    footer = f"Sheet {record.sheet} of the pairs {record.pairs}. Nothing leaves this file but what you save."
    # "<" is all that could end a script element; JSON may spell it otherwise
    data = tag("script", Html(json.dumps(content).replace("<", "\\u003c")), type="application/json", id="sheet")
    noscript = tag("noscript", tag("p", "This sheet needs JavaScript, which is off in this browser.", class_="note"))
    main = tag("main", noscript, _start(len(items)), _judging(len(items)), _end())
    other = tag("button", "Another reviewer", type="button", id="other", hidden="")
    body = tag("body", main, tag("footer", tag("p", footer), other), data, tag("script", Html(SCRIPT)))
    return "<!doctype html>\n" + tag("html", top, body, lang="en") + "\n"


def _start(num_pairs: int) -> Html:
    words = (
        tag("tr", tag("th", NAMES[word], scope="row"), tag("td", *_caps(KEYS[word])), tag("td", MEANINGS[word]))
        for word in WORDS
    )
    moves = (
        tag("tr", tag("th", text, scope="row"), tag("td", tag("kbd", keys)), tag("td", what))
        for _, text, _, keys, what in MOVES
    )
    keys = tag("table", tag("caption", "Keys"), tag("tbody", words, moves))
    return tag(
        "section",
        tag("h1", "Same animal?"),
        tag(
            "p",
            f"{num_pairs:,} pairs of crops, drawn by lot. Of each, say whether both show one individual. What is "
            "known of the two is shown only after your verdict.",
        ),
        tag(
            "form",
            tag("label", "Your name", for_="name"),
            tag("input", type="text", id="name", autocomplete="name", maxlength="100", required=""),
            tag("button", "Begin", type="submit", class_="main"),
            id="begin",
        ),
        tag(
            "p",
            tag("label", "Go on from a saved file: ", for_="load"),
            tag("input", type="file", id="load", accept=".json,application/json"),
        ),
        tag("p", id="said", role="alert", class_="note", hidden=""),
        keys,
        id="start",
    )  # fmt: skip


def _judging(num_pairs: int) -> Html:
    sides = (
        tag("figure", tag("img", id=side, alt=""), tag("figcaption", name))
        for side, name in (("left", "left"), ("right", "right"))
    )
    answers = (
        tag(
            "button", NAMES[word], tag("kbd", KEYS[word][0]), type="button", class_=f"answer {word}", id=f"say-{word}",
            aria_keyshortcuts=" ".join(KEYS[word]), aria_pressed="false",
        )
        for word in WORDS
    )  # fmt: skip
    moves = (
        tag("button", text, type="button", id=name, aria_keyshortcuts=keys, title=f"{what} ({words})")
        for name, text, keys, words, what in MOVES
    )
    return tag(
        "section",
        tag("h1", "Same animal?", class_="hidden", tabindex="-1", id="judging"),
        tag(
            "div",
            tag("progress", id="progress", max=num_pairs, value=0, aria_label="pairs judged"),
            tag("span", id="count"),
            tag("button", "Save verdicts", type="button", id="save"),
            class_="bar",
        ),
        tag("div", sides, class_="sides"),
        tag("p", id="facts", class_="facts"),
        tag("div", answers, class_="answers", role="group", aria_label="What the two crops show"),
        tag("div", moves, class_="moves", role="group", aria_label="Move"),
        tag("p", id="status", role="status", aria_live="polite"),
        tag("aside", id="last", aria_label="The pair judged last", hidden=""),
        id="judge",
        hidden="",
    )


def _end() -> Html:
    return tag(
        "section",
        tag("h1", "All judged", tabindex="-1", id="ended"),
        tag("p", id="sum"),
        tag(
            "p",
            "Save the verdicts and hand them to whoever drew the sheet: wildray audit --store STORE --verdicts FILE",
        ),
        tag(
            "div",
            tag("button", "Save verdicts", type="button", id="save-end", class_="main"),
            tag("button", "← Back to the pairs", type="button", id="again"),
            class_="moves",
        ),
        tag("p", id="status-end", role="status", aria_live="polite"),
        id="end",
        hidden="",
    )


def _caps(keys: Sequence[str]) -> list[Html]:
    return [tag("kbd", key) for key in keys]

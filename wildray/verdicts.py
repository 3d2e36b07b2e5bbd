"""What people said of mined pairs: verdict files, read and checked, and the verdict on each pair.

In: the JSON files that an audit's sheet saves. Out: ``VerdictFile``, and ``judged``, which says of each pair
(anchor_id, positive_id) whether it shows one animal: a source of truth for whatever decides about pairs. A file comes
from a browser, by mail, perhaps edited: everything in it is checked. Ids are text there, since JavaScript's numbers
lose the last digits of 64 bits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildray.errors import DataError, nearest

FORMAT = "wildray-audit-verdicts"
VERSION = 1
WORDS = ("same", "different", "not_an_animal", "unsure")
"""What a pair can be said to show: one animal, two animals, on a side none at all; or it cannot be told."""
MAX_BYTES = 64 * 1024 * 1024
MAX_NAME = 200

PairKey = tuple[int, int]
"""(anchor_id, positive_id)."""


@dataclass(frozen=True)
class VerdictFile:
    """The verdicts of one reviewer on one sheet.

    Attributes:
        path: Where it was read.
        sheet: Id of the sheet.
        pairs: Digest of the pair set that the sheet was drawn from.
        reviewer: Who judged, as they wrote it: never to be shown unescaped.
        verdicts: One of ``WORDS`` by pair, in the order of the file.
        seconds: How long the reviewer looked at each pair, by pair; 0 where unknown.
        num_changed: Verdicts that were given anew, when what is known of the pair had been shown.
    """

    path: str
    sheet: str
    pairs: str
    reviewer: str
    verdicts: Mapping[PairKey, str]
    seconds: Mapping[PairKey, float]
    num_changed: int


def read_verdicts(path: str | Path) -> VerdictFile:
    """A verdict file.

    Raises:
        DataError: It cannot be read, is cut short, is no verdict file, or holds an unknown word or a pair twice.
    """
    content = _mapping(Path(path).expanduser())
    texts = {name: content.get(name) for name in ("sheet", "pairs", "reviewer")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME:
            raise DataError(f"{path}: {name} is {str(value)[:40]!r}, expected a text of up to {MAX_NAME} characters.")
    rows = content.get("verdicts")
    if not isinstance(rows, list):
        raise DataError(f"{path}: verdicts is no list. Save the verdicts from the sheet again.")
    verdicts: dict[PairKey, str] = {}
    seconds: dict[PairKey, float] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, verdict {number} of {len(rows)}"
        key = _key(row, where)
        word = row.get("verdict")
        if word not in WORDS:
            raise DataError(f"{where}: {str(word)[:40]!r} is no verdict. {nearest(str(word)[:40], WORDS)}")
        if key in verdicts:
            raise DataError(f"{where}: the pair {key[0]}, {key[1]} has a verdict already ({verdicts[key]}). Keep one.")
        verdicts[key], seconds[key] = word, _seconds(row)
    return VerdictFile(
        path=str(path),
        sheet=str(texts["sheet"]),
        pairs=str(texts["pairs"]),
        reviewer=str(texts["reviewer"]).strip(),
        verdicts=verdicts,
        seconds=seconds,
        num_changed=sum(row.get("changes") not in (None, 0) for row in rows),
    )


def judged(files: Sequence[VerdictFile]) -> dict[PairKey, str]:
    """What the reviewers say of each pair, taken together.

    Args:
        files: Verdicts of one or several reviewers.

    Returns:
        One of ``WORDS`` by pair: the one that more than half of those gave who were sure; ``unsure`` where no word has
        so many, as where two contradict each other, or where nobody was sure. Pairs that nobody judged are left out.
    """
    votes: dict[PairKey, list[str]] = {}
    for file in files:
        for key, word in file.verdicts.items():
            votes.setdefault(key, []).append(word)
    return {key: _most(words) for key, words in votes.items()}


def _most(words: Sequence[str]) -> str:
    sure = [word for word in words if word != "unsure"]
    if not sure:
        return "unsure"
    word, count = Counter(sure).most_common(1)[0]
    return word if 2 * count > len(sure) else "unsure"


def _mapping(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES // 2**20} MB: it is no verdict file.")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"The verdicts {path} cannot be read: {error.strerror}. Give a file saved from a sheet."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no JSON ({error}): it was cut short or altered. Save the verdicts from the sheet again; the "
            f"browser that they were given in still has them."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is no verdict file: expected the JSON that an audit's sheet saves.")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path} is of version {content.get('version')!r}, expected {VERSION}: use the wildray of its sheet."
        )
    return content


def _key(row: object, where: str) -> PairKey:
    found = [row.get(name) if isinstance(row, dict) else None for name in ("anchor_id", "positive_id")]
    ids = []
    for value in found:
        digits = value.removeprefix("-") if isinstance(value, str) else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise DataError(f"{where}: {str(value)[:40]!r} is no detection id as text, such as '-123'.")
        ids.append(int(str(value)))
    return ids[0], ids[1]


def _seconds(row: Mapping[str, Any]) -> float:
    value = row.get("seconds")
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0

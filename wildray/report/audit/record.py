"""The record of a sheet: what was drawn from what, kept in the store for the day the verdicts come back.

In and out: ``audits/<sheet>.json``. It holds no pictures. The verdict file could carry all this, but then an edited
file could change the weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from wildray.errors import DataError, StoreError, nearest
from wildray.report.audit.rules import Rule
from wildray.store import Store


@dataclass(frozen=True)
class Drawn:
    """A pair on the sheet.

    Attributes:
        anchor_id, positive_id: Detection ids, as text.
        stratum: Its stratum, from 0.
        sequence_id: Its sequence, as text.
        camera_id: Its camera.
        facts: Values by name in ``population.FACTS``.
    """

    anchor_id: str
    positive_id: str
    stratum: int
    sequence_id: str
    camera_id: str
    facts: dict[str, float]


@dataclass(frozen=True)
class Record:
    """A sheet.

    Attributes:
        sheet: Its id.
        pairs: Digest of the pair set.
        mining: The settings the set was mined with.
        settings: The audit's settings.
        num_without_crops: Pairs of the set that could not be shown; the estimates are not about them.
        labels: Classes of each stratum by axis.
        size: Pairs in each stratum.
        drawn: The pairs on the sheet, in their order.
        rules: Stricter settings, and how many pairs of the set each keeps.
    """

    sheet: str
    pairs: str
    mining: dict[str, Any]
    settings: dict[str, Any]
    num_without_crops: int
    labels: list[dict[str, str]]
    size: list[int]
    drawn: list[Drawn]
    rules: list[Rule]

    def write(self, store: Store) -> None:
        """Keep it in the store."""
        store.write_text(json.dumps(asdict(self), default=str), "audits", f"{self.sheet}.json")


def read_record(store: Store, sheet: str) -> Record:
    """The record of a sheet.

    Args:
        store: The store.
        sheet: Its id, as a verdict file names it.

    Raises:
        DataError: The store has no such sheet.
        StoreError: The record was altered.
    """
    known = sorted(path.stem for path in store.path("audits").glob("*.json"))
    if sheet not in known:
        hint = nearest(sheet[:40], known) if known else "No sheet was drawn from it yet."
        raise DataError(
            f"The store {store.root} has drawn no sheet {sheet[:40]!r}: are these verdicts of another store? {hint}"
        )
    content = store.read_json("audits", f"{sheet}.json")
    try:
        drawn = [Drawn(**row) for row in content.pop("drawn")]
        return Record(**content | {"drawn": drawn, "rules": [Rule(**row) for row in content["rules"]]})
    except (AttributeError, KeyError, TypeError):
        path = store.path("audits", f"{sheet}.json")
        raise StoreError(
            f"{path} is no record of a sheet: it was altered. Draw the sheet again, which writes it anew."
        ) from None

"""Drawing a sheet: pairs for a person to judge, in one HTML file that works without a network.

In: settings and a store with a pair set. Out: the page, and the sheet's record in the store. Equal settings over an
equal set give the same sheet, under the same id, so that a browser goes on where its reviewer stopped.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wildray.config import AuditConfig, Config
from wildray.errors import ConfigError
from wildray.packs import PackReader, encode_jpeg, shrunk
from wildray.refusals import explained
from wildray.report.audit.markup import sheet_page
from wildray.report.audit.population import FACTS, Population, read_population
from wildray.report.audit.record import Drawn, Record
from wildray.report.audit.rules import rules
from wildray.report.audit.strata import MIN_DRAWN, Strata, allocate, draw, stratify
from wildray.store import Store

logger = logging.getLogger(__name__)

LONGEST_PX = 480
"""Longest side of a crop on the sheet: fifty pairs come to a few MB."""


@dataclass(frozen=True)
class SheetResult:
    """What was drawn.

    Attributes:
        sheet: Id of the sheet.
        page: Path of the HTML file.
        pairs: Digest of the pair set.
        num_pairs: Pairs on the sheet.
        num_asked: Pairs that were asked for.
        num_population: Pairs it was drawn from.
        num_strata: Strata it was drawn from.
        num_without_crops: Pairs of the set that could not be shown.
        seconds: Wall-clock time.
    """

    sheet: str
    page: str
    pairs: str
    num_pairs: int
    num_asked: int
    num_population: int
    num_strata: int
    num_without_crops: int
    seconds: float


def draw_sheet(config: Config, store: Store, *, pairs: str | None = None, out: str | None = None) -> SheetResult:
    """Draw pairs and write the sheet.

    Args:
        config: ``audit`` is used.
        store: Where the pairs and crops are, and the record goes.
        pairs: Digest of a pair set; default the newest.
        out: Path of the page; default ``reports/audit-<sheet>.html`` in the store.

    Raises:
        ConfigError: The store has no such pair set.
        StageError: There is no pair to judge.
        StoreError: Something cannot be read or written.
    """
    begun = time.monotonic()
    if out is not None and Path(out).expanduser().is_dir():
        raise ConfigError(f"--out {out} is a folder, expected the name of an HTML file.")
    population = read_population(store, pairs)
    strata, rows, flips = _sample(config.audit, population)
    if len(rows) < config.audit.num_pairs:
        logger.warning(
            "audit: %d pairs were asked for, the set has %d: all are taken", config.audit.num_pairs, len(rows)
        )
    if population.num_without_crops:
        logger.warning("audit: %d pairs have no crops and are left out", population.num_without_crops)
    record = _record(config.audit, population, strata, rows, flips)
    page = sheet_page(record, _items(store, population, rows, flips, record))
    if out is None:
        path = store.write_text(page, "reports", f"audit-{record.sheet}.html")
    else:
        path = Path(out).expanduser().absolute()
        with explained(path, "Writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page)
    record.write(store)
    seconds = time.monotonic() - begun
    logger.info(
        "audit: %d of %d pairs in %s, %.1f MB, %.1f s", len(rows), len(strata.code), path, len(page) / 1e6, seconds
    )
    return SheetResult(
        sheet=record.sheet,
        page=str(path),
        pairs=population.digest,
        num_pairs=len(rows),
        num_asked=config.audit.num_pairs,
        num_population=population.pairs.num_rows,
        num_strata=len(strata.size),
        num_without_crops=population.num_without_crops,
        seconds=seconds,
    )


def _sample(config: AuditConfig, population: Population) -> tuple[Strata, list[int], list[bool]]:
    """Strata, the rows drawn in their order, and which of them show the positive on the left."""
    edges = {
        "density": config.density_edges,
        "gap_s": [edge.seconds for edge in config.gap_edges],
        "iou": config.iou_edges,
    }
    strata = stratify(population.facts, edges, max_strata=config.num_pairs // MIN_DRAWN)
    rng = np.random.default_rng(config.seed)
    rows = draw(strata, allocate(strata.size, config.num_pairs), rng)
    return strata, rows.tolist(), (rng.random(len(rows)) < 0.5).tolist()


def _record(config: AuditConfig, population: Population, strata: Strata, rows: list[int], flips: list[bool]) -> Record:
    drawn = [
        Drawn(
            anchor_id=str(pair["anchor_id"]),
            positive_id=str(pair["positive_id"]),
            stratum=int(strata.code[row]),
            sequence_id=str(pair["sequence_id"]),
            camera_id=pair["camera_id"],
            facts={name: float(population.facts[name][row]) for name in FACTS},
        )
        for row, pair in zip(rows, population.pairs.take(pa.array(rows, pa.int64())).to_pylist(), strict=True)
    ]
    content = [population.digest, strata.size.tolist(), [(one.anchor_id, one.positive_id) for one in drawn], flips]
    return Record(
        sheet=hashlib.blake2b(repr(content).encode(), digest_size=6).hexdigest(),
        pairs=population.digest,
        mining=population.mining,
        settings=config.model_dump(mode="json"),
        num_without_crops=population.num_without_crops,
        labels=strata.labels,
        size=strata.size.tolist(),
        drawn=drawn,
        rules=rules(population.facts, str(population.mining.get("linker"))),
    )


def _items(
    store: Store, population: Population, rows: list[int], flips: list[bool], record: Record
) -> list[dict[str, Any]]:
    """What the page holds of each pair: ids, pictures from left to right, and what is shown once it is judged."""
    reader = PackReader(store, ("crops", population.detections))
    items = []
    pairs = population.pairs.take(pa.array(rows, pa.int64())).to_pylist()
    for pair, one, flip in zip(pairs, record.drawn, flips, strict=True):
        sides = ("positive", "anchor") if flip else ("anchor", "positive")
        addresses = [(pair[f"{side}_pack"], pair[f"{side}_row"]) for side in sides]
        items.append(
            {
                "anchor_id": one.anchor_id,
                "positive_id": one.positive_id,
                "crops": [
                    _uri(encode_jpeg(shrunk(reader.image(*at), longest_px=LONGEST_PX), quality=88)) for at in addresses
                ],
                "places": [_place(reader, *at) for at in addresses],
                "camera": one.camera_id,
                "facts": one.facts,
            }
        )
    return items


def _place(reader: PackReader, pack: str, row: int) -> str | None:
    """The crop's place without what moves, where it is known."""
    picture = reader.background(pack, row)
    return None if picture is None else _uri(encode_jpeg(shrunk(picture, longest_px=LONGEST_PX), quality=80))


def _uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

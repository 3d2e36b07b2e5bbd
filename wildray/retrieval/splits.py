"""Who asks, who may answer, and which answers count.

In: the columns of labelled images and the selections of a configuration. Out: a ``Protocol``, whose masks are made a
block of queries at a time from integer codes, so that no queries x gallery matrix is ever whole.

A query never finds itself. Images whose identity is unknown neither ask nor answer: one may well show the animal that
is asked for, and would be counted as wrong. An individual with a single image can only be a distractor. A missing
value is shared with nobody: it excludes nothing, and satisfies no ``same``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.config import EvalConfig
from wildray.errors import ConfigError, DataError, nearest

logger = logging.getLogger(__name__)

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Columns = Mapping[str, Sequence[str | None]]

DEFAULT_EXCLUDE = "encounter"
"""Photographs of one encounter share light, scenery and pose: finding them again is no re-identification."""


@dataclass(frozen=True)
class Protocol:
    """Queries, gallery and rules, over the rows of a table.

    Attributes:
        queries: (Q,) int64 rows that ask.
        gallery: (G,) int64 rows that may answer.
        identities: (N,) int64 code of each row's identity; -1 unknown.
        exclude: Codes, (N,) int64 each, of which an answer may share none with its query; -1 missing.
        same: Codes, (N,) int64 each, all of which an answer must share with its query; -1 missing.
        exclude_columns: Names of the columns behind ``exclude``.
    """

    queries: Int64
    gallery: Int64
    identities: Int64
    exclude: tuple[Int64, ...]
    same: tuple[Int64, ...]
    exclude_columns: tuple[str, ...]

    def masks(self, block: slice) -> tuple[Bool, Bool]:
        """Which answers count.

        Args:
            block: A range of the queries.

        Returns:
            (B, G) allowed answers, and (B, G) those of the query's identity among them.
        """
        asks, answers = self.queries[block, None], self.gallery[None, :]
        allowed = asks != answers
        for codes in self.exclude:
            allowed &= (codes[asks] != codes[answers]) | (codes[asks] < 0)
        for codes in self.same:
            allowed &= (codes[asks] == codes[answers]) & (codes[asks] >= 0)
        return allowed, allowed & (self.identities[asks] == self.identities[answers])


def make_protocol(columns: Columns, config: EvalConfig) -> Protocol:
    """The protocol of a configuration over a table.

    Args:
        columns: Columns of the table, with ``identity``; None is a missing value, or an unknown identity.
        config: Selections and rules.

    Raises:
        ConfigError: A selection is not COLUMN=VALUE.
        DataError: A column or value does not exist; there is no query, no gallery, or only one individual.
    """
    exclude = config.exclude
    if exclude is None:
        exclude = (DEFAULT_EXCLUDE,) if DEFAULT_EXCLUDE in columns else ()
    identities = _codes(columns, "identity", "the evaluation")
    known = identities >= 0
    if not known.any():
        raise DataError("No labelled image has an identity: all are empty or 'unknown'; nothing can be evaluated.")
    if not known.all():
        logger.info("%d of %d labelled images have no identity and take no part", (~known).sum(), len(known))
    queries = np.flatnonzero(known & _selected(columns, config.queries, "--eval.queries"))
    gallery = np.flatnonzero(known & _selected(columns, config.gallery, "--eval.gallery"))
    for name, rows in (("queries", queries), ("gallery", gallery)):
        if not len(rows):
            raise DataError(
                f"No image with a known identity is left in the {name}: "
                f"loosen --eval.{name} (now {getattr(config, name)!r})."
            )
    num_individuals = len(np.unique(identities[gallery]))
    if num_individuals < 2:
        raise DataError(
            "The gallery shows a single individual, so that every answer would be right: "
            "evaluation needs labelled images of at least two."
        )
    return Protocol(
        queries=queries,
        gallery=gallery,
        identities=identities,
        exclude=tuple(_codes(columns, name, "--eval.exclude") for name in exclude),
        same=tuple(_codes(columns, name, "--eval.same") for name in config.same),
        exclude_columns=tuple(exclude),
    )


def _column(columns: Columns, name: str, option: str) -> Sequence[str | None]:
    if name not in columns:
        raise DataError(f"{option}: the labelled images have no column {name!r}. {nearest(name, columns)}")
    return columns[name]


def _codes(columns: Columns, name: str, option: str) -> Int64:
    """(N,) int64: equal where, and only where, the values are; -1 where missing."""
    values = _column(columns, name, option)
    numbers = {value: number for number, value in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int64)


def _selected(columns: Columns, selection: str | None, option: str) -> Bool:
    size = len(columns["identity"])
    if selection is None:
        return np.ones(size, dtype=np.bool_)
    name, mark, wanted = (part.strip() for part in selection.partition("="))
    if not (name and mark and wanted):
        raise ConfigError(f"{option}: got {selection!r}, expected COLUMN=VALUE, such as original_split=test.")
    values = _column(columns, name, option)
    chosen = np.array([value == wanted for value in values], dtype=np.bool_)
    if not chosen.any():
        common = [value for value, _ in Counter(value for value in values if value is not None).most_common(20)]
        raise DataError(f"{option}: no row has {wanted!r} in column {name!r}. {nearest(wanted, common)}")
    return chosen

"""Individuals divided once per sweep: trained on by supervised methods, chosen by, tested on.

In: labelled images and shares. Out: an import for each part. An individual lies in one part only, by a hash of its name
and the seed: a setting that is chosen on the animals it is then judged on looks better than it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wildray.config import Config
from wildray.errors import DataError
from wildray.labelled import Labelled, import_labelled
from wildray.metadata import UNKNOWN, read_metadata
from wildray.schema import hash64
from wildray.store import Store
from wildray.sweep.spec import Split

logger = logging.getLogger(__name__)

SUPERVISED_SHARE = 0.4
"""Of the individuals, for supervised methods, where the sweep does not say."""
FEWEST = 2
"""Individuals of a part: with one there is nobody to be told apart."""


@dataclass(frozen=True)
class Part:
    """Some of the individuals, imported.

    Attributes:
        digest: Of the import.
        num_identities: Individuals.
        num_images: Their images.
    """

    digest: str
    num_identities: int
    num_images: int


@dataclass(frozen=True)
class Parts:
    """All parts; ``train`` is None where no supervised method is tried."""

    train: Part | None
    validation: Part
    test: Part


def divide(names: list[str], split: Split, *, supervised: bool) -> dict[str, list[str]]:
    """Individuals of each part.

    Args:
        names: Of all individuals that have at least two images.
        split: Shares.
        supervised: Whether a supervised method is tried.

    Raises:
        DataError: A part that is needed would have fewer than two.
    """
    share = split.train if split.train is not None else SUPERVISED_SHARE if supervised else 0.0
    order = sorted(names, key=lambda name: hash64(("split", split.seed, name)))
    num_train = round(share * len(order))
    num_validation = round(split.validation * (len(order) - num_train))
    parts = {
        "train": order[:num_train],
        "validation": order[num_train : num_train + num_validation],
        "test": order[num_train + num_validation :],
    }
    for part, members in parts.items():
        if len(members) < FEWEST and (part != "train" or supervised):
            raise DataError(
                f"Of {len(order)} individuals with two images or more {len(members)} are left for {part}, expected at "
                f"least {FEWEST}: give labelled images of more individuals, or change split: in the sweep file."
            )
    return parts


def import_parts(config: Config, store: Store, data: str, split: Split, *, supervised: bool) -> Parts:
    """Divide the individuals of a metadata CSV and import each part unless it is there.

    Raises:
        DataError: The table cannot be used, or has too few individuals.
    """
    counts = Counter(row["identity"] for row in read_metadata(Path(data).expanduser()).rows)
    names = [name for name, count in counts.items() if count > 1 and name and name.lower() != UNKNOWN]
    if len(names) < len(counts):
        logger.info(
            "sweep: %d of %d individuals have a single image and are left out", len(counts) - len(names), len(counts)
        )
    members = divide(names, split, supervised=supervised)

    def part(name: str) -> Part:
        imported = _imported(config, store, data, members[name])
        return Part(imported.digest, len(members[name]), imported.table.num_rows)

    return Parts(part("train") if supervised else None, part("validation"), part("test"))


def _imported(config: Config, store: Store, data: str, members: list[str]) -> Labelled:
    return import_labelled(
        store,
        data,
        padding=config.detect.crop_padding,
        longest_px=config.detect.crop_longest_px,
        max_skipped=config.eval.max_skipped,
        newest=False,
        identities=frozenset(members),
    )

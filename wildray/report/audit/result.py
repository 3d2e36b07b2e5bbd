"""What the verdicts on a sheet say of its pair set.

In: a store and verdict files. Out: ``AuditResult``: purity, identity drift and the share of what is no animal, each
with an interval; the same by density, gap and overlap; how far reviewers agree; which stricter settings would do
better.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.config import Config
from wildray.errors import DataError
from wildray.report.audit.agreement import Agreement, agreement
from wildray.report.audit.estimate import Estimate, estimate
from wildray.report.audit.population import FACTS
from wildray.report.audit.record import Record, read_record
from wildray.report.audit.rules import Sample, recommend
from wildray.report.audit.strata import AXES
from wildray.store import Store
from wildray.verdicts import WORDS, PairKey, VerdictFile, judged, read_verdicts

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """One row of the tables: what was judged of a part of the set, and its shares."""

    part: str
    num_pairs: int
    num_judged: int
    purity: Estimate
    drift: Estimate
    not_an_animal: Estimate


@dataclass(frozen=True)
class AuditResult:
    """What the verdicts come to.

    Attributes:
        sheet: Id of the sheet.
        pairs: Digest of the pair set.
        reviewers: Who judged.
        median_seconds: How long each of them looked at a pair, in the median.
        num_drawn: Pairs on the sheet.
        counts: Pairs by verdict, several reviewers taken together.
        whole: The whole set. ``purity``: share of *same* among the pairs that could be told; ``drift``: of *different*
            among those that both show animals; ``not_an_animal``: share of those where a side shows none.
        purity_unsure_wrong: Purity if every unsure pair were wrong.
        parts: The same by axis: density, gap_s, iou; axes that did not cut the set are left out.
        agreements: Of every two reviewers.
        recommendation: Stricter settings, see ``rules.recommend``.
        notes: What a reader must know.
    """

    sheet: str
    pairs: str
    reviewers: list[str]
    median_seconds: list[float]
    num_drawn: int
    counts: dict[str, int]
    whole: Share
    purity_unsure_wrong: float | None
    parts: dict[str, list[Share]]
    agreements: list[Agreement]
    recommendation: dict[str, Any]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Flat where it can be; intervals as ``<key>_low`` and ``<key>_high``."""
        return {
            "sheet": self.sheet,
            "pairs": self.pairs,
            "reviewers": self.reviewers,
            "median_seconds": self.median_seconds,
            "num_drawn": self.num_drawn,
            **{f"num_{word}": count for word, count in self.counts.items()},
            **_flat(self.whole),
            "purity_unsure_wrong": self.purity_unsure_wrong,
            "parts": {axis: [_flat(row) for row in rows] for axis, rows in self.parts.items()},
            "agreements": [asdict(one) for one in self.agreements],
            "recommendation": self.recommendation,
            "notes": self.notes,
        }


def read_audit(config: Config, store: Store, files: Sequence[str]) -> AuditResult:
    """Read verdict files of one sheet.

    Args:
        config: ``audit.target_purity`` is used.
        store: The store that the sheet was drawn from.
        files: Paths, one of each reviewer.

    Raises:
        DataError: A file is damaged, of another sheet or store, or two are of one reviewer.
    """
    read = [read_verdicts(path) for path in files]
    record = read_record(store, read[0].sheet)
    _check(record, read)
    verdicts = judged(read)
    if not verdicts:
        raise DataError(f"{', '.join(files)}: no pair was judged yet.")
    sample, words = _sample(record, verdicts)
    whole = _share("all", sample, words, np.ones(len(record.size), dtype=bool))
    everything = sample.counts(np.ones(len(words), dtype=bool))
    return AuditResult(
        sheet=record.sheet,
        pairs=record.pairs,
        reviewers=[file.reviewer for file in read],
        median_seconds=[float(np.median(list(file.seconds.values()) or [0.0])) for file in read],
        num_drawn=len(record.drawn),
        counts={word: int((words == word).sum()) for word in WORDS},
        whole=whole,
        purity_unsure_wrong=estimate(sample.size, everything, everything, sample.counts(words == "same")).value,
        parts=_parts(record, sample, words),
        agreements=[agreement(one, other) for one, other in itertools.combinations(read, 2)],
        recommendation=recommend(record.rules, sample, config.audit.target_purity),
        notes=[*_notes(record, sample, words), *_changed(read)],
    )


def _check(record: Record, files: Sequence[VerdictFile]) -> None:
    on_sheet = {(int(one.anchor_id), int(one.positive_id)) for one in record.drawn}
    names: dict[str, str] = {}
    for file in files:
        if file.sheet != record.sheet:
            raise DataError(
                f"{file.path} judges the sheet {file.sheet}, {files[0].path} the sheet {record.sheet}: read them apart."
            )
        if file.pairs != record.pairs:
            raise DataError(f"{file.path} is about the pairs {file.pairs}, its sheet was drawn from {record.pairs}.")
        strange = next((key for key in file.verdicts if key not in on_sheet), None)
        if strange is not None:
            raise DataError(
                f"{file.path} judges the pair {strange[0]}, {strange[1]}, which is not on the sheet {record.sheet}."
            )
        name = file.reviewer.casefold()
        if name in names:
            raise DataError(f"{names[name]} and {file.path} are both of {file.reviewer!r}: give the one saved last.")
        names[name] = file.path


def _sample(record: Record, verdicts: Mapping[PairKey, str]) -> tuple[Sample, npt.NDArray[np.str_]]:
    """The judged pairs, and the verdict on each."""
    drawn = [one for one in record.drawn if (int(one.anchor_id), int(one.positive_id)) in verdicts]
    words = np.array([verdicts[int(one.anchor_id), int(one.positive_id)] for one in drawn])
    sample = Sample(
        size=np.array(record.size, dtype=np.int64),
        code=np.array([one.stratum for one in drawn], dtype=np.int64),
        same=np.asarray(words == "same"),
        told=np.asarray(words != "unsure"),
        facts={name: np.array([one.facts[name] for one in drawn], dtype=np.float64) for name in FACTS},
    )
    return sample, words


def _share(part: str, sample: Sample, words: npt.NDArray[np.str_], strata: Bool) -> Share:
    """Shares of the part of the set that some strata are."""
    size = sample.size[strata]
    judged_pairs = sample.counts(np.ones(len(words), dtype=bool))[strata]

    def share(hits: tuple[str, ...], members: tuple[str, ...]) -> Estimate:
        counted, right = (sample.counts(np.isin(words, list(chosen)))[strata] for chosen in (members, hits))
        return estimate(size, judged_pairs, counted, right)

    return Share(
        part=part,
        num_pairs=int(size.sum()),
        num_judged=int(judged_pairs.sum()),
        purity=share(("same",), ("same", "different", "not_an_animal")),
        drift=share(("different",), ("same", "different")),
        not_an_animal=share(("not_an_animal",), ("same", "different", "not_an_animal")),
    )


def _parts(record: Record, sample: Sample, words: npt.NDArray[np.str_]) -> dict[str, list[Share]]:
    parts = {}
    for axis in AXES:
        names = [label.get(axis, "") for label in record.labels]
        found = list(dict.fromkeys(names))
        # strata come in ascending order of density alone; within it classes of the other axes may be missing
        order = sorted(found, key=lambda name: _least(record, axis, name))
        if len(found) > 1:
            parts[axis] = [_share(name, sample, words, np.array([one == name for one in names])) for name in order]
    return parts


def _least(record: Record, axis: str, name: str) -> float:
    """The least value of an axis in a class, among the pairs drawn: every stratum gave some."""
    return min(one.facts[axis] for one in record.drawn if record.labels[one.stratum].get(axis) == name)


def _changed(files: Sequence[VerdictFile]) -> list[str]:
    return [
        f"{file.num_changed} verdicts of {file.reviewer!r} were changed after what is known of the pair was shown."
        for file in files
        if file.num_changed
    ]


def _notes(record: Record, sample: Sample, words: npt.NDArray[np.str_]) -> list[str]:
    notes = []
    if len(words) < len(record.drawn):
        notes.append(f"{len(record.drawn) - len(words)} of {len(record.drawn)} pairs are not judged yet.")
    unseen = sample.size[sample.counts(np.ones(len(words), dtype=bool)) == 0]
    if unseen.sum():
        notes.append(
            f"{len(unseen)} of {len(sample.size)} strata, {unseen.sum() / sample.size.sum():.1%} of the pairs, have no "
            f"verdict yet: the figures leave them out."
        )
    unsure = int((words == "unsure").sum())
    if unsure:
        notes.append(f"{unsure} pairs are unsure, or reviewers contradict each other on them: they count neither way.")
    if record.num_without_crops:
        notes.append(f"{record.num_without_crops:,} pairs of the set had no crops: nothing is said of them.")
    return notes


def _flat(share: Share) -> dict[str, Any]:
    flat: dict[str, Any] = {"part": share.part, "num_pairs": share.num_pairs, "num_judged": share.num_judged}
    for name in ("purity", "drift", "not_an_animal"):
        one: Estimate = getattr(share, name)
        flat |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return flat

"""Which animal each detection shows, by the truth that somebody knows of the footage.

In: detections, and truth: a MOT ground-truth file, or ``truth/boxes.parquet`` of a simulated reserve. Out: for every
detection the row of the truth that it shows, one-to-one within each frame by optimal assignment, so that of two boxes
on one animal only one is its. What finds no partner is counted on both sides. The alternative, each box's best
overlap, would let one animal answer for a whole herd of boxes.

A reviewer's verdicts (``wildray.verdicts``) say of a *pair* whether it is right and know no identities: they enter one
step later, as ``purity.JudgedPairs.verdict``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wildray.errors import DataError
from wildray.mining.detectors.mot_file import read_mot
from wildray.mining.detectors.results_file import SCHEME
from wildray.mining.linkers import assigned, overlapping

Int64 = npt.NDArray[np.int64]

TRUTH = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),  # the medium, as the truth spells it
        pa.field("frame_index", pa.int64(), nullable=False),  # from 0
        pa.field("identity", pa.string(), nullable=False),
        pa.field("x1_px", pa.float64(), nullable=False),
        pa.field("y1_px", pa.float64(), nullable=False),
        pa.field("x2_px", pa.float64(), nullable=False),
        pa.field("y2_px", pa.float64(), nullable=False),
    ]
)
CORNERS = ("x1_px", "y1_px", "x2_px", "y2_px")
MIN_IOU = 0.3
"""Least overlap of a detection with the animal it shows. Less than the usual 0.5 of tracking, since a motion detector
boxes the part of an animal that moves; more than ``mine.min_iou``, or in a crowd any box would be somebody's."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of some media.

    Attributes:
        boxes: Rows of schema ``TRUTH``, of animals only.
        folders: Folders (cameras) that the truth covers whole: a file in one that it says nothing of shows no animal.
        digest: 16 hex digits, of the files' bytes.
        sources: The files' paths, for messages.
    """

    boxes: pa.Table
    folders: frozenset[str]
    digest: str
    sources: tuple[str, ...]

    def files_of(self, media: pa.Table, *, partial: bool = False) -> dict[str, str]:
        """The truth's name for each medium.

        A MOT file tells of the medium of its own name (``pond_gt_mot.txt`` of ``pond.mp4``, and of itself taken as
        detections); the truth of a reserve names camera and file.

        Args:
            media: Media rows (columns media_id, uri).
            partial: Whether media of which nothing is known are left out instead of refused.

        Raises:
            DataError: Nothing is known of a medium (or, with ``partial``, of any).
        """
        known = set(pc.unique(self.boxes["file"]).to_pylist())
        names: dict[str, str] = {}
        unknown = []
        for row in media.select(["media_id", "uri"]).to_pylist():
            name = self._name(row["uri"], known)
            if name is None:
                unknown.append(row["uri"])
            else:
                names[row["media_id"]] = name
        if unknown and (not partial or not names):
            told = ", ".join(sorted(known)[:3]) + (", ..." if len(known) > 3 else "")
            raise DataError(
                f"No truth for {len(unknown)} of {media.num_rows} media, such as {unknown[0]}. "
                f"{', '.join(self.sources)} tell of {told}. Give the truth of these media as further --truth FILE"
                + (", or judge the others alone with --partial." if names else ".")
            )
        return names

    def _name(self, uri: str, known: set[str]) -> str | None:
        # an address results:<digest>/<name> ends with the name that the results file gives the medium
        parts = PurePath(uri.removeprefix(SCHEME)).parts
        beside = "/".join(parts[-2:])
        for name in (beside, parts[-1], PurePath(parts[-1]).stem):
            if name in known:
                return name
        return beside if len(parts) > 1 and parts[-2] in self.folders else None


def read_truth(paths: Sequence[str | Path]) -> Truth:
    """Read truth files.

    Args:
        paths: MOT ground truth (``.txt``) or boxes of a simulated reserve (``.parquet``), of different media.

    Raises:
        DataError: None was given, one cannot be read or lacks a column, or two tell of one medium.
    """
    if not paths:
        raise DataError("No truth was given: name MOT ground-truth files, or truth/boxes.parquet of a reserve.")
    tables: list[pa.Table] = []
    folders: set[str] = set()
    seen: dict[str, Path] = {}
    digest = hashlib.blake2b(digest_size=8)
    for path in (Path(given).expanduser() for given in paths):
        if path.suffix.lower() == ".parquet":
            table, covered = _reserve_boxes(path)
            folders |= covered
        elif path.suffix.lower() == ".txt":
            table = _mot_boxes(path)
        else:
            raise DataError(
                f"{path}: got truth of the unknown kind {path.suffix!r}. Expected MOT ground truth (.txt) or the boxes "
                "of a simulated reserve (truth/boxes.parquet)."
            )
        for name in pc.unique(table["file"]).to_pylist():
            if seen.setdefault(name, path) != path:
                raise DataError(f"Both {seen[name]} and {path} tell of {name}. Give one of them.")
        digest.update(_content(table))
        tables.append(table)
    return Truth(pa.concat_tables(tables), frozenset(folders), digest.hexdigest(), tuple(map(str, paths)))


def _content(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TRUTH) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.blake2b(sink.getvalue(), digest_size=16).digest()


def _mot_boxes(path: Path) -> pa.Table:
    truth = read_mot(path.absolute())
    names = pa.array([truth.name] * len(truth.identity), pa.string())
    identity = pa.array([f"{truth.name}:{number}" for number in truth.identity.tolist()], pa.string())
    corners = [pa.array(corner) for corner in truth.xyxy_px.T]
    return pa.table([names, pa.array(truth.frame_index), identity, *corners], schema=TRUTH)


def _reserve_boxes(path: Path) -> tuple[pa.Table, set[str]]:
    """Boxes of animals, and the cameras of the reserve; distractors (``mot_id`` 0) are no animals."""
    wanted = [*TRUTH.names, "mot_id"]
    try:
        names = pq.read_schema(path).names
        lacking = [name for name in wanted if name not in names]
        if lacking:
            raise DataError(
                f"{path} has no column {', '.join(lacking)}; it has {', '.join(names[:12]) or 'none'}. Expected "
                "truth/boxes.parquet as 'wildray simulate' writes it."
            )
        table = pq.read_table(path, columns=wanted)
        boxes = table.filter(pc.greater(table["mot_id"], 0)).select(TRUTH.names).cast(TRUTH)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as a table of true boxes: {error}.") from None
    return boxes, {PurePath(name).parent.name for name in pc.unique(table["file"]).to_pylist()}


@dataclass(frozen=True, eq=False)
class Matching:
    """Detections and the true boxes that they show.

    Attributes:
        place: (N,) int64, row of ``Truth.boxes`` that each detection shows; -1 where none.
        covered: (N,) bool, whether anything is known of the detection's medium.
        num_animals: (N,) int64, true boxes in the detection's frame.
        num_unmatched_detections: Detections in covered media that show no animal.
        num_truth: True boxes in the frames that were looked at.
        num_unmatched_truth: Those of them that no detection shows.
    """

    place: Int64
    covered: npt.NDArray[np.bool_]
    num_animals: Int64
    num_unmatched_detections: int
    num_truth: int
    num_unmatched_truth: int


def match(
    detections: pa.Table,
    truth: pa.Table,
    files: Mapping[str, str],
    *,
    frames: pa.Table | None = None,
    min_iou: float = MIN_IOU,
) -> Matching:
    """Give each detection the true box that it shows: per frame one-to-one, of the largest total overlap.

    Args:
        detections: (N,) rows with media_id, frame_index, corners and, where boxes may be relative, width_px, height_px.
        truth: Rows of schema ``TRUTH``.
        files: Media ids to the truth's names (``Truth.files_of``); detections of other media match nothing.
        frames: The frames that were looked at (columns media_id, frame_index), in which unmatched truth is counted;
            default those that have a detection.
        min_iou: Least overlap of a match, in (0, 1].

    Raises:
        DataError: Boxes are relative to frames of unknown size, and so cannot be laid over pixels.
    """
    codes = _Codes(files, truth)
    key = codes.of_media(detections["media_id"], detections["frame_index"])
    true_key = codes.of_files(truth["file"], truth["frame_index"])
    looked = key if frames is None else codes.of_media(frames["media_id"], frames["frame_index"])
    seen = np.flatnonzero(np.isin(true_key, looked[looked >= 0]))
    own = np.flatnonzero(key >= 0)
    _check_pixels(detections, own)
    place = np.full(len(key), -1, dtype=np.int64)
    keys, group = np.unique(np.concatenate([true_key[seen], key[own]]), return_inverse=True)
    # frame 2k holds the true boxes of key k, frame 2k + 1 the detections
    frame = 2 * group + np.repeat([0, 1], [len(seen), len(own)])
    order = np.argsort(frame, kind="stable")
    xyxy = np.concatenate([_corners(truth)[:, seen], _corners(detections)[:, own]], axis=1)[:, order]
    starts = np.searchsorted(frame[order], np.arange(2 * len(keys) + 1)).astype(np.int64)
    even = 2 * np.arange(len(keys))
    same_kind = np.zeros(len(order), dtype=np.int64)
    links = overlapping(xyxy, same_kind, starts, first_frame=even, second_frame=even + 1)
    links = assigned(links, min_iou=min_iou, min_margin=0.0)
    matched = own[order[links.second] - len(seen)]
    place[matched] = seen[order[links.first]]
    counts = np.bincount(group[: len(seen)], minlength=len(keys))
    num_animals = np.zeros(len(key), dtype=np.int64)
    num_animals[own] = counts[group[len(seen) :]]
    return Matching(
        place=place,
        covered=key >= 0,
        num_animals=num_animals,
        num_unmatched_detections=len(own) - len(matched),
        num_truth=len(seen),
        num_unmatched_truth=len(seen) - len(matched),
    )


class _Codes:
    """One number for each (file, frame), the same for truth and detections."""

    def __init__(self, files: Mapping[str, str], truth: pa.Table) -> None:
        names = sorted(set(files.values()) | set(pc.unique(truth["file"]).to_pylist()))
        self._number = {name: number for number, name in enumerate(names)}
        self._media = {media: self._number[name] for media, name in files.items()}
        self._span = 1 << 32  # more than any frame index

    def of_media(self, media: pa.ChunkedArray, frame: pa.ChunkedArray) -> Int64:
        return self._codes(self._media, media, frame)

    def of_files(self, files: pa.ChunkedArray, frame: pa.ChunkedArray) -> Int64:
        return self._codes(self._number, files, frame)

    def _codes(self, numbers: Mapping[str, int], names: pa.ChunkedArray, frame: pa.ChunkedArray) -> Int64:
        coded = names.combine_chunks().dictionary_encode()
        of_code = np.array([numbers.get(name, -1) for name in coded.dictionary.to_pylist()], dtype=np.int64)
        number = of_code[coded.indices.to_numpy()] if len(coded) else np.zeros(0, dtype=np.int64)
        codes: Int64 = np.where(number >= 0, number * self._span + frame.to_numpy().astype(np.int64), -1)
        return codes


def _corners(table: pa.Table) -> npt.NDArray[np.float64]:
    return np.stack([table[name].to_numpy() for name in CORNERS]).astype(np.float64)


def _check_pixels(detections: pa.Table, rows: Int64) -> None:
    if "width_px" not in detections.column_names or not len(rows):
        return
    if detections["width_px"].take(pa.array(rows)).null_count:
        raise DataError(
            "The boxes of these detections are relative to frames of unknown size, the truth is in pixels. Run detect "
            "again with --detect.frame-size WIDTHxHEIGHT."
        )


def identity_codes(truth: pa.Table, place: Iterable[int] | Int64) -> Int64:
    """(N,) a number for the identity of each matched detection, equal for equal identities; -1 where there is none."""
    place = np.asarray(place, dtype=np.int64)
    codes = truth["identity"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    result = np.full(len(place), -1, dtype=np.int64)
    result[place >= 0] = codes[place[place >= 0]]
    return result

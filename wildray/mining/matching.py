"""Which animal each detection shows, by the truth.

In: detections and true boxes. Out: ``Matching``: for every detection the true box that it shows, one-to-one within each
frame by optimal assignment, so that of two boxes on one animal only one is its. What finds no partner is counted on
both sides; a box that is clearly a part of one animal is told from one that shows none. The alternative, each box's
best overlap, would let one animal answer for a whole herd of boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import DataError
from wildray.mining.linkers import Links, assigned, overlapping
from wildray.mining.truth import CORNERS

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

MIN_IOU = 0.3
"""Least overlap of a detection with the animal it shows. Less than the usual 0.5 of tracking, since a motion detector
boxes the part of an animal that moves; more than ``mine.min_iou``, or in a crowd any box would be somebody's."""
PART = 0.5
"""Share of a box that lies inside a true box, from which on it shows a part of that animal."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Detections and the true boxes that they show.

    Attributes:
        place: (N,) int64, row of ``Truth.boxes`` that each detection shows; -1 where none.
        part: (N,) int64, row of the one true box in which an unmatched detection lies by half or more: a detector of
            motion may find an animal's head and its legs. -1 where there is none, or several.
        covered: (N,) bool, whether anything is known of the detection's medium.
        num_animals: (N,) int64, true boxes in the detection's frame.
        num_unmatched_detections: Detections in covered media that match no true box, parts of animals too.
        num_truth: True boxes in the frames that were looked at.
        num_unmatched_truth: Those of them that no detection shows.
    """

    place: Int64
    part: Int64
    covered: npt.NDArray[np.bool_]
    num_animals: Int64
    num_unmatched_detections: int
    num_truth: int
    num_unmatched_truth: int

    @property
    def num_parts(self) -> int:
        """Detections that show a part of an animal."""
        return int((self.part >= 0).sum())

    @property
    def shown(self) -> Int64:
        """(N,) int64, row of the true box that each detection shows, whole or in part; -1 where none."""
        return np.where(self.place >= 0, self.place, self.part)


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
    touching = overlapping(xyxy, same_kind, starts, first_frame=even, second_frame=even + 1)
    links = assigned(touching, min_iou=min_iou, min_margin=0.0)
    matched = own[order[links.second] - len(seen)]
    place[matched] = seen[order[links.first]]
    part = np.full(len(key), -1, dtype=np.int64)
    inner, outer = _parts(touching, links, xyxy)
    part[own[order[inner] - len(seen)]] = seen[order[outer]]
    counts = np.bincount(group[: len(seen)], minlength=len(keys))
    num_animals = np.zeros(len(key), dtype=np.int64)
    num_animals[own] = counts[group[len(seen) :]]
    return Matching(
        place=place,
        part=part,
        covered=key >= 0,
        num_animals=num_animals,
        num_unmatched_detections=len(own) - len(matched),
        num_truth=len(seen),
        num_unmatched_truth=len(seen) - len(matched),
    )


def _parts(touching: Links, matched: Links, xyxy: Float64) -> tuple[Int64, Int64]:
    """Rows of unmatched detections that lie in one true box alone by ``PART`` or more, and rows of that box."""
    free = np.ones(xyxy.shape[1], dtype=bool)
    free[matched.second] = False
    a, b = xyxy[:, touching.first], xyxy[:, touching.second]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    inside = free[touching.second] & (width * height >= PART * (b[2] - b[0]) * (b[3] - b[1]))
    outer, inner = touching.first[inside], touching.second[inside]
    alone = np.bincount(inner, minlength=xyxy.shape[1])[inner] == 1
    return inner[alone], outer[alone]


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


def _corners(table: pa.Table) -> Float64:
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

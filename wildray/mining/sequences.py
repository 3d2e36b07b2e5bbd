"""Which media belong together in time.

In: the Media rows of a collection, and the frames that were looked at. Out: a sequence for every file, and the frames
ordered along the sequences. A *sequence* is the videos and stills of one camera that follow each other by less than
``mine.sequence_gap`` in absolute time, so that an interval of minutes exists across files. A file without a trustworthy
clock is a sequence of its own. Times are whole microseconds throughout (``intervals`` says why). The alternative,
taking a folder for a sequence, joins whatever a card holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.errors import DataError
from wildray.schema import TRUSTED_CLOCKS, hash64

Int64 = npt.NDArray[np.int64]

SEQUENCES = pa.schema(
    [
        pa.field("media_id", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("sequence_id", pa.int64(), nullable=False),
        pa.field("start_us", pa.int64(), nullable=False),  # since 1970, UTC; 0 where there is no trusted clock
        pa.field("has_clock", pa.bool_(), nullable=False),
        pa.field("stretch", pa.int64(), nullable=False),  # from 0, ascending; see STRETCH
    ]
)
"""What ``assign_sequences`` gives: a row per file, ordered by camera, sequence and time."""

STRETCH = 1024
"""A camera's sequences are weighed against each other, for what is static, in stretches of at most so many."""


def assign_sequences(media: pa.Table, *, gap_s: float) -> pa.Table:
    """Put every file into a sequence.

    Two files of a camera are of one sequence where the later begins less than ``gap_s`` after the end of all before
    it. A file without ``captured_at``, or whose ``clock_flag`` says that the clock was reset or went backwards, joins
    no other: a wrong clock would put animals of different days side by side.

    Args:
        media: Media rows (columns media_id, uri, camera_id, captured_at, clock_flag, duration_s), in any order. Of
            several rows of one file the first in order of uri counts.
        gap_s: Time without footage that ends a sequence, in seconds.

    Returns:
        Schema ``SEQUENCES``. The id of a sequence is a hash of its camera and its first file.
    """
    has_clock = pc.and_(pc.is_valid(media["captured_at"]), pc.is_in(media["clock_flag"], pa.array(TRUSTED_CLOCKS)))
    start_us = pc.if_else(has_clock, pc.cast(media["captured_at"], pa.int64()), 0)
    table = pa.table(
        {
            "media_id": media["media_id"],
            "camera_id": media["camera_id"],
            "uri": media["uri"],
            "has_clock": pc.fill_null(has_clock, False),
            "start_us": pc.fill_null(start_us, 0),
            "duration_s": pc.fill_null(media["duration_s"], 0.0),
        }
    )
    table = table.sort_by([(name, "ascending") for name in ("camera_id", "has_clock", "start_us", "uri", "media_id")])
    table = table.filter(pa.array(_first_of_each(table["media_id"].to_pylist()), pa.bool_()))
    start = _numpy(table["start_us"]).astype(np.int64)
    clock = _numpy(table["has_clock"]).astype(bool)
    cameras = pc.dictionary_encode(table["camera_id"].combine_chunks()).indices.to_numpy(zero_copy_only=False)
    end = start + np.rint(_numpy(table["duration_s"]).astype(np.float64) * 1e6).astype(np.int64)
    begins = np.ones(len(start), dtype=bool)
    gap_us = round(gap_s * 1e6)
    for first, last in _runs(cameras):
        latest_end = np.maximum.accumulate(end[first:last])
        joined = clock[first + 1 : last] & clock[first : last - 1]
        begins[first + 1 : last] = ~(joined & (start[first + 1 : last] - latest_end[:-1] < gap_us))
    heads = np.flatnonzero(begins)
    begun = table.select(["camera_id", "media_id"]).take(pa.array(heads)).to_pylist()
    stretch = _stretches(cameras[heads])
    ids = np.array([hash64(("sequence", row["camera_id"], row["media_id"])) for row in begun], dtype=np.int64)
    number = np.cumsum(begins) - 1
    columns = [pa.array(ids[number]), pa.array(start), pa.array(clock), pa.array(stretch[number])]
    return pa.table([table["media_id"], table["camera_id"], *columns], schema=SEQUENCES)


def _stretches(cameras: npt.NDArray[np.generic]) -> Int64:
    """(S,) int64, stretch of each sequence: a camera's are cut evenly into parts of at most ``STRETCH``."""
    stretch = np.zeros(len(cameras), dtype=np.int64)
    used = 0
    for first, last in _runs(cameras):
        parts = -(-(last - first) // STRETCH)
        stretch[first:last] = used + np.arange(last - first) * parts // (last - first)
        used += parts
    return stretch


@dataclass(frozen=True)
class Frames:
    """The frames of some sequences that were looked at, empty ones too, ordered by sequence, time, file and index.

    Attributes:
        media: (F,) int64, row of the file in a table of schema ``SEQUENCES``.
        sequence: (F,) int64, number of the sequence in that table, from 0.
        frame_index: (F,) int64, index within the file.
        time_us: (F,) int64, absolute time in microseconds (from the file's start where it has no clock).
        base: (F,) bool, whether the frame is of the base pass and not of a denser one.
        starts: (S + 1,) int64, sequence s holds the frames ``starts[s]`` to ``starts[s + 1]``.
    """

    media: Int64
    sequence: Int64
    frame_index: Int64
    time_us: Int64
    base: npt.NDArray[np.bool_]
    starts: Int64

    def __len__(self) -> int:
        return len(self.media)

    @classmethod
    def of(cls, frames: pa.Table, sequences: pa.Table) -> Frames:
        """Order Frame rows along the sequences; frames of files that are in no sequence are left out.

        Args:
            frames: Frame rows (columns media_id, frame_index, time_s, sampling_pass), in any order; a frame that two
                passes looked at counts once.
            sequences: Schema ``SEQUENCES``.
        """
        media = rows_of(frames["media_id"], sequences["media_id"])
        known = media >= 0
        media = media[known]
        index = _numpy(frames["frame_index"]).astype(np.int64)[known]
        time_s = _numpy(frames["time_s"]).astype(np.float64)[known]
        sampling_pass = _numpy(frames["sampling_pass"]).astype(np.int64)[known]
        number = sequence_numbers(sequences)
        sequence = number[media]
        time_us = _numpy(sequences["start_us"]).astype(np.int64)[media] + np.rint(time_s * 1e6).astype(np.int64)
        order = np.lexsort((sampling_pass, index, media, time_us, sequence))
        media, index = media[order], index[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (media[1:] != media[:-1]) | (index[1:] != index[:-1])
        order, media, index = order[first], media[first], index[first]
        num_sequences = int(number[-1]) + 1 if len(number) else 0
        starts = np.searchsorted(sequence[order], np.arange(num_sequences + 1)).astype(np.int64)
        return cls(media, sequence[order], index, time_us[order], sampling_pass[order] == 0, starts)

    def find(self, media: Int64, frame_index: Int64) -> Int64:
        """(N,) number of the frame of each (file row, index).

        Raises:
            DataError: A box stands on a frame that was not looked at.
        """
        span = int(max(self.frame_index.max(initial=0), frame_index.max(initial=0))) + 1
        keys = self.media * span + self.frame_index
        order = np.argsort(keys)
        wanted = media * span + frame_index
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(len(keys) - 1, 0))
        if len(wanted) and (not len(keys) or not np.array_equal(keys[order[place]], wanted)):
            raise DataError("A box stands on a frame that is not in the table of frames: run detect again.")
        return order[place] if len(wanted) else np.zeros(0, dtype=np.int64)


def sequence_numbers(sequences: pa.Table) -> Int64:
    """(M,) int64, the number of each file's sequence in a table of schema ``SEQUENCES``, from 0 in its order."""
    ids = _numpy(sequences["sequence_id"]).astype(np.int64)
    changes = np.ones(len(ids), dtype=np.int64)
    changes[1:] = ids[1:] != ids[:-1]
    return np.cumsum(changes) - 1


def group_medians(values: npt.NDArray[np.generic], groups: Int64, num_groups: int) -> npt.NDArray[np.float64]:
    """(G,) float64, the median of each group's values; NaN for groups without any.

    Args:
        values: (N,) numbers.
        groups: (N,) group of each, from 0.
        num_groups: G.
    """
    medians = np.full(num_groups, np.nan)
    order = np.lexsort((values, groups))
    ranked = values[order].astype(np.float64)
    counts = np.bincount(groups, minlength=num_groups)
    heads = np.cumsum(counts) - counts
    some = counts > 0
    low, high = (heads + (counts - 1) // 2)[some], (heads + counts // 2)[some]
    medians[some] = (ranked[low] + ranked[high]) / 2
    return medians


def rows_of(values: pa.ChunkedArray, known: pa.ChunkedArray) -> Int64:
    """(N,) int64, row of each value among the known; -1 where it is not there."""
    rows = pc.fill_null(pc.index_in(values, value_set=known.combine_chunks()), -1)
    return _numpy(rows).astype(np.int64)


def _first_of_each(values: list[str]) -> list[bool]:
    """Whether each value is the first of its kind."""
    seen: set[str] = set()
    first = []
    for value in values:
        first.append(value not in seen)
        seen.add(value)
    return first


def _runs(codes: npt.NDArray[np.generic]) -> list[tuple[int, int]]:
    """(first, end) of each stretch of equal codes."""
    edges = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.zeros(0, dtype=np.int64)
    return list(zip(edges.tolist(), [*edges[1:].tolist(), len(codes)], strict=True)) if len(codes) else []


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    return np.asarray(column.to_numpy())

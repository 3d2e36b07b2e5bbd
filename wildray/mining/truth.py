"""What is known of footage: which individual stood where in every frame.

In: MOT ground-truth files, or ``truth/boxes.parquet`` of a simulated reserve. Out: one table of true boxes, and which
of its files each medium of a collection is. ``matching`` lays detections over it. The alternative, a reader in every
place that needs truth, would match names and boxes in as many ways.

A reviewer's verdicts (``wildray.verdicts``) say of a *pair* whether it is right and know no identities: they enter
later, as ``purity.JudgedPairs.verdict``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wildray.errors import DataError
from wildray.mining.detectors.mot_file import read_mot
from wildray.mining.detectors.results_file import SCHEME

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
        known = {name: name for name in pc.unique(self.boxes["file"]).to_pylist()}
        # MOT files of a reserve's clips have the clips' names, but for the ending
        known = {str(PurePath(name).with_suffix("")): name for name in known} | known
        names: dict[str, str] = {}
        unknown = []
        for row in media.select(["media_id", "uri"]).to_pylist():
            name = self._name(row["uri"], known)
            if name is None:
                unknown.append(row["uri"])
            else:
                names[row["media_id"]] = name
        if unknown and (not partial or not names):
            files = sorted(set(known.values()))
            told = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
            raise DataError(
                f"No truth for {len(unknown)} of {media.num_rows} media, such as {unknown[0]}. "
                f"{', '.join(self.sources)} tell of {told}. Give the truth of these media as further --truth FILE"
                + (", or judge the others alone with --partial." if names else ".")
            )
        return names

    def _name(self, uri: str, known: Mapping[str, str]) -> str | None:
        # an address results:<digest>/<name> ends with the name that the results file gives the medium
        parts = PurePath(uri.removeprefix(SCHEME)).parts
        beside = "/".join(parts[-2:])
        for name in (beside, parts[-1], PurePath(parts[-1]).stem):
            if name in known:
                return known[name]
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

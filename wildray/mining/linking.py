"""The linkers as a setting chooses them: links between two boxes one interval apart, of those that may be paired.

In: detections ordered by frame, the frames looked at, the settings. Out: links, each with the number of its tracklet.
``direct`` and ``assigned`` compare the two frames of a pair; ``chained`` follows animals through the frames between and
pairs what one tracklet holds, so that two boxes of a pair need not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.config import MineConfig
from wildray.mining.colour import colour_arrays
from wildray.mining.following import Measure, Rules, Sightings
from wildray.mining.intervals import frame_pairs
from wildray.mining.linkers import Bool, Float64, Int64, Links, aligned_iou, assigned, direct, overlapping, seen_twice
from wildray.mining.sequences import Frames
from wildray.mining.tracklets import chained, components, settled, weakest

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Linked:
    """Links between rows of a table of detections.

    Attributes:
        links: The links.
        tracklet_id: (L,) int64, equal for links of one animal that was followed: the smallest detection id of the boxes
            that hang together. An id is a hash, so equal pairs have equal tracklets whatever else is mined with them.
    """

    links: Links
    tracklet_id: Int64


@dataclass(frozen=True)
class Looks:
    """What boxes look like, where colours are not to be used.

    Attributes:
        values: (N, C) float32, NaN where unknown.
        measure: How far they are apart.
    """

    values: Float32
    measure: Measure


def link(
    detections: pa.Table, xyxy: Float32, frame: Int64, looked: Frames, config: MineConfig, looks: Looks | None = None
) -> Linked:
    """Links between the boxes of every two frames that stand one interval apart.

    Args:
        detections: (N,) rows that may be paired, ordered by frame.
        xyxy: (4, N) float32 their corners.
        frame: (N,) their frames.
        looked: What was looked at.
        config: The mining settings.
        looks: Looks of the boxes; default their colours.
    """
    category = pc.dictionary_encode(detections["category"].combine_chunks()).indices.to_numpy().astype(np.int64)
    corners = xyxy.astype(np.float64)
    rows, company = np.arange(len(frame)), np.zeros(len(frame), dtype=bool)
    if config.linker != "direct":
        starts = _starts(frame, looked)
        doubled, company = seen_twice(corners, category, detections["score"].to_numpy().astype(np.float32), starts)
        rows = np.flatnonzero(~doubled)
    corners, category, of_frame = corners[:, rows], category[rows], frame[rows]
    ids = detections["detection_id"].to_numpy().astype(np.int64)[rows]
    pairs = frame_pairs(looked, config.interval, decreasing=config.gaps == "decreasing")
    if config.linker == "chained":
        if looks is None:
            looks = _colours(detections, used=config.look_weight > 0)
        boxes = Sightings(
            corners, category, looks.values[rows], looks.measure, of_frame, *_runs(looked, config.link_gap.seconds)
        )
        found = _of_tracklets(boxes, ids, company[rows], pairs, config)
    else:
        links = overlapping(corners, category, _starts(of_frame, looked), first_frame=pairs[0], second_frame=pairs[1])
        if config.linker == "assigned":
            links = assigned(links, min_iou=config.min_iou, min_margin=config.min_margin)
        else:
            links = direct(links, min_iou=config.min_iou)
        found = Linked(links, _connected(ids, links))
    if config.max_animals is not None:
        few = np.bincount(of_frame, minlength=len(looked)) <= config.max_animals
        keep = few[of_frame[found.links.first]] & few[of_frame[found.links.second]]
        found = Linked(found.links.where(keep), found.tracklet_id[keep])
    links = found.links
    return Linked(Links(links.group, rows[links.first], rows[links.second], links.iou, links.margin), found.tracklet_id)


def _of_tracklets(
    boxes: Sightings, ids: Int64, company: Bool, frames: tuple[Int64, Int64], config: MineConfig
) -> Linked:
    """Pairs of the boxes that tracklets hold in paired frames."""
    rules = Rules(config.min_iou, config.min_margin, config.look_weight, config.max_missed)
    chains = chained(boxes, rules)
    tracklet = settled(boxes, chains.chain, company) if config.look_weight else chains.chain
    num_frames = len(boxes.run)
    later = np.full(num_frames, -1, dtype=np.int64)
    later[frames[0]] = frames[1]
    keys = tracklet * num_frames + boxes.frame
    order = np.argsort(keys)
    first = np.flatnonzero(later[boxes.frame] >= 0)
    wanted = tracklet[first] * num_frames + later[boxes.frame[first]]
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(len(keys) - 1, 0))
    second = order[place] if len(keys) else first
    there = keys[second] == wanted
    first, second = first[there], second[there]
    links = Links(
        group=boxes.frame[first],
        first=first,
        second=second,
        iou=aligned_iou(boxes.xyxy[:, first], boxes.xyxy[:, second]).astype(np.float64),
        margin=weakest(chains.chain, boxes.frame, chains.margin, first, second).astype(np.float64),
    )
    return Linked(links, _smallest(ids, tracklet)[first])


def _connected(ids: Int64, links: Links) -> Int64:
    """(L,) smallest detection id of the boxes that hang together by the links."""
    used, node = np.unique(np.concatenate([links.first, links.second]), return_inverse=True)
    part = components(node[: len(links)], node[len(links) :], len(used))
    return _smallest(ids[used], part)[node[: len(links)]]


def _smallest(ids: Int64, part: Int64) -> Int64:
    """(N,) the smallest id of each box's part."""
    smallest = np.full(int(part.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, part, ids)
    of_box: Int64 = smallest[part]
    return of_box


def _runs(looked: Frames, gap_s: float) -> tuple[Int64, Float64]:
    """(F,) run of each frame, cut where a sequence ends or more than ``gap_s`` passes, and (F,) its time in its run."""
    begins = np.diff(looked.sequence, prepend=-1) != 0
    begins[1:] |= np.diff(looked.time_us) > round(gap_s * 1e6)
    run = np.cumsum(begins, dtype=np.int64) - 1
    # floats of times since 1970 would be of a quarter of a microsecond
    return run, (looked.time_us - looked.time_us[np.flatnonzero(begins)][run]) / 1e6


def _colours(detections: pa.Table, *, used: bool) -> Looks:
    """The stored colours, or no looks where none are stored or wanted."""
    known = np.zeros(0, dtype=bool)
    if used:
        colours, known = colour_arrays(detections["colour"])
    if not known.any():
        return Looks(np.zeros((detections.num_rows, 0), dtype=np.float32), Measure())
    values = colours.astype(np.float32)
    values[~known] = np.nan
    return Looks(values, Measure())


def _starts(frame: Int64, looked: Frames) -> Int64:
    return np.searchsorted(frame, np.arange(len(looked) + 1)).astype(np.int64)

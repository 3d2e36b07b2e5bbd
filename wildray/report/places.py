"""The section on static detections: a crop of each place, and where in the frame all boxes stood.

In: ``Findings``. Out: the section.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wildray.report.crops import Box, crop, frame_map
from wildray.report.gather import Findings
from wildray.report.page import Html, missing, section, tag
from wildray.report.words import MINE, NOT_MINED

MAX_PLACES, MAX_CAMERAS, MAX_BOXES = 24, 30, 400
PLACE_IOU = 0.5
"""Static boxes of one camera that overlap by this much are shown as one place."""


def static(found: Findings) -> Html:
    """What was taken for scenery, with a crop of each place."""
    if found.pairs_digest is None:
        return section("static", missing(NOT_MINED, MINE))
    facts = found.static.filter(found.static["static"])
    flagged = {row["detection_id"]: row for row in facts.to_pylist()}
    is_static = pc.is_in(found.detections["detection_id"], facts["detection_id"].combine_chunks())
    rows = found.detections.filter(is_static).to_pylist()
    if not rows:
        return section("static", tag("p", "None: every place changed or was left."))
    places = _places(rows)
    cards = []
    for members in places[:MAX_PLACES]:
        best = max(members, key=lambda row: row["score"])
        judged = [flagged[row["detection_id"]] for row in members]
        motions = [row["motion"] for row in judged if row["motion"] is not None]
        caption = tag(
            "figcaption", tag("b", f"{len(members):,} boxes"), " · ", best["camera_id"], tag("br"),
            f"in {np.mean([row['presence'] for row in judged]):.0%} of frames, change ",
            f"{np.mean(motions):.3f}" if motions else "unknown",
        )  # fmt: skip
        picture = crop(found.crops, best["crop_pack"], best["crop_row"], f"static detection, {best['camera_id']}")
        cards.append(tag("figure", picture, caption, class_="card"))
    more = f", the {MAX_PLACES} largest shown" if len(places) > MAX_PLACES else ""
    told = tag("p", f"{len(rows):,} boxes at {len(places):,} {'place' if len(places) == 1 else 'places'}{more}.")
    return section("static", told, tag("div", cards, class_="grid small"), _maps(found.detections, is_static))


def _places(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Boxes of a camera that overlap the first of their place, most frequent places first."""
    by_camera: dict[str, list[list[dict[str, Any]]]] = {}
    for row in rows:
        places = by_camera.setdefault(row["camera_id"], [])
        place = next((place for place in places if _iou(_box(place[0]), _box(row)) >= PLACE_IOU), None)
        if place is None:
            places.append([row])
        else:
            place.append(row)
    return sorted((place for places in by_camera.values() for place in places), key=len, reverse=True)


def _maps(detections: pa.Table, is_static: pa.ChunkedArray) -> Html:
    """A map per camera: the boxes, the static ones marked; of many a regular sample."""
    table = detections.append_column("is_static", is_static)
    counts = table.group_by("camera_id").aggregate([("is_static", "sum"), ("is_static", "count")]).to_pylist()
    cards = []
    for row in sorted(counts, key=lambda row: (-row["is_static_sum"], -row["is_static_count"]))[:MAX_CAMERAS]:
        boxes = table.filter(pc.equal(table["camera_id"], row["camera_id"]))
        groups = []
        for kind, chosen in (("box", False), ("static", True)):
            part = boxes.filter(pc.equal(boxes["is_static"], chosen))
            step = -(-part.num_rows // MAX_BOXES) or 1
            groups.append((kind, part.take(pa.array(range(0, part.num_rows, step), pa.int64())).to_pylist()))
        sizes = Counter((box["width_px"], box["height_px"]) for _, group in groups for box in group)
        size = sizes.most_common(1)[0][0]
        same = [
            (kind, [_box(box) for box in group if (box["width_px"], box["height_px"]) == size])
            for kind, group in groups
        ]
        picture = frame_map(size if size[0] else None, same, f"boxes of {row['camera_id']}")
        told = f" · {row['is_static_count']:,} boxes, {row['is_static_sum']:,} static"
        cards.append(tag("figure", picture, tag("figcaption", tag("b", row["camera_id"]), told), class_="card"))
    key = tag("span", class_="key", style="background:#d1495b")
    told_all = tag("p", "Grey: what moves. ", key, " Red, filled: static.")
    return Html(tag("h3", "Where boxes stood") + told_all + tag("div", cards, class_="grid"))


def _box(row: dict[str, Any]) -> Box:
    return (row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"])


def _iou(one: Box, other: Box) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - width * height
    return width * height / union if union > 0 else 0.0

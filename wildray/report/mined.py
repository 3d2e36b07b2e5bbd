"""The sections on what was seen and mined: media, pairs, static detections, times, distributions.

In: ``Findings``. Out: sections and charts. Of many pairs a sample is shown: typical ones from every camera, and those with
the least margin, where mistakes would be.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wildray.report.crops import Box, crop, frame_map
from wildray.report.figures import Chart, histograms, timeline
from wildray.report.gather import Findings
from wildray.report.page import Content, Html, missing, note, section, table, tag

ALL_PAIRS = 200
"""Up to so many pairs are all shown."""
NUM_TYPICAL, NUM_DOUBTFUL = 48, 24
MAX_BAD_FILES, MAX_PLACES, MAX_CAMERAS, MAX_BOXES = 200, 24, 30, 400
PLACE_IOU = 0.5
"""Static boxes of one camera that overlap by this much are shown as one place."""
MINE = "wildray mine --store STORE"
DETECT = "wildray detect MEDIA --store STORE"


def summary(found: Findings) -> Html:
    """What there is, and which files could not be used."""
    how = "What came out of each stage. A file that could not be looked at is listed with the reason: check that none is missing that matters."
    if found.detections_digest is None:
        return section("summary", "What there is", how, missing("No media were looked at:", DETECT))
    statuses = Counter(found.media["status"].to_pylist())
    empty = int((_floats(found.frames, "num_boxes") == 0).sum())
    duplicates = int(_floats(found.media, "num_duplicates").sum())
    tiles: list[tuple[str, str]] = [
        (f"{found.media.num_rows:,}", "media"),
        (f"{found.frames.num_rows:,}", "frames looked at"),
        (_share(empty, found.frames.num_rows), "of them empty"),
        (f"{found.detections.num_rows:,}", "detections"),
        (f"{found.detections.num_rows - found.detections['crop_pack'].null_count:,}", "crops"),
        (f"{len(set(found.detections['camera_id'].to_pylist())):,}", "cameras with detections"),
    ]
    if found.pairs_digest is not None:
        sequences = set(found.static["sequence_id"].to_pylist()) | set(found.pairs["sequence_id"].to_pylist())
        tiles += [
            (f"{found.pairs.num_rows:,}", "pairs"),
            (f"{sum(found.static['static'].to_pylist()):,}", "static detections"),
            (f"{len(sequences):,}", "sequences with detections"),
        ]
    tile_row = tag("div", (tag("div", tag("b", number), tag("span", name), class_="tile") for number, name in tiles), class_="tiles")  # fmt: skip
    rows: list[list[Content]] = [["Media", name, f"{count:,}"] for name, count in statuses.most_common()]
    if duplicates:
        rows.append(["Media", "exact copies, looked at once", f"{duplicates:,}"])
    clocks = Counter(found.media["clock_flag"].to_pylist())
    rows += [["Clock", name, f"{count:,}"] for name, count in clocks.most_common() if name != "ok"]
    rows += [["Detections", name, f"{count:,}"] for name, count in _counts(found.detections, "category")]
    counted = table(["", "", "count"], rows, numeric=(2,))
    return section("summary", "What there is", how, tile_row, counted, _people(found), _bad_files(found.media))


def pairs(found: Findings) -> Html:
    """Example pairs, or all of them."""
    how = "Each card holds two crops that training takes for one animal. Look for cards with two animals: their share is the error that training has to bear. The map shows where the two boxes stood in the frame (blue, then dashed orange)."
    title = "Pairs"
    if found.pairs_digest is None:
        return section("pairs", title, how, missing("Nothing was mined from these detections:", MINE))
    count = found.pairs.num_rows
    if not count:
        return section("pairs", title, how, missing("No two boxes were found that could be one animal. A lower mine.min_score or mine.min_iou, or a shorter mine.interval, gives more:", MINE))  # fmt: skip
    boxes = _boxes(found.detections)
    if count <= ALL_PAIRS:
        return section("pairs", f"All {count:,} pairs", how, _pair_grid(found, range(count), boxes))
    doubtful = np.argsort(_floats(found.pairs, "margin"), kind="stable")[:NUM_DOUBTFUL]
    typical = _over_cameras(found.pairs["camera_id"].to_pylist(), NUM_TYPICAL)
    body = (
        tag("h3", f"{len(typical)} of {count:,}, from every camera"), _pair_grid(found, typical, boxes),
        tag("h3", f"The {len(doubtful)} with the least margin, where mistakes would be"),
        _pair_grid(found, doubtful.tolist(), boxes),
    )  # fmt: skip
    return section("pairs", f"Examples of {count:,} pairs", how, *body)


def static(found: Findings) -> Html:
    """What was taken for scenery, with a crop of each place."""
    how = "Boxes that stayed in one place through a sequence and inside which nothing changed: rocks, stumps, logos. They are kept out of training. An animal among them means that mine.static_presence is too low or mine.static_motion too high."
    title = "Static detections"
    if found.pairs_digest is None:
        return section("static", title, how, missing("Nothing was mined from these detections:", MINE))
    flagged = {row["detection_id"]: row for row in found.static.to_pylist() if row["static"]}
    rows = [row for row in found.detections.to_pylist() if row["detection_id"] in flagged] if flagged else []
    if not rows:
        return section("static", title, how, tag("p", "None: every place changed or was left."))
    places = _places(rows)
    cards = []
    for members in places[:MAX_PLACES]:
        best = max(members, key=lambda row: row["score"])
        facts = [flagged[row["detection_id"]] for row in members]
        motions = [fact["motion"] for fact in facts if fact["motion"] is not None]
        caption = tag(
            "figcaption", tag("b", f"{len(members):,} boxes"), " · ", best["camera_id"], tag("br"),
            f"in {np.mean([fact['presence'] for fact in facts]):.0%} of frames, change ",
            f"{np.mean(motions):.3f}" if motions else "unknown",
        )  # fmt: skip
        picture = crop(found.crops, best["crop_pack"], best["crop_row"], f"static detection, {best['camera_id']}")
        cards.append(tag("figure", picture, caption, class_="card"))
    more = f", the {MAX_PLACES} largest shown" if len(places) > MAX_PLACES else ""
    told = tag("p", f"{len(rows):,} boxes at {len(places):,} places{more}.")
    return section("static", title, how, told, tag("div", cards, class_="grid small"), _maps(found, set(flagged)))


def when(found: Findings) -> tuple[Html, list[Chart]]:
    """When each camera saw something."""
    how = "A mark is a detection at the time when the camera saw it. Gaps are nights, empty batteries, or a clock that stands wrong."
    title = "When"
    if not found.detections.num_rows:
        return section("when", title, how, missing("There are no detections:", DETECT)), []
    timed = found.detections.filter(found.detections["captured_at"].is_valid())
    unknown = found.detections.num_rows - timed.num_rows
    rest = note(f"{unknown:,} detections are of files without a capture time and are not shown.") if unknown else None
    if not timed.num_rows:
        return section("when", title, how, rest), []
    start = np.asarray(timed["captured_at"].cast(pa.timestamp("us")).to_numpy(), dtype="datetime64[us]")
    times = start + (_floats(timed, "time_s") * 1e6).astype("timedelta64[us]")
    cameras = np.array(timed["camera_id"].to_pylist())
    words = np.array(timed["category"].to_pylist())
    shown = [name for name, _ in Counter(cameras.tolist()).most_common(MAX_CAMERAS)]
    chart = timeline(
        "timeline",
        {name: times[cameras == name] for name in sorted(shown)},
        {name: words[cameras == name].tolist() for name in sorted(shown)},
    )
    num_cameras = len(set(cameras.tolist()))
    cut = tag("p", f"The {MAX_CAMERAS} busiest of {num_cameras} cameras.") if num_cameras > MAX_CAMERAS else None
    return section("when", title, how, cut, drawn(chart), rest), [chart]


def distributions(found: Findings) -> tuple[Html, list[Chart]]:
    """Scores of detections; gaps, overlaps and margins of pairs."""
    how = "How sure the detector was, and how far apart in time and place the two sides of a pair are. Pairs at the left end of the overlap or the margin are the doubtful ones; a peak of scores just above the threshold speaks for a higher one."
    if not found.detections.num_rows:
        return section("distributions", "Distributions", how, missing("There are no detections:", DETECT)), []
    charts = [histograms("scores", [("Detections by score", "score", _floats(found.detections, "score"))])]
    if found.pairs.num_rows:
        panels = [
            ("Pairs by gap", "gap / s", _floats(found.pairs, "gap_s")),
            ("Pairs by overlap", "IoU", _floats(found.pairs, "iou")),
            ("Pairs by margin", "IoU above the best rival's", _floats(found.pairs, "margin")),
        ]
        charts.append(histograms("pairs", panels))
    return section("distributions", "Distributions", how, (drawn(chart) for chart in charts)), charts


def drawn(chart: Chart) -> Html:
    """A chart in its frame."""
    return tag("figure", Html(chart.svg), class_="chart")


def _people(found: Findings) -> Html | None:
    people = sum(count for name, count in _counts(found.detections, "category") if name == "person")
    if found.detector == "megadetector_lite":
        return note("MegaDetectorLite has one category and cannot tell people from animals: people in the footage are among the detections, the crops and the pictures of this page. 'wildray purge' takes them out; look before you share.")  # fmt: skip
    return note(f"{people:,} detections are of people.") if people else None


def _bad_files(media: pa.Table) -> Html | None:
    bad = [row for row in media.select(["uri", "camera_id", "status", "error"]).to_pylist() if row["status"] != "done"]
    if not bad:
        return None
    rows = [[row["uri"], row["camera_id"], row["status"], row["error"] or ""] for row in bad[:MAX_BAD_FILES]]
    title = f"{len(bad):,} media that were not looked at" + (f", the first {MAX_BAD_FILES}" if len(bad) > MAX_BAD_FILES else "")  # fmt: skip
    return tag("details", tag("summary", title), table(["file", "camera", "status", "reason"], rows), open="" if len(bad) <= 12 else None)  # fmt: skip


def _pair_grid(found: Findings, rows: Any, boxes: dict[int, tuple[tuple[int, int] | None, Box]]) -> Html:
    cards = []
    for pair in found.pairs.take(list(rows)).to_pylist():
        sides = [
            crop(found.crops, pair[f"{side}_pack"], pair[f"{side}_row"], f"{side} of a pair, {pair['camera_id']}")
            for side in ("anchor", "positive")
        ]
        first, second = boxes.get(pair["anchor_id"]), boxes.get(pair["positive_id"])
        place = None
        if first is not None and second is not None:
            place = frame_map(first[0], [("first", [first[1]]), ("second", [second[1]])], "where the boxes stood")
        facts = [f"IoU {pair['iou']:.2f}", f"{pair['gap_s']:.3g} s", f"score {pair['min_score']:.2f}", f"margin {pair['margin']:.2f}"]  # fmt: skip
        caption = tag("figcaption", tag("b", pair["camera_id"]), tag("div", (tag("span", fact) for fact in facts), class_="facts"))  # fmt: skip
        cards.append(tag("figure", tag("div", *sides, class_="two"), tag("div", place, class_="where"), caption, class_="card"))  # fmt: skip
    return tag("div", cards, class_="grid")


def _over_cameras(cameras: list[str], number: int) -> list[int]:
    """Rows from every camera in turn, drawn at random within each, always the same."""
    order = np.random.default_rng(0).permutation(len(cameras))
    turns: Counter[str] = Counter()
    ranked = []
    for row in order.tolist():
        ranked.append((turns[cameras[row]], row))
        turns[cameras[row]] += 1
    return [row for _, row in sorted(ranked)[:number]]


def _boxes(detections: pa.Table) -> dict[int, tuple[tuple[int, int] | None, Box]]:
    columns = ["detection_id", "width_px", "height_px", "x1_px", "y1_px", "x2_px", "y2_px"]
    rows = zip(*(detections[name].to_pylist() for name in columns), strict=True)
    return {
        key: ((width, height) if width and height else None, (x1, y1, x2, y2)) for key, width, height, x1, y1, x2, y2 in rows
    }


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


def _maps(found: Findings, flagged: set[int]) -> Html:
    """A map per camera: every box, and the static ones."""
    cards = []
    by_camera: dict[str, list[dict[str, Any]]] = {}
    for row in found.detections.to_pylist():
        by_camera.setdefault(row["camera_id"], []).append(row)
    ranked = sorted(by_camera.items(), key=lambda item: -sum(row["detection_id"] in flagged for row in item[1]))
    for camera, rows in ranked[:MAX_CAMERAS]:
        size = Counter((row["width_px"], row["height_px"]) for row in rows).most_common(1)[0][0]
        same = [row for row in rows if (row["width_px"], row["height_px"]) == size]
        groups = [
            ("box", [_box(row) for row in same if row["detection_id"] not in flagged][:MAX_BOXES]),
            ("static", [_box(row) for row in same if row["detection_id"] in flagged][:MAX_BOXES]),
        ]
        picture = frame_map(size if size[0] else None, groups, f"boxes of {camera}")
        caption = tag("figcaption", tag("b", camera), f" · {len(rows):,} boxes, ", f"{sum(row['detection_id'] in flagged for row in rows):,} static")  # fmt: skip
        cards.append(tag("figure", picture, caption, class_="card"))
    told = tag("p", "Grey: boxes of things that move. ", tag("span", class_="key", style="background:#d1495b"), " static ones.")
    return Html(tag("h3", "Where boxes stood") + told + tag("div", cards, class_="grid"))


def _box(row: dict[str, Any]) -> Box:
    return (row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"])


def _iou(one: Box, other: Box) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - width * height
    return width * height / union if union > 0 else 0.0


def _floats(rows: pa.Table, column: str) -> npt.NDArray[np.float64]:
    return np.asarray(rows[column].to_numpy(), dtype=np.float64)


def _counts(rows: pa.Table, column: str) -> list[tuple[str, int]]:
    return Counter(rows[column].to_pylist()).most_common()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0"

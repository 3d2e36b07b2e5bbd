"""The sections on what was seen and mined: media, pairs, times, distributions.

In: ``Findings``. Out: sections and charts. Of many pairs a sample is shown: typical ones from every camera, and those
with the least margin, where mistakes would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wildray.report.crops import Box, crop, frame_map
from wildray.report.figures import Chart, histograms, timeline
from wildray.report.gather import Findings
from wildray.report.page import Content, Html, missing, note, section, table, tag
from wildray.report.words import DETECT, LITE_AND_PEOPLE, MINE, NO_PAIRS, NOT_DETECTED, NOT_MINED

ALL_PAIRS = 200
"""Up to so many pairs are all shown."""
NUM_TYPICAL, NUM_DOUBTFUL = 48, 24
MAX_BAD_FILES, MAX_UNFOLDED, MAX_CAMERAS = 200, 12, 30


def summary(found: Findings) -> Html:
    """What there is, and which files could not be used."""
    if found.detections_digest is None:
        return section("summary", missing(NOT_DETECTED, DETECT))
    statuses = Counter(found.media["status"].to_pylist())
    empty = int((_floats(found.frames, "num_boxes") == 0).sum())
    duplicates = int(_floats(found.media, "num_duplicates").sum())
    tiles: list[tuple[str, str]] = [
        (f"{found.media.num_rows:,}", "media"),
        (f"{found.frames.num_rows:,}", "frames looked at"),
        (_share(empty, found.frames.num_rows), "of them empty"),
        (f"{found.detections.num_rows:,}", "detections"),
        (f"{found.detections.num_rows - found.detections['crop_pack'].null_count:,}", "crops"),
        (f"{len(set(found.detections['camera_id'].to_pylist())):,}", "cameras with boxes"),
    ]
    if found.pairs_digest is not None:
        sequences = set(found.static["sequence_id"].to_pylist()) | set(found.pairs["sequence_id"].to_pylist())
        tiles += [
            (f"{found.pairs.num_rows:,}", "pairs"),
            (f"{sum(found.static['static'].to_pylist()):,}", "static detections"),
            (f"{len(sequences):,}", "sequences with boxes"),
        ]
    shown = (tag("div", tag("b", number), tag("span", name), class_="tile") for number, name in tiles)
    rows: list[list[Content]] = [["Media", name, f"{count:,}"] for name, count in statuses.most_common()]
    if duplicates:
        rows.append(["Media", "exact copies, looked at once", f"{duplicates:,}"])
    clocks = Counter(found.media["clock_flag"].to_pylist())
    rows += [["Clock", name, f"{count:,}"] for name, count in clocks.most_common() if name != "ok"]
    rows += [["Detections", name, f"{count:,}"] for name, count in _counts(found.detections, "category")]
    counted = table(["", "", "count"], rows, numeric=(2,))
    return section("summary", tag("div", shown, class_="tiles"), counted, _people(found), _bad_files(found.media))


def pairs(found: Findings) -> Html:
    """Example pairs, or all of them."""
    if found.pairs_digest is None:
        return section("pairs", missing(NOT_MINED, MINE))
    count = found.pairs.num_rows
    if not count:
        return section("pairs", missing(NO_PAIRS, MINE))  # fmt: skip
    if count <= ALL_PAIRS:
        return section("pairs", _pair_grid(found, range(count)), title=f"All {count:,} pairs")
    doubtful = np.argsort(_floats(found.pairs, "margin"), kind="stable")[:NUM_DOUBTFUL]
    typical = _over_cameras(found.pairs["camera_id"].to_pylist(), NUM_TYPICAL)
    body = (
        tag("h3", f"{len(typical)} of {count:,}, from every camera"), _pair_grid(found, typical),
        tag("h3", f"The {len(doubtful)} with the least margin, where mistakes would be"),
        _pair_grid(found, doubtful.tolist()),
    )  # fmt: skip
    return section("pairs", *body, title=f"Examples of {count:,} pairs")


def when(found: Findings) -> tuple[Html, list[Chart]]:
    """When each camera saw something."""
    if not found.detections.num_rows:
        return section("when", missing(NOT_DETECTED, DETECT)), []
    timed = found.detections.filter(found.detections["captured_at"].is_valid())
    unknown = found.detections.num_rows - timed.num_rows
    rest = note(f"{unknown:,} detections are of files without a capture time and are not shown.") if unknown else None
    if not timed.num_rows:
        return section("when", rest), []
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
    return section("when", cut, drawn(chart), rest), [chart]


def distributions(found: Findings) -> tuple[Html, list[Chart]]:
    """Scores of detections; gaps, overlaps and margins of pairs."""
    if not found.detections.num_rows:
        return section("distributions", missing(NOT_DETECTED, DETECT)), []
    panels = [("Detections by score", "score", _floats(found.detections, "score"))]
    if found.pairs.num_rows:
        panels += [
            ("Pairs by gap", "gap / s", _floats(found.pairs, "gap_s")),
            ("Pairs by overlap", "IoU", _floats(found.pairs, "iou")),
            ("Pairs by margin", "IoU above the best rival's", _floats(found.pairs, "margin")),
        ]
    chart = histograms("distributions", panels)
    return section("distributions", drawn(chart)), [chart]


def drawn(chart: Chart) -> Html:
    """A chart in its frame."""
    return tag("figure", Html(chart.svg), class_="chart")


def _people(found: Findings) -> Html | None:
    people = sum(count for name, count in _counts(found.detections, "category") if name == "person")
    if found.detector == "megadetector_lite":
        return note(LITE_AND_PEOPLE)
    return note(f"{people:,} detections are of people.") if people else None


def _bad_files(media: pa.Table) -> Html | None:
    bad = [row for row in media.select(["uri", "camera_id", "status", "error"]).to_pylist() if row["status"] != "done"]
    if not bad:
        return None
    rows = [[row["uri"], row["camera_id"], row["status"], row["error"] or ""] for row in bad[:MAX_BAD_FILES]]
    cut = f", the first {MAX_BAD_FILES}" if len(bad) > MAX_BAD_FILES else ""
    title = tag("summary", f"Not looked at: {len(bad):,} of {media.num_rows:,} media{cut}")
    listed = table(["file", "camera", "status", "reason"], rows)
    return tag("details", title, listed, open="" if len(bad) <= MAX_UNFOLDED else None)


def _pair_grid(found: Findings, rows: Sequence[int]) -> Html:
    cards = []
    chosen = found.pairs.take(pa.array(list(rows), pa.int64()))
    boxes = _boxes(found.detections, chosen["anchor_id"].to_pylist() + chosen["positive_id"].to_pylist())
    for pair in chosen.to_pylist():
        sides = [
            crop(found.crops, pair[f"{side}_pack"], pair[f"{side}_row"], f"{side} of a pair, {pair['camera_id']}")
            for side in ("anchor", "positive")
        ]
        first, second = boxes.get(pair["anchor_id"]), boxes.get(pair["positive_id"])
        place = None
        if first is not None and second is not None:
            place = frame_map(first[0], [("first", [first[1]]), ("second", [second[1]])], "where the boxes stood")
        words = (
            f"IoU {pair['iou']:.2f}",
            f"{pair['gap_s']:.3g} s",
            f"score {pair['min_score']:.2f}",
            f"margin {pair['margin']:.2f}",
        )
        facts = tag("div", (tag("span", word) for word in words), class_="facts")
        caption = tag("figcaption", tag("div", tag("b", pair["camera_id"]), facts), place, class_="pair")
        cards.append(tag("figure", tag("div", *sides, class_="two"), caption, class_="card"))
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


def _boxes(detections: pa.Table, ids: list[int]) -> dict[int, tuple[tuple[int, int] | None, Box]]:
    """Frame size (None: unknown) and box of some detections."""
    detections = detections.filter(pc.is_in(detections["detection_id"], pa.array(ids, pa.int64())))
    columns = ["detection_id", "width_px", "height_px", "x1_px", "y1_px", "x2_px", "y2_px"]
    rows = zip(*(detections[name].to_pylist() for name in columns), strict=True)
    return {
        key: ((width, height) if width and height else None, (x1, y1, x2, y2))
        for key, width, height, x1, y1, x2, y2 in rows
    }


def _floats(rows: pa.Table, column: str) -> npt.NDArray[np.float64]:
    return np.asarray(rows[column].to_numpy(), dtype=np.float64)


def _counts(rows: pa.Table, column: str) -> list[tuple[str, int]]:
    return Counter(rows[column].to_pylist()).most_common()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "0"

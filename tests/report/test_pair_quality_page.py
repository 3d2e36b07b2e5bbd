"""The page of a study: sums against loops, advice that follows from the figures, tables that hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wildray.errors import ConfigError, StoreError
from wildray.report.pair_quality import report_pair_quality
from wildray.report.pair_quality.advice import advise
from wildray.report.pair_quality.charts import at_rates, rate_interval
from wildray.report.pair_quality.records import Share, front, pooled, read_study
from wildray.report.pair_quality.tables import by_interval, markdown, of_fronts
from wildray.store import Store

GAPS = {"1frame": 0.04, "12frames": 0.48, "24frames": 0.96}
PURITY = {
    "direct": {"1frame": 0.9, "12frames": 0.7, "24frames": 0.5},
    "assigned": {"1frame": 1.0, "12frames": 0.98, "24frames": 0.9},
}
COUNTS = {"direct": 1000, "assigned": 500}


def row(footage: str, rate: float, linker: str, interval: str, overlap: float, score: float) -> dict[str, Any]:
    num = COUNTS[linker] if rate > 5 else 40
    same = round(num * PURITY[linker][interval])
    settings = {"linker": linker, "interval": interval, "min_iou": overlap, "min_score": score}
    share = {"num_pairs": num, "num_same": same, "low": same / num - 0.02, "high": min(1.0, same / num + 0.02)}
    return {
        "footage": footage, "collection": f"{footage}, {rate}", "advised": True, "minutes": 0.5, "frames_per_s": rate,
        "settings": {f"mine.{name}": value for name, value in settings.items()},
        "median_gap_s": GAPS[interval], **share, "num_individuals": 7, "num_encounters": 8,
        "num_different": num - same, "num_false_boxes": 0,
        "tables": {"density": [{"part": "2-3", **share}, {"part": "8+", **share, "num_pairs": 10, "num_same": 1}]},
    }  # fmt: skip


def rows() -> list[dict[str, Any]]:
    return [
        row(footage, rate, linker, interval, overlap, score)
        for footage in ("koi", "a|b")
        for rate in (25.0, 2.0)
        for linker in ("direct", "assigned")
        for interval in GAPS
        for overlap in (0.2, 0.4)
        for score in (0.2, 0.5)
    ]


def write(store: Store, rows: list[dict[str, Any]]) -> None:
    base = {"linker": "assigned", "interval": "2s", "min_iou": 0.2, "min_score": 0.25}
    content = {"name": "s", "description": "Some study.", "base": base, "min_iou": 0.3, "rows": rows}
    store.write_text(json.dumps(content), "purity", "s", "results.json")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path, create=True)
    write(store, rows())
    return store


@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_against_a_loop_over_all_points(points):
    on = front([(float(x), float(y)) for x, y in points])
    beaten = set()
    for i, (x, y) in enumerate(points):
        for j, (u, v) in enumerate(points):
            if u >= x and v >= y and ((u, v) != (x, y) or j < i):
                beaten.add(i)
    assert set(on) == set(range(len(points))) - beaten
    assert [points[i][0] for i in on] == sorted(points[i][0] for i in on)


def test_footages_as_one():
    one, two = Share(100, 90, 0.85, 0.95, 1.0), Share(300, 150, 0.4, 0.6, 2.0)
    both = pooled([one, two, Share(0, 0, 0.0, 1.0, 3.0)])
    assert (both.num_pairs, both.num_same, both.minutes, both.purity) == (400, 240, 6.0, 0.6)
    half = math.sqrt((0.25 * 0.05) ** 2 + (0.75 * 0.1) ** 2)
    assert (both.low, both.high) == pytest.approx((0.6 - half, 0.6 + half))
    assert pooled([one, Share(0, 0, 0.0, 1.0, 1.0)]) == Share(100, 90, 0.85, 0.95, 2.0)
    assert pooled([]).num_pairs == 0


def test_the_advice_is_the_longest_interval_that_is_right_often_enough(store: Store) -> None:
    (advice,) = advise(read_study(store, "s"))  # with eight or more animals there are too few pairs
    assert advice.density == "2-3"
    assert advice.reached
    assert advice.setting[:2] == ("assigned", "12frames")
    assert (advice.share.num_pairs, advice.share.purity) == (1000, 0.98)
    assert "up to 12frames (0.48 s) apart, take mine.linker assigned" in advice.sentence
    assert (
        "0.980 (0.966 to 0.994) of 1,000 pairs are right, at worst 0.980 in one footage, 980 a minute"
        in advice.sentence
    )
    assert "the published rule is right in 0.700 of its 2,000 there" in advice.sentence


@pytest.mark.parametrize("num_pairs", [30, 8])
def test_a_setting_that_fails_in_one_footage_is_not_advised(store: Store, num_pairs: int) -> None:
    failing = rows()
    for one in failing:
        if one["footage"] == "koi" and one["settings"]["mine.interval"] == "12frames":
            one["tables"]["density"][0] |= {"num_pairs": num_pairs, "num_same": num_pairs - 4, "low": 0.1, "high": 0.8}
    write(store, failing)
    (advice,) = advise(read_study(store, "s"))
    assert advice.setting[:2] == ("assigned", "1frame")


def test_where_nothing_is_right_often_enough_the_advice_says_so(store: Store) -> None:
    write(store, [one for one in rows() if one["settings"]["mine.linker"] == "direct"])
    (advice,) = advise(read_study(store, "s"))
    assert not advice.reached
    assert (
        "no setting is right in 0.95 over all footages and 0.9 in each; the purest is mine.linker direct"
        in advice.sentence
    )
    write(store, [one | {"advised": False} for one in rows()])
    assert advise(read_study(store, "s")) == []


def test_rates_are_compared_where_all_have_pairs(store: Store) -> None:
    study = read_study(store, "s")
    assert rate_interval(study, "koi") == "24frames"
    points = at_rates(study, "koi", "24frames")
    assert [(point.linker, point.frames_per_s) for point in points] == [
        ("direct", 2.0), ("direct", 25.0), ("assigned", 2.0), ("assigned", 25.0),
    ]  # fmt: skip
    write(store, [one for one in rows() if one["frames_per_s"] > 5])
    assert rate_interval(read_study(store, "s"), "koi") is None


def test_tables_hold_the_figures(store: Store) -> None:
    study = read_study(store, "s")
    table = by_interval(study)
    assert table.header == ("footage", "frames/s", "linker", "1frame", "12frames", "24frames")
    assert table.lines[1] == (
        "koi", "25", "assigned", "1.000 (0.980 to 1.000), 500", "0.980 (0.960 to 1.000), 500",
        "0.900 (0.880 to 0.920), 500",
    )  # fmt: skip
    text = markdown(study, advise(study))
    assert "| a\\|b | 25 | direct |" in text
    assert text.startswith("# Pair quality: s\n\nSome study.\n\n- Two or three animals in the frame: ")
    fronts = of_fronts(study).lines
    assert {line[0] for line in fronts} == set(GAPS)
    assert ("1frame", "assigned") in {line[:2] for line in fronts}


def test_the_page_holds_everything_and_its_pictures_lie_beside_it(store: Store) -> None:
    made = report_pair_quality(store, "s")
    text = Path(made.page).read_text()
    for name in ("advice", "table", "pareto", "rates", "heat"):
        assert f'id="{name}"' in text
    assert "<script" not in text
    assert made.advice[0] in text
    names = {Path(path).name for path in made.figures}
    assert names == {"pareto.png", "rates.png", "purity-koi.png", "yield-koi.png", "purity-a-b.png", "yield-a-b.png"}
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in made.figures)


def test_a_study_without_any_pair_has_a_page(store: Store) -> None:
    none = {"num_pairs": 0, "num_same": 0, "low": 0.0, "high": 1.0, "median_gap_s": None, "tables": {"density": []}}
    write(store, [one | none for one in rows()])
    made = report_pair_quality(store, "s")
    assert "There are too few pairs." in Path(made.page).read_text()
    assert made.figures == made.advice == ()


def test_what_is_no_study_is_said(store: Store) -> None:
    with pytest.raises(ConfigError, match="no study of pair quality called 'x'"):
        report_pair_quality(store, "x")
    store.write_text("{}", "purity", "s", "results.json")
    with pytest.raises(StoreError, match="is no record of a study"):
        report_pair_quality(store, "s")

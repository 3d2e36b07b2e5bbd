"""Following animals: against a plain loop, in both directions of time, through gaps and crossings, on real herds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wildray.mining.boxes import iou_matrix
from wildray.mining.following import (
    COLOUR_UNIT,
    LEAST_SCORE,
    LOOK_GAIN,
    MOST_CHANGE,
    MOST_GROWTH,
    POSITION_GAIN,
    VELOCITY_GAIN,
    Measure,
    Rules,
    Sightings,
    followed,
)
from wildray.mining.linkers import seen_twice
from wildray.mining.tracklets import chained, settled, weakest

RULES = Rules(min_iou=0.2, min_margin=0.07, look_weight=1.0, max_missed=4)


def sightings(frames, looks=None, *, step_s=0.1, runs=None):
    """Boxes from lists of corners by frame."""
    frame = np.repeat(np.arange(len(frames)), [len(boxes) for boxes in frames])
    xyxy = np.array([box for boxes in frames for box in boxes], dtype=np.float64).reshape(-1, 4).T
    run = np.zeros(len(frames), dtype=np.int64) if runs is None else np.asarray(runs)
    time_s = np.concatenate([np.arange(np.sum(run == r)) * step_s for r in np.unique(run)]) if len(run) else run * 1.0
    colour = np.zeros((xyxy.shape[1], 0), np.float32) if looks is None else np.asarray(looks, np.float32)
    return Sightings(np.ascontiguousarray(xyxy), np.zeros(len(frame), np.int64), colour, Measure(), frame, run, time_s)


def crowd(rng, num_frames, num_animals=5, *, colours=6):
    """Animals that wander among each other, some missed in some frames."""
    place = rng.uniform(0, 80, (num_animals, 2))
    pace = rng.normal(0, 3, (num_animals, 2))
    look = rng.uniform(0, 255, (num_animals, colours))
    frames, looks = [], []
    for _ in range(num_frames):
        place = place + pace + rng.normal(0, 1, place.shape)
        seen = np.flatnonzero(rng.uniform(size=num_animals) > 0.15)
        frames.append([(*place[i], *(place[i] + 30)) for i in seen])
        looks += [look[i] + rng.normal(0, 8, colours) for i in seen]
    return frames, looks


def plain(boxes: Sightings, rules: Rules):
    """One run, track by track and box by box."""
    before, margin = np.full(len(boxes.frame), -1), np.full(len(boxes.frame), np.inf)
    tracks: list[dict] = []
    for number, now in enumerate(boxes.time_s):
        rows = np.flatnonzero(boxes.frame == number)
        for track in tracks:
            track["xyxy"] = track["xyxy"] + track["velocity"] * (now - track["now"])
            track["now"] = now
        score = np.full((len(tracks), len(rows)), -np.inf)
        fits = np.zeros(score.shape, dtype=bool)
        for t, track in enumerate(tracks):
            for r, row in enumerate(rows):
                iou = iou_matrix(track["xyxy"][None], boxes.xyxy[:, row][None])[0, 0]
                if iou > 0:
                    change = np.abs(track["look"] - boxes.look[row]).mean() / COLOUR_UNIT
                    score[t, r] = iou - rules.look_weight * min(change, MOST_CHANGE)
                    fits[t, r] = iou >= rules.min_iou and score[t, r] >= LEAST_SCORE
                    areas = sorted(np.prod(c[2:] - c[:2]) for c in (track["xyxy"], boxes.xyxy[:, row]))
                    fits[t, r] &= areas[1] <= MOST_GROWTH * areas[0]
        linked = {}
        for t, r in zip(*np.nonzero(fits), strict=True):
            rival = max([*np.delete(score[t], r), *np.delete(score[:, r], t)], default=-np.inf)
            if score[t, r] - rival >= rules.min_margin:
                linked[t] = (r, score[t, r] - rival if np.isfinite(rival) else score[t, r])
        taken = {r for r, _ in linked.values()}
        going = []
        for t, track in enumerate(tracks):
            if t in linked:
                r, gain = linked[t]
                row = rows[r]
                before[row], margin[row] = track["box"], gain
                age, off = track["age"], boxes.xyxy[:, row] - track["xyxy"]
                line = (age + 1) * (age + 2)
                track["xyxy"] = track["xyxy"] + (1 if age == 1 else max(POSITION_GAIN, 2 * (2 * age + 1) / line)) * off
                share = 1 if age == 1 else max(VELOCITY_GAIN, 6 / line)
                track["velocity"] = track["velocity"] + share * off / (now - track["seen"])
                track["look"] = track["look"] + LOOK_GAIN * (boxes.look[row] - track["look"])
                track.update(age=age + 1, missed=0, seen=now, box=row)
                going.append(track)
            else:
                track["missed"] += 1
                best = np.where(fits[t], score[t], -np.inf)
                if track["missed"] <= rules.max_missed and (not fits[t].any() or int(best.argmax()) in taken):
                    going.append(track)
        tracks = going + [
            {"box": row, "xyxy": boxes.xyxy[:, row], "velocity": np.zeros(4), "age": 1, "missed": 0, "now": now,
             "seen": now, "look": boxes.look[row].astype(np.float64)}
            for row in rows if before[row] < 0
        ]  # fmt: skip
    return before, margin


@pytest.mark.parametrize("seed", range(4))
def test_following_equals_a_plain_loop(seed: int) -> None:
    boxes = sightings(*crowd(np.random.default_rng(seed), 40))
    before, margin = followed(boxes, RULES)
    expected, expected_margin = plain(boxes, RULES)
    assert (before >= 0).sum() > 50
    assert before.tolist() == expected.tolist()
    assert margin == pytest.approx(expected_margin, abs=1e-4)


def test_runs_side_by_side_are_followed_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    parts = [crowd(rng, length) for length in (30, 1, 12, 30)]
    runs = np.repeat(np.arange(4), [30, 1, 12, 30])
    frames_of_all = [frame for frames, _ in parts for frame in frames]
    together = sightings(frames_of_all, [look for _, looks in parts for look in looks], runs=runs)
    chains = chained(together, RULES).chain
    begin = 0
    for frames, looks in parts:
        alone = chained(sightings(frames, looks), RULES).chain
        ours = chains[begin : begin + len(alone)]
        assert [(ours == c).tolist() for c in ours] == [(alone == c).tolist() for c in alone]
        begin += len(alone)
    assert not len(chained(sightings([]), RULES).chain)


def test_time_backwards_gives_the_same_chains() -> None:
    boxes = sightings(*crowd(np.random.default_rng(7), 60))
    forwards, backwards = chained(boxes, RULES).chain, chained(boxes.reversed(), RULES).chain[::-1]
    assert [(forwards == c).tolist() for c in forwards] == [(backwards == c).tolist() for c in backwards]


def walker(step, **gone):
    return [[(step * i, 0, step * i + 40, 40)] if i not in gone.get("missed", ()) else [] for i in range(12)]


def test_a_chain_goes_on_through_missed_frames_up_to_the_limit() -> None:
    boxes = sightings(walker(8, missed=(4, 5, 6)))
    assert len(set(chained(boxes, RULES).chain)) == 1
    assert len(set(chained(boxes, replace(RULES, max_missed=2)).chain)) == 2


def test_where_two_boxes_fit_as_well_the_chain_ends() -> None:
    frames = walker(0)
    frames[5] = [(-8, 0, 32, 40), (8, 0, 48, 40)]
    chain = chained(sightings(frames), RULES).chain
    assert chain[0] == chain[4]
    assert chain[4] not in chain[5:]


def test_a_box_around_two_animals_continues_neither() -> None:
    frames = walker(0)
    frames[6:] = [[(-40, -10, 60, 50)]] * 6
    chain = chained(sightings(frames), RULES).chain
    assert (len(set(chain[:6])), len(set(chain[6:])), len(set(chain))) == (1, 1, 2)


def test_colour_tells_which_of_two_goes_on() -> None:
    frames = walker(0)
    frames[5] = [(-8, 0, 32, 40), (8, 0, 48, 40)]
    looks = np.full((13, 6), 100.0)
    looks[6] = 160.0
    chain = chained(sightings(frames, looks), RULES).chain
    assert len(set(np.delete(chain, 6))) == 1
    assert chain[6] != chain[0]


def test_a_box_of_unknown_colour_is_not_preferred_to_one_that_looks_alike() -> None:
    frames = walker(0)
    frames[5] = [(1, 0, 41, 40), (-4, 0, 36, 40)]
    looks = np.full((13, 6), 100.0)
    looks[5] = 108.0  # a shade off
    looks[6] = np.nan
    boxes = sightings(frames, looks)
    chain = chained(boxes, RULES).chain
    assert len(set(np.delete(chain, 6))) == 1
    assert chain[6] != chain[0]
    lone = replace(boxes, look=np.where(np.arange(13)[:, None] == 3, np.nan, boxes.look))
    assert chained(lone, RULES).chain[3] == chained(lone, RULES).chain[0]  # nothing else is there


def test_a_lasting_change_of_colour_cuts_and_a_passing_one_does_not() -> None:
    boxes = sightings(walker(2))
    chain = np.zeros(12, dtype=np.int64)
    company = np.ones(12, dtype=bool)
    looks = np.full((12, 6), 100.0, np.float32)
    looks[6:] += 20
    cut = settled(replace(boxes, look=looks), chain, company)
    assert (len(set(cut[:6])), len(set(cut[6:])), len(set(cut))) == (1, 1, 2)
    looks[7:] = 100.0
    cut = settled(replace(boxes, look=looks), chain, company)
    assert len(set(np.delete(cut, 6))) == 1
    assert cut[6] != cut[0]
    looks[6:] = 120.0
    assert len(set(settled(replace(boxes, look=looks), chain, ~company))) == 1  # it may have turned
    looks[6:] = 117.0
    assert len(set(settled(replace(boxes, look=looks), chain, company))) == 2
    quick = replace(boxes, look=looks, time_s=boxes.time_s * 0.4)
    assert len(set(settled(quick, chain, company))) == 1  # so soon hardly anything takes its place
    looks[6:] = np.nan
    assert len(set(settled(replace(boxes, look=looks), chain, company))) == 1


def test_the_weakest_link_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(2)
    chain = np.sort(rng.integers(0, 4, 60))
    frame = np.concatenate([np.arange(n) for n in np.bincount(chain)])
    margin = rng.uniform(size=60).astype(np.float32)
    pairs = [(a, b) for a in range(60) for b in range(a + 1, 60) if chain[a] == chain[b]]
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    found = weakest(chain, frame, margin, first, second)
    assert found.tolist() == [margin[a + 1 : b + 1].min() for a, b in pairs]


def test_embeddings_are_compared_by_cosine() -> None:
    a, b = np.array([[3.0, 0], [1, 1], [np.nan, 0]], np.float32), np.array([[1.0, 0], [1, -1], [1, 0]], np.float32)
    assert Measure(unit=0.5, cosine=True)(a, b) == pytest.approx([0, 2, np.nan], nan_ok=True)


TRACKS = {
    "koi": ("Koi_5652_952_540", (1080, 900, 630, 170)),
    "pigeons 29033": ("Pigeons_29033_960_540_300f", (3300, 2936, 2261, 982)),
    "pigeons 8234": ("Pigeons_8234_1280_720", (2950, 2500, 1850, 797)),
}


@pytest.mark.real_data
@pytest.mark.skipif("WILDRAY_TEST_DATA" not in os.environ, reason="WILDRAY_TEST_DATA names no folder of real data")
@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize(("every", "purity"), [(1, 0.985), (3, 0.98), (12, 0.955)])
def test_real_herds_are_told_apart(name: str, every: int, purity: float) -> None:
    """Truth boxes with corner jitter of 5 % and a tenth of them dropped; some slack, since it is one draw."""
    stem, least = TRACKS[name]
    truth = np.load(Path(os.environ["WILDRAY_TEST_DATA"]) / "tracks" / f"{stem}.npz")
    rng = np.random.default_rng(0)
    order = np.argsort(truth["frame"], kind="stable")
    frame, label, xywh, look = (truth[key][order] for key in ("frame", "label", "xywh", "rgb54"))
    size = np.tile(xywh[:, 2:], 2)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) + rng.normal(0, 0.05, size.shape) * size
    kept = np.flatnonzero((rng.uniform(size=len(frame)) >= 0.1) & ((frame - 1) % every == 0))
    number, num_frames = (frame[kept] - 1) // every, (frame.max() - 1) // every + 1
    boxes = Sightings(
        np.ascontiguousarray(xyxy[kept].T.astype(np.float64)), np.zeros(len(kept), np.int64),
        look[kept].astype(np.float32), Measure(), number, np.zeros(num_frames, np.int64),
        np.arange(num_frames) * every / 25.0,
    )  # fmt: skip
    starts = np.searchsorted(number, np.arange(num_frames + 1))
    _, company = seen_twice(boxes.xyxy, boxes.category, np.ones(len(kept), np.float32), starts)
    tracklet = settled(boxes, chained(boxes, RULES).chain, company)
    at = {(t, f): row for row, (t, f) in enumerate(zip(tracklet, number, strict=True))}
    for gap, fewest in zip((12, 24, 48, 120), least, strict=True):
        found = [(row, at[t, f + gap // every]) for (t, f), row in at.items() if (t, f + gap // every) in at]
        right = sum(label[kept[a]] == label[kept[b]] for a, b in found)
        print(name, every, gap, len(found), right)
        if every == 1:
            assert len(found) >= fewest
        if len(found) > 20:
            assert right / len(found) >= purity

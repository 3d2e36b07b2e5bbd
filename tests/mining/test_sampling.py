from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildray.mining.sampling import PacketIndex, choose_frames, plan_runs, within


def naive_exact(times, end, interval):
    chosen, target = set(), 0.0
    for step in range(100_000):
        target = step * interval
        if target >= end - 1e-9:
            break
        chosen.add(max(i for i, t in enumerate(times) if t <= target + 1e-6))
    return sorted(chosen)


def naive_keyframe(times, key, end, interval):
    chosen = set()
    numbers = [i for i, is_key in enumerate(key) if is_key]
    for step in range(100_000):
        target = step * interval
        if target >= end - 1e-9:
            break
        chosen.add(min(numbers, key=lambda i: (round(abs(times[i] - target), 9), i)))
    return sorted(chosen)


gaps = st.lists(st.integers(1, 900), min_size=0, max_size=30)


@settings(max_examples=150, deadline=None)
@given(gaps, st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]), st.integers(1, 900))
def test_exact_takes_the_frame_shown_at_each_target(gaps_ms, interval, last_ms):
    times = np.concatenate([[0], np.cumsum(gaps_ms)]) / 1000
    end = times[-1] + last_ms / 1000
    got = choose_frames(times, np.ones(len(times), bool), end_s=end, interval_s=interval)
    assert got.tolist() == naive_exact(times.tolist(), end, interval)


@settings(max_examples=150, deadline=None)
@given(gaps, st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]), st.integers(0, 2**31))
def test_keyframe_takes_the_nearest_key_frame_of_each_target(gaps_ms, interval, seed):
    times = np.concatenate([[0], np.cumsum(gaps_ms)]) / 1000
    key = np.random.default_rng(seed).random(len(times)) < 0.3
    key[0] = True
    end = times[-1] + 0.04
    got = choose_frames(times, key, end_s=end, interval_s=interval, sampling="keyframe")
    assert got.tolist() == naive_keyframe(times.tolist(), key.tolist(), end, interval)


def test_interval_zero_takes_every_frame():
    times = np.arange(7) / 30
    assert choose_frames(times, np.ones(7, bool), end_s=0.25, interval_s=0).tolist() == list(range(7))


def test_windows_partition_what_one_pass_gives():
    times = np.sort(np.random.default_rng(3).random(200) * 60)
    times -= times[0]
    chosen = choose_frames(times, np.ones(200, bool), end_s=60.0, interval_s=0.7)
    borders = [0.0, 7.3, 20.0, 41.1, None]
    parts = [within(chosen, times, start_s=a, stop_s=b) for a, b in pairwise(borders)]
    assert np.concatenate(parts).tolist() == chosen.tolist()
    assert all(len(part) for part in parts)


def index_of(pts, keys):
    pts = np.array(pts, dtype=np.int64)
    key = np.isin(np.arange(len(pts)), keys)
    return PacketIndex(pts, np.arange(len(pts)), key, np.ones(len(pts), bool), 0.1, len(pts) / 10)


def test_runs_begin_at_key_packets_and_hold_each_frame_once():
    # decoding order of two groups I P B B | I P B B, presented as 0 3 1 2 | 4 7 5 6
    index = index_of([0, 3, 1, 2, 4, 7, 5, 6], [0, 4])
    runs = plan_runs(index, np.array([1, 6]), max_gap=0)
    assert [(run.first, run.last, run.frames) for run in runs] == [(0, 2, (1,)), (4, 7, (6,))]
    merged = plan_runs(index, np.array([1, 6]), max_gap=4)
    assert [(run.first, run.last, run.frames) for run in merged] == [(0, 7, (1, 6))]


def test_leading_pictures_of_an_open_group_begin_a_group_earlier():
    # I P | I(pts 4) B(2) B(3): the last two come after the key packet and are shown before it
    index = index_of([0, 1, 4, 2, 3], [0, 2])
    assert [(run.first, run.last) for run in plan_runs(index, np.array([2]), max_gap=0)] == [(0, 3)]
    assert [(run.first, run.last) for run in plan_runs(index, np.array([4]), max_gap=0)] == [(2, 2)]


def test_frames_that_are_not_shown_have_no_number():
    index = index_of([0, 1, 2, 3], [0])
    index = PacketIndex(**{**vars(index), "shown": np.array([False, True, True, True])})
    assert index.order.tolist() == [1, 2, 3]
    assert index.times_s == pytest.approx([0.0, 0.1, 0.2])

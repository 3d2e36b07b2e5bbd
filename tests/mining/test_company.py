"""Which gaps between frames are worth a denser look: against loops, and on cases with a known end."""

import itertools

import numpy as np
import pytest

from wildray.mining.boxes import box_iou_rows
from wildray.mining.company import LOOK_FRAMES, Gaps, crowd_sizes, find_gaps, spans_of, within_budget

CROWD = np.array([0, 2, 0, 0, 3])


def by_loops(xyxy, frame, num_frames, near):
    counts = [0] * num_frames
    for a in range(len(frame)):
        for b in range(len(frame)):
            if a == b or frame[a] != frame[b]:
                continue
            gap_x = max(xyxy[a][0], xyxy[b][0]) - min(xyxy[a][2], xyxy[b][2])
            gap_y = max(xyxy[a][1], xyxy[b][1]) - min(xyxy[a][3], xyxy[b][3])
            width = (xyxy[a][2] - xyxy[a][0] + xyxy[b][2] - xyxy[b][0]) / 2
            height = (xyxy[a][3] - xyxy[a][1] + xyxy[b][3] - xyxy[b][1]) / 2
            if gap_x <= near * width and gap_y <= near * height and box_iou_rows([xyxy[a]], [xyxy[b]])[0] < 0.8:
                counts[frame[a]] += 1
                break
    return counts


@pytest.mark.parametrize("near", [0.0, 0.5, 2.0])
def test_animals_near_each_other_are_those_of_a_loop(near):
    rng = np.random.default_rng(0)
    frame = np.sort(rng.integers(0, 60, 200))
    corner = rng.uniform(0, 300, (200, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(10, 60, (200, 2))], axis=1)
    twin = 1 + np.flatnonzero(np.diff(frame) == 0)[::5]
    xyxy[twin] = xyxy[twin - 1] + 0.5  # seen twice
    found = crowd_sizes(xyxy.T, frame, 60, where="company", near=near)
    np.testing.assert_array_equal(found, by_loops(xyxy.tolist(), frame.tolist(), 60, near))
    np.testing.assert_array_equal(
        crowd_sizes(xyxy.T, frame, 60, where="animals", near=near), np.bincount(frame, minlength=60)
    )


def gaps(times, media=None, *, aligned=True, end=5.0, step=0.2):
    media = np.zeros(len(times), dtype=np.int64) if media is None else np.array(media)
    ends, steps = np.full(2, end), np.full(2, step)
    return find_gaps(media, np.array(times, float), CROWD[: len(times)], end_s=ends, step_s=steps, aligned=aligned)


def test_gaps_border_on_company():
    found = gaps([0, 1, 2, 3, 4])
    assert found.start_s.tolist() == [0, 1, 3, 4], "between the frames at 2 s and 3 s nobody is near another"
    assert found.stop_s.tolist() == [1, 2, 4, np.inf]
    assert found.crowd.tolist() == [2, 2, 3, 3]
    assert found.cost.tolist() == [4, 4, 4, 4]
    assert gaps([0, 1, 2, 3, 4], aligned=False).cost.tolist() == [5, 5, 5, 5]


def test_gaps_of_different_files_do_not_mix_and_begin_before_a_late_first_frame():
    found = gaps([0, 1, 0.6, 1, 2], [0, 0, 1, 1, 1])
    assert found.media.tolist() == [0, 0, 1, 1]
    assert found.start_s.tolist() == [0, 1, 1, 2]
    assert gaps([0, 0.6], [0, 1]).start_s.tolist() == [0, 0.6]
    assert gaps([0, 1], end=np.nan).start_s.tolist() == [0], "nobody knows how much is left"
    for step in (1.0, 4.0):
        assert gaps([0, 1, 2], end=3.0, step=step, aligned=False).cost.tolist() == [], "nothing lies between"
    assert len(gaps([]).cost) == 0


def test_the_most_crowded_go_first():
    crowd, cost = np.array([2, 5, 3, 3, 2]), np.array([4, 4, 4, 8, 4])
    for budget, expected in ((0, ""), (4, "1"), (8, "12"), (15, "12"), (16, "123"), (20, "0123"), (99, "01234")):
        assert "".join(map(str, np.flatnonzero(within_budget(crowd, cost, budget)))) == expected, budget


def cut(starts, stops, *, step=0.1, window=600.0, last=0, media=None):
    starts, stops = np.array(starts, float), np.array(stops, float)
    length = np.where(np.isinf(stops), 1.0, stops - starts)
    files = np.zeros(len(starts), dtype=np.int64) if media is None else np.array(media)
    some = Gaps(files, starts, stops, files, np.round(length / step).astype(np.int64))
    looks = spans_of(some, window_s=window, last_window=np.full(2, last), step_s=np.full(2, step))
    assert sum(look.num_frames for look in looks) == pytest.approx(some.cost.sum())
    return [(look.media, look.starts_s, look.stops_s) for look in looks]


def test_gaps_that_touch_are_one_span_and_spans_of_a_window_one_look():
    assert cut([0, 1, 5], [1, 2, np.inf]) == [(0, [0, 5], [2, None])]
    assert cut([0, 1, 5], [1, 2, 6], media=[0, 1, 1]) == [(0, [0], [1]), (1, [1, 5], [2, 6])]
    assert cut([8, 9, 10], [9, 10, 11], window=10.0, last=2) == [(0, [8], [10]), (0, [10], [11])]
    assert cut([8, 19, 35], [9, 20, 36], window=10.0, last=1) == [(0, [8], [9]), (0, [19, 35], [20, 36])]


def test_no_look_holds_more_frames_than_memory_has_room_for():
    looks = cut([0, 400], [400, 410])
    spans = [(start, stop) for _, starts, stops in looks for start, stop in zip(starts, stops, strict=True)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 410
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans)), "nothing is left out, nothing done twice"
    for _, starts, stops in looks:
        assert sum(stop - start for start, stop in zip(starts, stops, strict=True)) / 0.1 <= LOOK_FRAMES + 1e-6

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_rows import Clip, frames_table, media_table

from wildray.errors import DataError
from wildray.mining.intervals import frame_pairs
from wildray.mining.sequences import STRETCH, Frames, assign_sequences, group_medians
from wildray.units import Interval


def empty(count: int) -> list[list[object]]:
    return [[] for _ in range(count)]


def groups(clips: list[Clip], *, gap_s: float = 60.0) -> set[frozenset[str]]:
    rows = assign_sequences(media_table(clips), gap_s=gap_s).to_pylist()
    names = {clip.media_id: clip.name for clip in clips}
    found: dict[int, set[str]] = {}
    for row in rows:
        found.setdefault(row["sequence_id"], set()).add(names[row["media_id"]])
    return {frozenset(group) for group in found.values()}


def looked_at(clips: list[Clip], *, gap_s: float = 60.0) -> tuple[Frames, list[tuple[str, int]]]:
    sequences = assign_sequences(media_table(clips), gap_s=gap_s)
    frames = Frames.of(frames_table(clips), sequences)
    names = {clip.media_id: clip.name for clip in clips}
    files = [names[media_id] for media_id in sequences["media_id"].to_pylist()]
    return frames, [(files[m], int(i)) for m, i in zip(frames.media, frames.frame_index, strict=True)]


def pairs(clips: list[Clip], interval: str, *, gap_s: float = 60.0) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    frames, names = looked_at(clips, gap_s=gap_s)
    return [(names[a], names[b]) for a, b in zip(*frame_pairs(frames, Interval(interval)), strict=True)]


def test_files_of_a_camera_join_where_less_than_the_gap_lies_between_them() -> None:
    # a lasts 10 s; b begins 59.9 s after its end, c 60 s after b's end
    clips = [Clip("a", empty(100)), Clip("b", empty(100), at_s=69.9), Clip("c", empty(100), at_s=139.9)]
    assert groups(clips) == {frozenset("ab"), frozenset("c")}
    assert groups(clips, gap_s=60.1) == {frozenset("abc")}


def test_a_long_file_holds_a_sequence_together_beyond_shorter_ones_that_begin_later() -> None:
    clips = [Clip("long", empty(3000)), Clip("short", empty(10), at_s=20.0), Clip("late", empty(10), at_s=350.0)]
    assert groups(clips) == {frozenset({"long", "short", "late"})}


def test_cameras_and_wrong_clocks_are_kept_apart() -> None:
    clips = [
        Clip("a", empty(10)),
        Clip("b", empty(10), at_s=5.0),
        Clip("other", empty(10), camera="cam2"),
        Clip("epoch1", empty(10), flag="epoch"),
        Clip("epoch2", empty(10), flag="epoch", at_s=2.0),
        Clip("back", empty(10), flag="backwards", at_s=3.0),
        Clip("none1", empty(10), at_s=None),
        Clip("none2", empty(10), at_s=None),
        Clip("future1", empty(10), flag="future", at_s=1e9),
        Clip("future2", empty(10), flag="future", at_s=1e9 + 10),
    ]
    alone = [frozenset({name}) for name in ("other", "epoch1", "epoch2", "back", "none1", "none2")]
    assert groups(clips) == {frozenset("ab"), frozenset({"future1", "future2"}), *alone}


def test_a_file_that_is_listed_twice_counts_once() -> None:
    media = media_table([Clip("a", empty(10)), Clip("b", empty(10), at_s=500.0)])
    once, twice = assign_sequences(media, gap_s=60), assign_sequences(pa.concat_tables([media, media]), gap_s=60)
    assert twice.equals(once)


def test_no_media_give_no_sequences() -> None:
    sequences = assign_sequences(media_table([]), gap_s=60)
    assert sequences.num_rows == 0
    assert len(Frames.of(frames_table([]), sequences)) == 0
    assert [len(side) for side in frame_pairs(Frames.of(frames_table([]), sequences), Interval("2s"))] == [0, 0]


def test_stretches_are_even_and_never_cross_cameras() -> None:
    many = [Clip(f"m{i:05d}", [], at_s=i * 1000.0, times_s=[]) for i in range(STRETCH + 1)]
    sequences = assign_sequences(media_table([*many, Clip("x", [], camera="z", times_s=[])]), gap_s=60)
    sizes = np.bincount(sequences["stretch"].to_numpy())
    assert sorted(sizes.tolist()) == [1, STRETCH // 2, STRETCH // 2 + 1]


def test_the_order_of_rows_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    clips = [Clip(f"c{i}", empty(5), at_s=float(rng.integers(0, 2000)), camera=f"cam{i % 3}") for i in range(60)]
    media, frames = media_table(clips), frames_table(clips)
    sequences = assign_sequences(media, gap_s=60)
    shuffled = assign_sequences(media.take(pa.array(rng.permutation(len(media)))), gap_s=60)
    assert shuffled.equals(sequences)
    one = Frames.of(frames, sequences)
    other = Frames.of(frames.take(pa.array(rng.permutation(len(frames)))), sequences)
    for name in ("media", "sequence", "frame_index", "time_us", "base", "starts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("interval", ["2s", "20frames", "4captures"])
def test_each_unit_finds_the_frame_one_interval_on(interval: str) -> None:
    clips = [Clip("a", empty(6), every=5)]  # 10 fps, a frame every 0.5 s
    assert pairs(clips, interval) == [(("a", 0), ("a", 20)), (("a", 5), ("a", 25))]


def test_seconds_and_captures_cross_files_frames_do_not() -> None:
    clips = [Clip("a", empty(3), every=5), Clip("b", empty(3), every=5, at_s=30.0)]
    assert pairs(clips, "30s") == [(("a", i), ("b", i)) for i in (0, 5, 10)]
    assert pairs(clips, "2captures") == [
        (("a", 0), ("a", 10)),
        (("a", 5), ("b", 0)),
        (("a", 10), ("b", 5)),
        (("b", 0), ("b", 10)),
    ]
    assert pairs(clips, "300frames") == []
    assert pairs(clips, "30s", gap_s=10.0) == []


def test_seconds_take_the_nearest_frame_within_half_the_spacing() -> None:
    # frames at 0, 0.5, 1.0 ...: the partner of an interval of 0.7 s is 0.2 s off, of 0.75 s as far as allowed
    clips = [Clip("a", empty(5), every=50, fps=100.0)]
    assert pairs(clips, "0.7s") == [(("a", i), ("a", i + 50)) for i in (0, 50, 100, 150)]
    assert pairs(clips, "0.75s") == [(("a", i), ("a", i + 50)) for i in (0, 50, 100, 150)]
    assert pairs(clips, "0.76s") == [(("a", i), ("a", i + 100)) for i in (0, 50, 100)]
    assert pairs(clips, "0.24s") == []  # nearest to itself


def test_where_every_frame_was_looked_at_no_other_than_the_one_on_screen_counts() -> None:
    missing = [0.0, 0.1, 0.2, 0.4, 0.5, 0.6]  # 0.3 could not be decoded
    clips = [Clip("a", empty(6), times_s=missing)]
    assert pairs(clips, "0.3s") == [(("a", 1), ("a", 4)), (("a", 2), ("a", 5))]
    assert pairs(clips, "3frames") == [(("a", 1), ("a", 4)), (("a", 2), ("a", 5))]


def test_frames_take_the_nearest_index_within_half_the_step() -> None:
    clips = [Clip("a", empty(4), every=12)]  # indices 0, 12, 24, 36
    expected = [(("a", 0), ("a", 24)), (("a", 12), ("a", 36))]
    assert pairs(clips, "30frames") == expected
    assert pairs(clips, "31frames") == [(("a", 0), ("a", 36))]
    assert pairs(clips, "18frames") == [(("a", 0), ("a", 12)), (("a", 12), ("a", 24)), (("a", 24), ("a", 36))]


def test_denser_passes_bring_nearer_frames_and_leave_the_tolerance() -> None:
    times, passes = [0.0, 0.5, 0.6, 0.7, 1.0], [0, 0, 1, 1, 0]
    clips = [Clip("a", empty(5), times_s=times, passes=passes)]
    assert pairs(clips, "0.7s") == [(("a", 0), ("a", 7)), (("a", 5), ("a", 10))]


def test_bursts_of_stills_keep_their_order_within_a_second() -> None:
    clips = [Clip(f"s{i}", empty(1), at_s=float(i // 3), kind="still") for i in range(5)]
    assert pairs(clips, "1capture") == [((f"s{i}", 0), (f"s{i + 1}", 0)) for i in range(4)]
    assert pairs(clips, "1s", gap_s=60) == [(("s0", 0), ("s3", 0)), (("s1", 0), ("s3", 0)), (("s2", 0), ("s3", 0))]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_frame_pairs_equal_a_naive_search(data: st.DataObject) -> None:
    clips = []
    for number in range(data.draw(st.integers(1, 4))):
        indices = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=12)))
        at = float(data.draw(st.integers(0, 30)))
        clips.append(Clip(f"c{number}", empty(len(indices)), times_s=[i / 10 for i in indices], at_s=at))
    unit = data.draw(st.sampled_from(["s", "frames"]))
    value = data.draw(st.integers(1, 40))
    interval = f"{value / 10}s" if unit == "s" else f"{value}frames"
    frames, names = looked_at(clips)
    media, time, index = frames.media, frames.time_us, frames.frame_index
    expected = []
    for a in range(len(frames)):
        of_file = [b for b in range(len(frames)) if media[b] == media[a]]
        of_file.sort(key=lambda b: index[b])
        mates = [b for b in range(len(frames)) if frames.sequence[b] == frames.sequence[a]]
        axis, among, wanted = (time, mates, value * 100_000) if unit == "s" else (index, of_file, value)
        steps = np.diff(axis[of_file if len(of_file) > 1 else among])
        spacing = int(np.median(steps)) if len(steps) and (unit == "s" or len(of_file) > 1) else 0
        if unit == "frames" and spacing <= 1:
            spacing = 0
        later = among[among.index(a) + 1 :]
        near = [b for b in later if abs(int(axis[b]) - int(axis[a]) - wanted) <= spacing // 2]
        if near:
            expected.append((names[a], names[min(near, key=lambda b: (abs(int(axis[b]) - int(axis[a]) - wanted), b))]))
    found = [(names[a], names[b]) for a, b in zip(*frame_pairs(frames, Interval(interval)), strict=True)]
    assert found == expected


def test_a_box_on_a_frame_that_was_not_looked_at_is_refused() -> None:
    frames, _ = looked_at([Clip("a", empty(3))])
    assert frames.find(np.array([0, 0]), np.array([2, 1])).tolist() == [2, 1]
    with pytest.raises(DataError, match="run detect again"):
        frames.find(np.array([0]), np.array([3]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), max_size=30))
def test_group_medians_equal_numpys(items: list[tuple[int, int]]) -> None:
    groups_, values = np.array([g for g, _ in items], dtype=np.int64), np.array([v for _, v in items], dtype=float)
    expected = [np.median(values[groups_ == g]) if (groups_ == g).any() else np.nan for g in range(6)]
    np.testing.assert_array_equal(group_medians(values, groups_, 6), expected)

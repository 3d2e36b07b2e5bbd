from datetime import UTC, datetime, timedelta

import pytest

from wildray.errors import ConfigError
from wildray.mining.clock import captured, clock_flag, flag_clocks, natural_key, parse_time, zone_of

NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected", "zone"),
    [
        ("2024-05-01T06:30:00+02:00", datetime(2024, 5, 1, 4, 30, tzinfo=UTC), "+02:00"),
        ("2024-05-01T06:30:00-0330", datetime(2024, 5, 1, 10, 0, tzinfo=UTC), "-03:30"),
        ("2024-05-01T06:30:00Z", datetime(2024, 5, 1, 6, 30, tzinfo=UTC), "UTC"),
        ("2017-07-12T05:18:20.250000Z", datetime(2017, 7, 12, 5, 18, 20, 250000, tzinfo=UTC), "UTC"),
        ("2024:05:01 06:30:00", datetime(2024, 5, 1, 4, 30, tzinfo=UTC), "Africa/Johannesburg"),
        ("2024-05-01 06:30", datetime(2024, 5, 1, 4, 30, tzinfo=UTC), "Africa/Johannesburg"),
        ("2024-05-01", datetime(2024, 4, 30, 22, 0, tzinfo=UTC), "Africa/Johannesburg"),
        ("2024-05-01 06:30:00 +05", datetime(2024, 5, 1, 1, 30, tzinfo=UTC), "+05:00"),
    ],
)
def test_times_are_read_with_their_zone_or_the_cameras(text, expected, zone):
    capture = parse_time(text, time_zone="Africa/Johannesburg")
    assert (capture.at, capture.text, capture.zone) == (expected, text, zone)


def test_daylight_saving_follows_the_date():
    summer = parse_time("2024-07-01 12:00:00", time_zone="Europe/Berlin").at
    winter = parse_time("2024-01-01 12:00:00", time_zone="Europe/Berlin").at
    assert (summer.hour, winter.hour) == (10, 11)


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "2024-02-30 10:00:00", "12:00", "0000-00-00 00:00:00"])
def test_what_is_no_time_is_none(text):
    assert parse_time(text, time_zone="UTC") is None


def test_the_manifest_goes_before_exif_and_exif_before_the_container():
    tags = {"exif_time": "2022:01:01 00:00:00", "exif_offset": "+01:00", "creation_time": "2021-01-01T00:00:00Z"}
    assert captured(tags, given="2023-01-01T00:00:00Z", time_zone="UTC").at.year == 2023
    assert captured(tags, given=None, time_zone="UTC").at == datetime(2021, 12, 31, 23, tzinfo=UTC)
    assert captured({"creation_time": tags["creation_time"]}, given=None, time_zone="UTC").at.year == 2021
    apple = {"com.apple.quicktime.creationdate": "2020-06-01T10:00:00+0200", "creation_time": "2020-06-01T08:00:01Z"}
    assert captured(apple, given=None, time_zone="UTC").zone == "+02:00"
    assert captured({}, given=None, time_zone="UTC").at is None


def test_an_unreadable_clock_keeps_its_words():
    capture = captured({"creation_time": "no idea"}, given=None, time_zone="UTC")
    assert (capture.at, capture.text) == (None, "no idea")


@pytest.mark.parametrize(
    ("at", "flag"),
    [
        (None, "none"),
        (datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), "epoch"),
        (datetime(1904, 1, 1, tzinfo=UTC), "epoch"),
        (datetime(2000, 1, 1, 3, 0, tzinfo=UTC), "epoch"),
        (datetime(2000, 1, 2, tzinfo=UTC), "ok"),
        (NOW + timedelta(hours=23), "ok"),
        (NOW + timedelta(hours=25), "future"),
    ],
)
def test_flags_of_one_time(at, flag):
    assert clock_flag(at, now=NOW) == flag


def row(uri, minute, camera="a", year=2024):
    at = None if minute is None else datetime(year, 5, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return {"uri": uri, "camera_id": camera, "captured_at": at, "clock_flag": "?"}


def flags(rows):
    return [row["clock_flag"] for row in flag_clocks(rows, now=NOW)]


def test_a_clock_that_runs_backwards_is_flagged_in_the_order_of_the_names():
    rows = [row("/a/IMG_10.AVI", 5), row("/a/IMG_9.AVI", 20), row("/a/IMG_8.JPG", 10), row("/a/IMG_11.AVI", 25)]
    assert flags(rows) == ["backwards", "ok", "ok", "ok"]


def test_cameras_and_series_of_names_are_told_apart():
    assert flags([row("/a/IMG_1.AVI", 20), row("/b/IMG_2.AVI", 10, camera="b")]) == ["ok", "ok"]
    assert flags([row("/a/IMG_1.AVI", 20), row("/a/deer_2.AVI", 10)]) == ["ok", "ok"]
    assert flags([row("/a/100EKTAM/IMG_9999.AVI", 20), row("/a/101EKTAM/IMG_0001.AVI", 10)]) == ["ok", "backwards"]


def test_a_lying_clock_does_not_make_the_others_backwards():
    rows = [
        row("/a/IMG_1.AVI", 0, year=2040),
        row("/a/IMG_2.AVI", 10),
        row("/a/IMG_3.AVI", None),
        row("/a/IMG_4.AVI", 12),
    ]
    assert flags(rows) == ["future", "ok", "none", "ok"]


def test_flags_leave_rows_and_order_alone():
    rows = [row("/a/2.avi", 1), row("/a/1.avi", 2)]
    flagged = flag_clocks(rows, now=NOW)
    assert [r["uri"] for r in flagged] == ["/a/2.avi", "/a/1.avi"]
    assert rows[0]["clock_flag"] == "?"


def test_an_unknown_zone_is_named():
    with pytest.raises(ConfigError, match=r"'Mars/Base'.*IANA"):
        zone_of("Mars/Base")


def test_natural_order():
    assert sorted(["b2", "b10", "b1", "a"], key=natural_key) == ["a", "b1", "b2", "b10"]

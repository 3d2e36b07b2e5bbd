"""When a file was captured, by its camera's own words, and whether those are to be believed.

In: the text of a manifest, of EXIF or of a container, and the zone that cameras without one keep. Out: an instant in
UTC with the original text and zone, and a flag for clocks that lie. The time of the file system is never used: copying
a card changes it. The alternative, dropping doubtful times, would lose the chance to correct them later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wildray.errors import ConfigError

FIRST_YEAR = 1990
"""No digital camera trap is older: earlier times are those of a clock that was never set (1970, 1904, 1980)."""

_TIME = re.compile(
    r"(\d{4})[-:/](\d{1,2})[-:/](\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?\s*"
    r"(Z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
)


@dataclass(frozen=True)
class Capture:
    """When a file was captured.

    Attributes:
        at: The instant, in UTC; None where there is no clock.
        text: The words it was read from.
        zone: ``UTC``, an offset such as ``+02:00``, or the name of the zone that was assumed.
    """

    at: datetime | None = None
    text: str | None = None
    zone: str | None = None


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name.

    Raises:
        ConfigError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"detect.time_zone: got {name!r}, expected an IANA name such as UTC or Africa/Johannesburg."
        ) from None


def parse_time(text: str, *, time_zone: str) -> Capture | None:
    """Read a time as ISO 8601, EXIF and manifests write it: ``2024-05-01T06:30:00+02:00``, ``2024:05:01 06:30:00``.

    Args:
        text: The words.
        time_zone: IANA name of the zone where the words have none.

    Returns:
        The capture, or None where the words are no time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    micro = int((fraction or "0").ljust(6, "0")[:6])
    try:
        naive = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro)
        zone: tzinfo
        if offset in ("Z", "UTC"):
            zone, name = UTC, "UTC"
        elif offset:
            digits = offset[1:].replace(":", "").ljust(4, "0")
            shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            zone, name = timezone(-shift if offset[0] == "-" else shift), f"{offset[0]}{digits[:2]}:{digits[2:]}"
        else:
            zone, name = zone_of(time_zone), time_zone
        return Capture(naive.replace(tzinfo=zone).astimezone(UTC), text.strip(), name)
    except (ValueError, OverflowError):
        return None  # month 13, or an instant before year 1


def captured(tags: Mapping[str, str], *, given: str | None, time_zone: str) -> Capture:
    """The best of what is known: the manifest's words, else EXIF, else the container's.

    A container's ``Z`` is taken at its word, although many cameras write local time there.

    Args:
        tags: Of ``FrameSource.probe``.
        given: What the manifest says, if anything.
        time_zone: IANA name of the zone of clocks that do not say theirs.
    """
    words = [given] if given else []
    if "exif_time" in tags:
        words.append(tags["exif_time"] + tags.get("exif_offset", ""))
    words += [tags[name] for name in ("com.apple.quicktime.creationdate", "creation_time") if name in tags]
    for text in words:
        capture = parse_time(text, time_zone=time_zone)
        if capture is not None:
            return capture
    return Capture(text=words[0] if words else None)


def clock_flag(at: datetime | None, *, now: datetime | None = None) -> str:
    """The flag of one time by itself: ``none``, ``epoch``, ``future`` (by more than a day) or ``ok``."""
    last_us = _microseconds((now or datetime.now(UTC)) + timedelta(days=1))
    return _flag(_microseconds(at) if at is not None else None, last_us)


def flag_clocks(rows: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> list[dict[str, Any]]:
    """Set ``clock_flag`` of Media rows, looking at the other files of each camera too.

    Args:
        rows: Media rows.
        now: The present; by default the machine's clock.

    Returns:
        Copies of the rows, in the same order, with the flags of ``clock_flags``.
    """
    listed = list(rows)
    flags = clock_flags(
        [row["camera_id"] for row in listed],
        [str(row["uri"]) for row in listed],
        [_microseconds(row["captured_at"]) if row["captured_at"] is not None else None for row in listed],
        now=now,
    )
    return [{**row, "clock_flag": flag} for row, flag in zip(listed, flags, strict=True)]


def clock_flags(
    cameras: Sequence[Hashable],
    uris: Sequence[str],
    captured_at_us: Sequence[int | None],
    *,
    now: datetime | None = None,
) -> list[str]:
    """The flags of many files, looking at the other files of each camera too.

    ``backwards`` is a time earlier than that of a file which the same camera wrote before. Cameras number what they
    write, so only files of one camera whose names differ in nothing but digits and the suffix are compared.

    Args:
        cameras: Of each file, its name or number.
        uris: Of each file.
        captured_at_us: Microseconds since 1970 (UTC) of each file; None where there is no clock.
        now: The present; by default the machine's clock.

    Returns:
        A flag for each file.
    """
    last_us = _microseconds((now or datetime.now(UTC)) + timedelta(days=1))
    flags = [_flag(at_us, last_us) for at_us in captured_at_us]
    keys = [natural_key(uri) if flag == "ok" else "" for uri, flag in zip(uris, flags, strict=True)]
    latest: dict[tuple[Hashable, str], int] = {}
    for index in sorted(range(len(flags)), key=keys.__getitem__):
        at_us = captured_at_us[index]
        if flags[index] != "ok" or at_us is None:
            continue
        series = (cameras[index], re.sub(r"\d+", "#", os.path.splitext(uris[index])[0]))
        before = latest.get(series)
        if before is not None and at_us < before:
            flags[index] = "backwards"
        latest[series] = at_us if before is None else max(before, at_us)
    return flags


def _flag(at_us: int | None, last_us: int) -> str:
    if at_us is None:
        return "none"
    # The clock of many cameras begins anew at 2000-01-01 when the batteries were out.
    if at_us < _FIRST_US or _RESET_US <= at_us < _RESET_US + _DAY_US:
        return "epoch"
    return "future" if at_us > last_us else "ok"


def _microseconds(at: datetime) -> int:
    return (at - _UNIX) // timedelta(microseconds=1)


_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_FIRST_US = _microseconds(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC))
_RESET_US = _microseconds(datetime(2000, 1, 1, tzinfo=UTC))


def natural_key(text: str) -> str:
    """A sorting key under which IMG_9 stands before IMG_10.

    One string: each number is written with its length before it, each run of other characters ends in a character
    below all others. A list of parts takes ten times the memory, which counts in collections of millions of files.
    """
    parts = re.split(r"(\d+)", text)
    for index in range(1, len(parts), 2):
        # by length and digits, not by value: Python refuses to make a number of thousands of digits
        digits = parts[index].lstrip("0")
        parts[index] = f"\0{len(digits):06d}{digits}"
    return "".join(parts) + "\0"

"""Typed lengths of time: a number never stands without its unit.

``Duration`` is a time in seconds (``0.5s``, ``2min``, ``1h``); ``Interval`` may also count frames or captures
(``120frames``, ``1capture``), since the published study is unclear about which it meant. Both are strings that know
their value, so that configuration files, the command line and digests show what the user wrote, in one spelling.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

_PATTERN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*")
_SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "seconds": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minutes": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_COUNTS = {"frame": "frames", "frames": "frames", "capture": "captures", "captures": "captures"}


def _parse(text: str, expected: str) -> tuple[float, str]:
    match = _PATTERN.fullmatch(text)
    if match is None or not match[2]:
        raise ValueError(f"got {text!r}, expected {expected}")
    return float(match[1]), match[2].lower()


def _format(number: float) -> str:
    return f"{number:.12g}"


class _Measure(str):
    """A string with a unit that pydantic validates and writes as text."""

    __slots__ = ()
    expected = "a number with its unit"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Validate by construction, write as text."""
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, value: object) -> _Measure:
        if not isinstance(value, str):
            raise ValueError(f"got {value!r}, expected {cls.expected}")
        return cls(value)


class Duration(_Measure):
    """A time: ``Duration("2min").seconds == 120``."""

    __slots__ = ()
    expected = "a time such as 0.5s, 2min, 1h"

    def __new__(cls, text: str) -> Duration:
        """Parse and spell in seconds; ValueError says what was expected."""
        number, unit = _parse(text, cls.expected)
        if unit not in _SECONDS:
            raise ValueError(f"got {text!r}, expected {cls.expected}")
        return super().__new__(cls, _format(number * _SECONDS[unit]) + "s")

    @property
    def seconds(self) -> float:
        """The time in seconds."""
        return float(self[:-1])


class Interval(_Measure):
    """Seconds, frames or captures: ``Interval("120frames")`` has ``value`` 120 and ``unit`` ``frames``."""

    __slots__ = ()
    expected = "seconds (2s, 5min), frames (120frames) or captures (1capture)"

    def __new__(cls, text: str) -> Interval:
        """Parse and spell uniformly; ValueError says what was expected."""
        number, unit = _parse(text, cls.expected)
        if unit in _COUNTS:
            if number != int(number) or number < 1:
                raise ValueError(f"got {text!r}, expected a whole number of {_COUNTS[unit]} from 1")
            return super().__new__(cls, f"{int(number)}{_COUNTS[unit]}")
        if unit not in _SECONDS or number <= 0:
            raise ValueError(f"got {text!r}, expected {cls.expected}")
        return super().__new__(cls, _format(number * _SECONDS[unit]) + "s")

    @property
    def unit(self) -> Literal["s", "frames", "captures"]:
        """What is counted."""
        return "frames" if self.endswith("frames") else "captures" if self.endswith("captures") else "s"

    @property
    def value(self) -> float:
        """How many of the unit."""
        return float(self.removesuffix(self.unit))

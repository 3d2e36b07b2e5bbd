"""One setting that is searched: its values or interval, and when it matters.

In: a part of a sweep file. Out: a checked ``Dimension``, and an order in which conditions are known when asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from wildray.config.section import Section
from wildray.errors import ConfigError

KINDS = ("grid", "choice", "uniform", "loguniform", "integers")


class Dimension(Section):
    """One setting that is searched."""

    grid: tuple[Any, ...] | None = None
    """Every one of these values."""
    choice: tuple[Any, ...] | None = None
    """One of these values at random."""
    uniform: tuple[float, float] | None = None
    """A number between these two."""
    loguniform: tuple[float, float] | None = None
    """A number between these two, as often from each power of ten."""
    integers: tuple[int, int] | None = None
    """A whole number between these two, both included."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Other searched names to the value (or list of values) at which this setting matters; else it keeps its base."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        return {"grid": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'no values'}, expected one of {', '.join(KINDS)}")
        values = getattr(self, given[0])
        if not values:
            raise ValueError(f"got an empty {given[0]}, expected at least one value")
        if self.is_range and (not all(map(math.isfinite, values)) or values[0] >= values[1]):
            raise ValueError(f"got {given[0]} {list(values)}, expected a smaller and a larger number")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"got loguniform {list(values)}, expected numbers above 0")
        return self

    @property
    def is_range(self) -> bool:
        """Whether it is an interval of numbers and not a list of values."""
        return self.grid is None and self.choice is None

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of a list, or both ends of an interval."""
        return next(values for kind in KINDS if (values := getattr(self, kind)) is not None)


def ordered(search: Mapping[str, Dimension]) -> list[str]:
    """Names of what is searched, each after those it depends on.

    Raises:
        ConfigError: Two depend on each other.
    """
    done: list[str] = []
    left = list(search)
    while left:
        ready = [name for name in left if all(other in done for other in search[name].when)]
        if not ready:
            raise ConfigError(f"search: {' and '.join(left)} depend on each other.")
        done += ready
        left = [name for name in left if name not in ready]
    return done

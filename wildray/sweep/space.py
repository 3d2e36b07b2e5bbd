"""From what is searched to settings: every combination, draws at random, or Optuna's suggestions.

In: a ``SweepSpec``. Out: mappings of dotted name to value. A setting whose ``when`` does not hold is left out, so that
two combinations that differ in nothing else are one.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wildray.errors import ConfigError
from wildray.sweep.dimension import Dimension, ordered
from wildray.sweep.spec import SweepSpec

Settings = dict[str, Any]
MAX_GRID = 10_000
"""A grid of more combinations is a slip."""


def all_settings(spec: SweepSpec) -> list[Settings]:
    """The settings of a grid, or as many random ones as ``budget.trials`` says, in a fixed order without repetition.

    Raises:
        ConfigError: The grid is huge.
    """
    if spec.algorithm.kind == "grid":
        found = _grid(spec.search)
        return found if spec.budget.trials is None else found[: spec.budget.trials]
    assert spec.budget.trials is not None, "checked when the file was read"
    rng = np.random.default_rng(spec.algorithm.seed)
    distinct: dict[str, Settings] = {}
    for _ in range(50 * spec.budget.trials):  # small spaces have fewer settings than were asked for
        settings = _draw(spec.search, rng)
        distinct.setdefault(key_of(settings), settings)
        if len(distinct) == spec.budget.trials:
            break
    return list(distinct.values())


def suggested(search: Mapping[str, Dimension], trial: Any) -> Settings:
    """What an ``optuna.Trial`` suggests."""
    settings: Settings = {}
    for name in ordered(search):
        dimension = search[name]
        if not holds(dimension.when, settings):
            continue
        if not dimension.is_range:
            # Optuna takes plain values only; of others it gets the place in the list
            place = trial.suggest_categorical(name, list(range(len(dimension.values))))
            settings[name] = dimension.values[place]
        elif dimension.integers is not None:
            settings[name] = trial.suggest_int(name, *dimension.integers)
        else:
            settings[name] = trial.suggest_float(name, *dimension.values, log=dimension.loguniform is not None)
    return settings


def holds(when: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the settings are such that a dimension matters."""
    return all(
        name in settings and settings[name] in (value if isinstance(value, list | tuple) else (value,))
        for name, value in when.items()
    )


def key_of(settings: Mapping[str, Any]) -> str:
    """Text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def _grid(search: Mapping[str, Dimension]) -> list[Settings]:
    names = ordered(search)
    size = math.prod(len(search[name].values) for name in names)
    if size > MAX_GRID:
        raise ConfigError(f"The grid has {size:,} combinations, expected at most {MAX_GRID:,}: shorten its lists.")
    found: dict[str, Settings] = {}
    for values in itertools.product(*(search[name].values for name in names)):
        settings = _with_conditions(search, names, values)
        found.setdefault(key_of(settings), settings)
    return list(found.values())


def _draw(search: Mapping[str, Dimension], rng: np.random.Generator) -> Settings:
    names = ordered(search)
    # every dimension is drawn, also where it does not matter: a draw does not change with the conditions
    return _with_conditions(search, names, [drawn(search[name], rng) for name in names])


def drawn(dimension: Dimension, rng: np.random.Generator) -> Any:
    """A value of a dimension at random."""
    low, high = dimension.values[0], dimension.values[-1]
    if dimension.integers is not None:
        return int(rng.integers(low, high, endpoint=True))
    if dimension.loguniform is not None:
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))
    if dimension.uniform is not None:
        return float(rng.uniform(low, high))
    return dimension.values[int(rng.integers(len(dimension.values)))]


def _with_conditions(search: Mapping[str, Dimension], names: Sequence[str], values: Sequence[Any]) -> Settings:
    settings: Settings = {}
    for name, value in zip(names, values, strict=True):
        if holds(search[name].when, settings):
            settings[name] = value
    return settings

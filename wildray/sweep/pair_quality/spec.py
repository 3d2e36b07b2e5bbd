"""What a pair-quality file says: annotated footage, how it is looked at, and which mining settings are judged on it.

In: YAML. Out: a frozen ``PairGrid``, every name and value of which is tried out against the configuration. Paths may
hold variables of the environment (``$WILDRAY_TEST_DATA/tracks/...``): a file that says where data lies on one machine
is of no use on another.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from wildray.config import Config, field_names, read_mapping
from wildray.config.section import Section
from wildray.errors import ConfigError, nearest
from wildray.store import check_run_name


class Footage(Section):
    """Footage whose individuals are known."""

    media: tuple[str, ...] = ()
    """What detect is given: footage, a results file, or MOT ground truth, which is its own truth."""
    truth: tuple[str, ...] = ()
    """Truth files; default the MOT ground truth among ``media``, or the truth of the simulated reserve."""
    simulate: dict[str, Any] | None = None
    """Settings of a reserve that is made in the store, and is media and truth; with ``mot_fps`` under ``detect``, the
    true boxes of its clips stand for a detector's."""
    detect: dict[str, Any] = Field(default_factory=dict)
    """How it is looked at; of a setting with a list of values, every value makes a collection of its own."""

    advised: bool = True
    """Whether what to choose is derived from it: not where a detector's errors, and not the linker's, would decide."""

    def variables(self) -> list[str]:
        """Variables of the environment that its paths need and that are not set."""
        named = re.findall(r"\$\{?(\w+)", " ".join((*self.media, *self.truth)))
        return sorted({name for name in named if not os.environ.get(name)})

    def ways(self) -> dict[str, dict[str, Any]]:
        """Settings of detect by a name that tells them apart; every combination of the lists."""
        lists = {name: value for name, value in self.detect.items() if isinstance(value, list | tuple)}
        plain = {name: value for name, value in self.detect.items() if name not in lists}
        made = {}
        for values in itertools.product(*lists.values()):
            chosen = dict(zip(lists, values, strict=True))
            words = ", ".join(f"{name} {value}" for name, value in chosen.items())
            made[words] = {f"detect.{name}": value for name, value in {**plain, **chosen}.items()}
        return made


class PairGrid(Section):
    """A pair-quality file."""

    name: str = ""
    """Name of the study; default the name of the file."""
    description: str = ""
    """What it is for; shown on the page."""
    base: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Configuration of what is not searched."""
    grid: dict[str, tuple[Any, ...]]
    """Dotted names of mining settings to the values that are tried, every combination of them."""
    footage: dict[str, Footage] = Field(default_factory=dict)
    """Annotated footage by name."""

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, object] | None = None) -> Self:
        """Read and check a file.

        Args:
            path: YAML file.
            overrides: Dotted names of the configuration to values, laid over ``base``.

        Raises:
            ConfigError: The file cannot be read, or a name or value in it is not accepted.
        """
        path = Path(path).expanduser()
        content = read_mapping(path, what="pair-quality grid", expected="parts such as grid: and footage:")
        for name, value in (overrides or {}).items():
            section, _, field = name.replace("-", "_").partition(".")
            content.setdefault("base", {}).setdefault(section, {})[field] = value
        for key in content:
            if key not in cls.model_fields:
                raise ConfigError(f"{path}: a grid has no part {key!r}. {nearest(str(key), cls.model_fields)}")
        content["name"] = content.get("name") or path.stem
        try:
            grid = cls.model_validate(content)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            raise ConfigError(f"The pair-quality grid {path} does not hold:\n  " + "\n  ".join(lines)) from None
        grid.check(path)
        return grid

    def config(self, settings: Mapping[str, Any] | None = None) -> Config:
        """The configuration of some settings: ``base``, then ``settings`` by dotted name."""
        overrides = {f"{part}.{name}": value for part, fields in self.base.items() for name, value in fields.items()}
        return Config.load(overrides={**overrides, **(settings or {})})

    def points(self) -> list[dict[str, Any]]:
        """Every combination of the grid, by dotted name, in order."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def check(self, path: Path) -> None:
        """Refuse what does not go together; ConfigError."""
        check_run_name(self.name)
        self.config()
        known = [name for name, _, _ in field_names() if name.startswith("mine.") and name != "mine.detections"]
        for name, values in self.grid.items():
            if name not in known:
                raise ConfigError(f"{path}: grid: no setting of mining is called {name!r}. {nearest(name, known)}")
            if not values:
                raise ConfigError(f"{path}: grid: {name} has no values: give a list of one at least.")
            for value in values:
                self.config({name: value})
        for name, footage in self.footage.items():
            if (footage.simulate is None) == (not footage.media):
                raise ConfigError(f"{path}: footage: {name} needs either media: or simulate:, and has both or none.")
            if footage.simulate is not None:
                self.config({f"simulate.{key}": value for key, value in footage.simulate.items()})
            for settings in footage.ways().values():
                self.config(settings)

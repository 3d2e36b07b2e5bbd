"""Command-line options made from the configuration's fields: one dotted name for file, command line and sweep.

In: ``wildray.config``. Out: an argument parser whose every command takes every setting, shows in its help those it
uses, and answers an unknown option with the nearest known one. Writing the options out by hand would be a second list
of the same names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from wildray.config import PRESETS, Config, field_names
from wildray.errors import ConfigError, nearest

_UNSET = object()


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, with the command that shows what is right."""
        raise ConfigError(f"{message}. '{self.prog} --help' shows what is understood.")


def add_settings(parser: argparse.ArgumentParser, sections: Sequence[str]) -> None:
    """Add an option for every field; those of ``sections`` are shown in the help."""
    groups = {name: parser.add_argument_group(f"{name} settings", _summary(name)) for name in sections}
    defaults = Config()
    for name, model, field in field_names():
        section = name.partition(".")[0]
        info = model.model_fields[field]
        shown = section in groups
        value = _spelled(getattr(getattr(defaults, section), field))
        text = f"{info.description} [{value}]".replace("%", "%%") if shown else argparse.SUPPRESS
        hyphened = f"--{name.replace('_', '-')}"
        group = groups[section] if shown else parser
        group.add_argument(hyphened, dest=name, default=_UNSET, metavar=_words(info.annotation), help=text)
        if "_" in name:  # the spelling of configuration files; not shown twice
            parser.add_argument(f"--{name}", dest=name, default=_UNSET, help=argparse.SUPPRESS)


def add_common(parser: argparse.ArgumentParser, *, store: bool = True) -> None:
    """Add the options that every stage takes."""
    if store:
        parser.add_argument(
            "--store", default="wildray-store", metavar="FOLDER", help="where everything is kept [%(default)s]"
        )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; options on the command line win")
    parser.add_argument("--preset", metavar="NAME", help=f"settings to start from: {', '.join(PRESETS)}")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="Ray cluster to run on (or RAY_ADDRESS); default this machine"
    )
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is printed."""
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object, the last line of stdout"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="more log lines, and those of the workers")
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse; an unknown option is a ConfigError that names the nearest known one."""
    namespace, unknown = parser.parse_known_args(argv)
    strange = [word for word in unknown if word.startswith("-")]
    if strange:
        name = strange[0].split("=")[0]
        flags = getattr(namespace, "flags", [])
        raise ConfigError(f"No option is called {name!r}. {nearest(name.replace('_', '-'), flags)}")
    if unknown:
        raise ConfigError(
            f"{unknown[0]!r} was not expected here. '{parser.prog} {namespace.command} --help' shows the arguments."
        )
    return namespace


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every long option a parser knows."""
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that file, preset and options give together."""
    return Config.load(arguments.config, overrides_of(arguments), preset=arguments.preset)


def overrides_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given as options, by dotted name."""
    given = {name: value for name, value in vars(arguments).items() if "." in name and value is not _UNSET}
    tuples = {name for name, model, field in field_names() if "tuple" in str(model.model_fields[field].annotation)}
    overrides: dict[str, Any] = {}
    for name, value in given.items():
        if value.lower() == "null":
            overrides[name] = None
        elif name in tuples:
            overrides[name] = [part.strip() for part in value.split(",") if part.strip()]
        else:
            overrides[name] = value
    return overrides


def _summary(section: str) -> str:
    model = Config.model_fields[section].annotation
    return (getattr(model, "__doc__", None) or "").strip().split("\n")[0]


def _words(annotation: Any) -> str:
    """What stands for a value in the help: the words that are taken, or VALUE."""
    words = [str(word) for word in get_args(annotation)] if get_origin(annotation) is Literal else []
    return "{" + ",".join(words) + "}" if words else "VALUE"


def _spelled(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value) or "none"
    return str(value)

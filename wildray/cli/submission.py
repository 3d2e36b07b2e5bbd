"""What is submitted as a Ray job: words, name, code and environment, all before anything is sent.

In: the words after ``wildray submit``. Out: a ``Submission``. The stage's own arguments are parsed by the stage's own
parser, so that a typing error costs a second and not a queue. Paths become absolute, since a job has another working
directory; settings files travel with the code, since they are small and seldom lie where nodes see them. Packing the
working directory, as ``ray job submit`` does, would send stores and footage along.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wildray
from wildray.cli.cluster import NEEDED_ENVIRONMENT
from wildray.cli.options import config_of, overrides_of
from wildray.errors import ConfigError, nearest
from wildray.remote import is_remote

STAGES = ("detect", "mine", "pretrain", "evaluate", "sweep", "pipeline")
"""Those that ``jobs/`` has an entry point for."""
OWN_FLAGS = {"--follow", "--again"}
OWN_OPTIONS = {"--address", "--code", "--pass-env", "--status", "--stop"}
BARE_FLAGS = {"--json", "--verbose", "-v", "--quiet", "-q", "--dry-run"}
"""Options of stages that take no value."""
PATH_OPTIONS = {"--store", "--data", "--train.labels", "--detect.detector", "--backbone.weights"}
MAX_PACKAGE_BYTES = 20 * 2**20
"""Code alone is a fiftieth of it; Ray itself takes 500 MiB, and keeps it in the head's memory."""
CODE_SUFFIXES = {".py", ".typed", ".yaml", ".json"}
SENT = "submitted"
"""Folder of the settings files in the job's working directory."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Submission:
    """A job to be.

    Attributes:
        stage: Name of the command.
        words: Its arguments, as the job gets them.
        files: Settings files that travel along, by their name in the job's working directory.
        digest: Equal where command and settings are.
    """

    stage: str
    words: tuple[str, ...]
    files: dict[str, Path]
    digest: str

    @property
    def name(self) -> str:
        """Submission id of the first attempt."""
        return f"wildray-{self.stage}-{self.digest}"

    @property
    def entrypoint(self) -> str:
        """The job's shell command."""
        return shlex.join(["python", "-m", "wildray", self.stage, *self.words])


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part what is for ``submit`` from the stage with its arguments, in whatever order they were given."""
    own: list[str] = []
    stage: list[str] = []
    left = iter(words)
    for word in left:
        flag = word.partition("=")[0]
        if flag in OWN_FLAGS or (flag in OWN_OPTIONS and "=" in word) or (word in ("-h", "--help") and not stage):
            own.append(word)
        elif flag in OWN_OPTIONS:
            own += [word, *([value] if (value := next(left, None)) is not None else [])]
        else:
            stage.append(word)
    return own, stage


def prepare(words: Sequence[str], parse: Any) -> Submission:
    """Check a stage's words and settings, and make of them what a job can do.

    Args:
        words: Stage and arguments.
        parse: From such words to the stage's arguments; raises ConfigError.

    Raises:
        ConfigError: No stage, one that cannot be submitted, or arguments and settings that it does not take.
    """
    if not words or words[0] not in STAGES:
        got = f"got {words[0]!r}. {nearest(words[0], STAGES)}" if words else f"one of {', '.join(STAGES)}."
        raise ConfigError(f"wildray submit takes the stage first: {got}")
    arguments = parse(words)
    settings = _settings(arguments)
    files: dict[str, Path] = {}
    absolute = tuple(_made_absolute(words[1:], arguments, files))
    content = {
        "stage": words[0],
        "words": [word for word in absolute if word not in BARE_FLAGS - {"--dry-run"}],
        "settings": settings,
    }
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()
    return Submission(words[0], absolute, files, digest)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """All settings of a stage, checked: those of a sweep file, or the configuration."""
    if arguments.command == "sweep":
        from wildray.sweep.spec import SweepSpec

        spec = SweepSpec.load(arguments.file, overrides_of(arguments))
        for path in (*spec.media, *([spec.data] if spec.data else [])):
            _check_absolute(arguments.file, path)
        return spec.model_dump(mode="json")
    config = config_of(arguments)
    if getattr(arguments, "run_name", None) is not None:
        from wildray.store import check_run_name

        check_run_name(arguments.run_name)
    if arguments.config:
        given = vars(arguments)
        for name in ("train.labels", "detect.detector", "backbone.weights"):
            section, _, field = name.partition(".")
            value = getattr(getattr(config, section), field)
            if not isinstance(given.get(name), str) and isinstance(value, str) and _is_path(value):
                _check_absolute(arguments.config, value)
    return config.model_dump(mode="json")


def _check_absolute(file: str, path: str) -> None:
    if not is_remote(path) and not os.path.isabs(path):
        raise ConfigError(
            f"{file}: got the relative path {path}: a job has another working directory. Give the whole path, of a "
            f"folder that every node sees."
        )


def _made_absolute(words: Sequence[str], arguments: argparse.Namespace, files: dict[str, Path]) -> list[str]:
    """The words with absolute paths, and settings files where the job will find them."""
    made: list[str] = []
    left = iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        hyphened = flag.replace("_", "-")
        if not flag.startswith("-") or flag == "-":
            made.append(_positional(word, arguments.command, files))
            continue
        if flag in BARE_FLAGS:
            made.append(word)
            continue
        if not equals:
            value = next(left)  # the parser has taken it
        if hyphened == "--config":
            value = _travels(value, files)
        elif hyphened == "--store" or (hyphened in PATH_OPTIONS and _is_path(value)):
            value = _absolute(value)
        made += [flag, value]
    if not any(word == "--store" for word in made):
        made += ["--store", _absolute(arguments.store)]
    return made


def _positional(word: str, stage: str, files: dict[str, Path]) -> str:
    return _travels(word, files) if stage == "sweep" else _absolute(word)


def _travels(path: str, files: dict[str, Path]) -> str:
    """Have a settings file sent along; its name in the job's working directory."""
    here = Path(path).expanduser()
    name = f"{SENT}/{here.name}"
    files[name] = here
    return name


def _absolute(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def _is_path(value: str) -> bool:
    """Whether a value is a file's name, and not a word or a digest."""
    if is_remote(value) or _DIGEST.fullmatch(value):
        return False
    return os.sep in value or value.lower().endswith((".csv", ".onnx", ".safetensors", ".pt", ".pth", ".parquet"))


def package(submission: Submission, code: str, folder: Path) -> dict[str, Any]:
    """Gather what the job needs in a folder.

    Args:
        submission: Its settings files travel.
        code: ``sent``: this wildray's own code; ``installed``: the nodes have it; or a wheel's file.
        folder: Empty; becomes the job's working directory.

    Returns:
        Runtime environment: ``working_dir``, and ``py_modules`` with a wheel.

    Raises:
        ConfigError: There is no such wheel, or the package is too large.
    """
    if code == "sent":
        own = Path(wildray.__file__).parent
        for path in sorted(own.rglob("*")):
            if path.is_file() and path.suffix in CODE_SUFFIXES and "__pycache__" not in path.parts:
                _copy(path, folder / "wildray" / path.relative_to(own))
        for path in sorted((own.parent / "jobs").glob("*.py")) if (own.parent / "pyproject.toml").is_file() else ():
            _copy(path, folder / "jobs" / path.name)
    for name, path in submission.files.items():
        _copy(path, folder / name)
    wheel = Path(code).expanduser() if code not in ("sent", "installed") else None
    if wheel is not None and (wheel.suffix != ".whl" or not wheel.is_file()):
        raise ConfigError(f"--code: got {code}, expected sent, installed or the file of a wheel (.whl).")
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if wheel is not None:
        sizes[wheel] = wheel.stat().st_size
    total = sum(sizes.values())
    if total > MAX_PACKAGE_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise ConfigError(
            f"What the job would be sent is {total / 2**20:.0f} MiB, expected code of at most "
            f"{MAX_PACKAGE_BYTES // 2**20} MiB; the largest file is {largest.name} ({sizes[largest] / 2**20:.0f} MiB). "
            f"Install wildray on the nodes and give --code installed."
        )
    shared = {"working_dir": str(folder)} if sizes.keys() - {wheel} else {}
    return shared if wheel is None else {**shared, "py_modules": [str(wheel.absolute())]}


def environment_variables(names: Sequence[str]) -> dict[str, str]:
    """Variables of the job: which others it must find where it runs, by name, and nothing that is secret.

    Raises:
        ConfigError: A value was given, or what is no name.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            shown = name.partition("=")[0]
            raise ConfigError(
                f"--pass-env: got {shown!r}{' with a value' if '=' in name else ''}, expected the name alone of an "
                f"environment variable: everyone who reaches the dashboard can read what a job is submitted with. The "
                f"value must be in the environment that each node's 'ray start' has."
            )
    needed = {NEEDED_ENVIRONMENT: ",".join(names)} if names else {}
    return {"PYTHONUNBUFFERED": "1", **needed}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)

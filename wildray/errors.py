"""The errors a user can cause: what was got, what was expected, how to put it right.

In: nothing. Out: exceptions that carry one message each and pickle across process borders, so that a Ray worker's
error reads the same at the command line as one raised in the driver. The alternative, letting ValueError and OSError
reach the user, prints tracebacks that say where the code was and not what the user should do.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator

MAX_NAMES = 12
"""Names that a message lists; more would push the message itself off the screen."""


class WildrayError(Exception):
    """Base of every error a user can cause. ``str(error)`` is the whole message; ``exit_status`` the process's."""

    exit_status = 1


class ConfigError(WildrayError):
    """A setting, name or argument that wildray does not accept."""

    exit_status = 2


class MediaError(WildrayError):
    """A media file that cannot be used. ``status`` is the word that its Media row carries.

    Args:
        message: What was got, what was expected, how to put it right.
        status: One of ``schema.MEDIA_STATUSES`` other than ``done``.
    """

    def __init__(self, message: str, status: str = "unreadable") -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class StoreError(WildrayError):
    """A store that cannot be read or written, or that another writer holds."""


class BusyError(StoreError):
    """A name in a store that another writer holds, for as long as it works."""


class WeightsError(WildrayError):
    """Weights that are missing, altered, or not of the network that was asked for."""


class DataError(WildrayError):
    """A table, manifest or metadata file that does not hold what is needed."""


class StageError(WildrayError):
    """A stage that cannot go on: nothing to work on, or too large a share of it failed."""


def error_to_bytes(error: WildrayError) -> bytes:
    """An error as a value that a Ray Data task returns: raised there, it would reach the driver as text alone."""
    return json.dumps([type(error).__name__, *error.args]).encode()


def raise_error_bytes(data: bytes) -> None:
    """Raise what ``error_to_bytes`` wrote in a task of ours; no bytes mean no error."""
    if data:
        name, *arguments = json.loads(data)
        raise {kind.__name__: kind for kind in _kinds(WildrayError)}[name](*arguments)


def _kinds(kind: type[WildrayError]) -> Iterator[type[WildrayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def user_error(error: BaseException) -> WildrayError | None:
    """The error a user can cause that stands behind one that Ray raised, or None.

    Args:
        error: What was caught; its causes are looked through.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, WildrayError):
            return current
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            cause = getattr(current, "cause", None)
            queue += [cause if isinstance(cause, BaseException) else None, current.__cause__, current.__context__]
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps with an unknown name.

    Args:
        name: What the user wrote.
        known: The names that exist.

    Returns:
        ``"Did you mean 'x'?"`` where a known name is near, otherwise the known names, the first ``MAX_NAMES`` of many.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    if len(names) > MAX_NAMES:
        return f"Known: {', '.join(names[:MAX_NAMES])}, ... ({len(names)} in all)."
    return "Known: " + ", ".join(names) + "."

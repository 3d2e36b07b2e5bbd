"""What goes to the terminal: log lines and errors, harmless whatever the name of a file does to it.

In: records and messages that quote names somebody else chose. Out: lines on stderr in which control characters are
escaped, so that a file's name can neither move the cursor nor end a line and forge the next. Quoting names where each
message is made would be forgotten in one of them.
"""

from __future__ import annotations

import logging
import sys


def printable(text: str) -> str:
    """The text with everything escaped that a terminal acts on; lines after the first are indented."""
    lines = text.split("\n")
    shown = ["".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line) for line in lines]
    return "\n".join(shown[:1] + [line if line.startswith("  ") else f"  {line}" for line in shown[1:]])


class Lines(logging.Formatter):
    """Time, level, message; no line that a message begins looks like that of another."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """The line of a record, without its traceback."""
        return printable(super().formatMessage(record))


def configure_logs(*, verbose: bool, quiet: bool) -> None:
    """Send log lines to stderr, each with its time."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    root = logging.getLogger("wildray")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False

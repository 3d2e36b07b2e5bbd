"""What could not be logged: calls kept in a file, line by line, until the database is there again.

In: entries of a run, as ``run_entries`` applies them. Out: ``<folder>/<key>.jsonl``, gone once all are logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wildray.tracking import database_file

_log = logging.getLogger(__name__)


def spool_file(uri: str | None, experiment: str, name: str, folder: str | os.PathLike[str] | None) -> Path:
    """Where calls that could not be logged are kept: in ``folder``, else beside the database, else in the cache."""
    database = database_file(uri) if uri is not None else None
    if folder is None and database is not None:
        folder = database.parent / "mlspool"
    elif folder is None:
        folder = Path(os.environ.get("WILDRAY_CACHE") or "~/.cache/wildray").expanduser() / "mlspool"
    key = hashlib.blake2b("\x1f".join((str(uri), experiment, name)).encode(), digest_size=8).hexdigest()
    return Path(folder).absolute() / f"{key}.jsonl"


@dataclass(frozen=True)
class Spool:
    """The calls of one run that could not be logged.

    Attributes:
        path: File of them; there is none where there are none.
    """

    path: Path

    def keep(self, entries: Sequence[Mapping[str, Any]], mode: Literal["a", "w"] = "a") -> None:
        """Add entries to what is kept, or take their place; a full disk is a warning."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                file.writelines(json.dumps(entry) + "\n" for entry in entries)
        except OSError as error:
            _log.warning("What was to be logged could not be kept in %s either (%s).", self.path, error)

    def replay(self, apply: Callable[[Mapping[str, Any]], None]) -> None:
        """Apply all that is kept; what was applied before an error is not kept any more."""
        if not self.path.exists():
            return
        whole = [line for line in self.path.read_text().splitlines() if line.endswith("}")]  # the last may be torn
        entries: list[Mapping[str, Any]] = [json.loads(line) for line in whole]
        num_done = 0
        try:
            for entry in entries:
                apply(entry)
                num_done += 1
        finally:
            self.keep(entries[num_done:], "w")
        self.path.unlink()
        _log.info("%d calls that had been kept in %s are logged now.", len(entries), self.path)

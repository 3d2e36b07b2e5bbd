"""What a file system or object storage refuses, in words, and records that are not what they should be.

In: what a library raised, or a file's bytes. Out: ``StoreError`` that says what to do, or what the file holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wildray.errors import StoreError
from wildray.remote import in_words, is_storage_error


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn a refusal of the operating system, or of object storage, into what the user can do about it."""
    try:
        yield
    except OSError as error:
        if not isinstance(path, Path) and error.errno != errno.ENOSPC:  # of this machine's disk, then
            raise _remote_failure(path, doing, error) from error
        hint = {
            28: "the disk is full: free some space, then run the same command again; what was finished is kept",
            13: "permission is denied: choose a --store that you may write to",
            30: "the file system is read-only: choose a --store that you may write to",
        }.get(error.errno or 0, "check that the --store is a folder that you may write to")
        raise StoreError(f"{doing} {path} failed ({error.strerror or error}): {hint}.") from error
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise _remote_failure(path, doing, error) from error


def _remote_failure(path: Path, doing: str, error: BaseException) -> StoreError:
    return StoreError(
        f"{doing} {path} failed ({in_words(error)}): check that the bucket is there, that its credentials are in the "
        f"environment of every node, and that it can be reached; then run the same command again, what was finished is "
        f"kept."
    )


def parsed(path: Path, content: bytes) -> Any:
    """What a JSON file holds; StoreError where it is none."""
    try:
        return json.loads(content)
    except ValueError:
        raise StoreError(f"{path} is not JSON: it was altered. Remove it and run the stage again.") from None

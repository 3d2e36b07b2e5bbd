"""What a set of pairs is named after: all that it depends on, and nothing else.

In: settings, and the finished chunks that are mined. Out: a digest, so that new media never meet stale pairs and two
trials with equal settings share one set. A name that was given, in its place, would have to be kept from being reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wildray.config import MineConfig

RULES_VERSION = 3
"""Raised when the code decides differently from equal settings, so that older pairs are not taken for newer."""
_OF_CHAINS = frozenset({"look_weight", "max_missed", "link_gap"})
UNUSED = {"chained": frozenset[str](), "assigned": _OF_CHAINS, "direct": _OF_CHAINS | {"min_margin"}}
"""Settings that a linker does not use."""


def pairs_digest(
    config: MineConfig, detections: str, finished: Mapping[str, Any], vectors: Mapping[str, int] | None = None
) -> str:
    """Name of the set of pairs of some settings over some finished chunks.

    Args:
        config: The mining settings. Those that the linker does not use make no difference.
        detections: Digest of the detections.
        finished: The finished chunks as their writer recorded them.
        vectors: Number of vectors by chunk (``embedded.vectors_used``), where ``mine.embeddings`` names some.
    """
    unused = {"detections", "embeddings"} | UNUSED[config.linker]
    chunks = [[chunk, record["num_detections"]] for chunk, record in sorted(finished.items())]
    facts: dict[str, object] = {"version": RULES_VERSION, "detections": detections, "chunks": chunks}
    if config.embeddings is not None:  # sets from before there were any keep their names
        facts["embeddings"] = [config.embeddings, sorted((vectors or {}).items())]
    return config.digest(extra=facts, exclude=unused)

"""A run's folder: under which settings it was begun, and whether it is finished.

In: the configuration a run is asked for with. Out: ``config.yaml`` in it, or a refusal: a name that is used again
by accident with other settings would silently go on from weights of the former ones.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import yaml

from wildray.config import Config
from wildray.errors import ConfigError
from wildray.store import Store

logger = logging.getLogger(__name__)

RESULT_SECTIONS = ("backbone", "augment", "method", "train")
"""On these sections the weights depend."""
FREE = {"train.epochs", "train.checkpoint_every", "train.checkpoint_steps", "train.probe_every", "train.cache_mb"}
"""But not on these fields of them; ``train.epochs`` may grow."""


def claim_run(config: Config, store: Store, run: str) -> None:
    """Write the settings of a new run, or check those of one that goes on.

    Args:
        config: With ``train.pairs`` filled in.
        store: The run lies in its ``models/<run>/``.
        run: Name: letters, digits, dot, hyphen and underscore.

    Raises:
        ConfigError: The name cannot be a folder's, or the run was begun with other settings, which are named.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", run):
        raise ConfigError(
            f"{run!r} cannot be the name of a run: take up to 100 letters, digits, dots, hyphens and underscores."
        )
    path = store.path("models", run, "config.yaml")
    if path.is_file():
        former = yaml.safe_load(path.read_text())
        changes = list(_differences(former, config.model_dump(mode="json")))
        if changes:
            raise ConfigError(
                f"The run {run} was begun with other settings: {'; '.join(changes)}. "
                f"Give those to go on with it, or another --run."
            )
        if former["scale"]["workers"] != config.scale.workers:
            logger.warning(
                "run %s was begun with %s workers and goes on with %s: the batches are the same, sums round otherwise",
                run,
                former["scale"]["workers"],
                config.scale.workers,
            )
    store.write_text(config.to_yaml(), "models", run, "config.yaml")


def finished_result(config: Config, store: Store, run: str) -> dict[str, Any] | None:
    """epochs, num_steps, loss, images_per_s and seconds of a run that has done all its epochs; None of another."""
    if not store.path("models", run, "result.json").is_file():
        return None
    result: dict[str, Any] = store.read_json("models", run, "result.json")
    return result if result["epochs"] >= config.train.epochs else None


def _differences(former: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for section in RESULT_SECTIONS:
        for field, value in new[section].items():
            name = f"{section}.{field}"
            old = former.get(section, {}).get(field)
            if name == "train.epochs" and old is not None and value < old:
                yield f"{name} was {old}, now {value} (it may grow only)"
            elif name not in FREE and old != value:
                yield f"{name} was {old}, now {value}"

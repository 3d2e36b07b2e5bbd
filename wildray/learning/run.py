"""A run's folder: under which settings it was begun, and whether it is finished.

In: the configuration a run is asked for with. Out: ``config.yaml`` in it, or a refusal: a name that is used again
by accident with other settings would silently go on from weights of the former ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import yaml

from wildray.config import Config
from wildray.errors import ConfigError, StoreError
from wildray.learning.checkpoint import checkpoints
from wildray.store import Store, check_run_name

logger = logging.getLogger(__name__)

RESULT_SECTIONS = ("backbone", "augment", "method", "train")
"""On these sections the weights depend."""
FREE = {
    "train.epochs",
    "train.checkpoint_every",
    "train.checkpoint_steps",
    "train.probe_every",
    "train.cache_mb",
    "train.ingest",
}
"""But not on these fields of them; ``train.epochs`` may grow."""


def begun_settings(store: Store, run: str) -> dict[str, Any] | None:
    """The configuration that a run was begun with, as nested plain values.

    Returns:
        None where there is no such run, or where it failed before its first checkpoint: nothing hangs on its settings.

    Raises:
        StoreError: The record is gone or altered, though the run has checkpoints or results.
    """
    folder = store.path("models", run)
    results = ("history.json", "backbone.safetensors", "result.json")
    if not checkpoints(folder) and not any((folder / name).is_file() for name in results):
        return None
    path = folder / "config.yaml"
    try:
        former = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read ({error}): give another --run, or remove {folder}.") from None
    if not isinstance(former, dict) or not all(
        isinstance(former.get(part), dict) for part in (*RESULT_SECTIONS, "scale")
    ):
        raise StoreError(f"{path} holds no settings of a run, it was altered: give another --run, or remove {folder}.")
    return former


def check_settings(config: Config, store: Store, run: str) -> None:
    """Refuse to go on with a run under other settings.

    Args:
        config: With ``train.pairs`` filled in.
        store: The run lies in its ``models/<run>/``.
        run: Name.

    Raises:
        ConfigError: The name cannot be a folder's, or the run was begun with other settings, which are named.
        StoreError: What the run was begun with cannot be read.
    """
    check_run_name(run)
    former = begun_settings(store, run)
    changes = [] if former is None else list(_differences(former, config.model_dump(mode="json")))
    if changes:
        raise ConfigError(
            f"The run {run} was begun with other settings: {'; '.join(changes)}. "
            f"Give those to go on with it, or another --run."
        )


def claim_run(config: Config, store: Store, run: str) -> None:
    """Write the settings of a new run, or of one that goes on after ``check_settings``, whose errors it raises."""
    check_settings(config, store, run)
    former = begun_settings(store, run)
    if former is not None and former["scale"].get("workers") != config.scale.workers:
        logger.warning(
            "run %s was begun with %s workers and goes on with %s: the batches are the same, sums round otherwise",
            run,
            former["scale"].get("workers"),
            config.scale.workers,
        )
    store.write_text(config.to_yaml(), "models", run, "config.yaml")


def finished_result(store: Store, run: str, *, epochs: int) -> dict[str, Any] | None:
    """epochs, num_steps, loss, images_per_s and seconds of a run that has done so many epochs; None of another."""
    if not store.path("models", run, "result.json").is_file():
        return None
    result: dict[str, Any] = store.read_json("models", run, "result.json")
    return result if result["epochs"] >= epochs else None


def _differences(former: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for section in RESULT_SECTIONS:
        for field, value in new[section].items():
            name = f"{section}.{field}"
            old = former.get(section, {}).get(field)
            if name == "train.epochs" and old is not None and value < old:
                yield f"{name} was {old}, now {value} (it may grow only)"
            elif name not in FREE and old != value:
                yield f"{name} was {old}, now {value}"

"""What the stages wrote, read for the page.

In: a store and the names of a run, a detection run and a pair set, all optional. Out: ``Findings``, in which
what is missing is None or empty. Nothing here fails because a stage has not run; a table that was altered does raise,
since a page that silently leaves it out would mislead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from wildray import schema
from wildray.config import Config
from wildray.errors import ConfigError, StoreError, nearest
from wildray.packs import PackReader
from wildray.store import Store


@dataclass(frozen=True)
class Findings:
    """What a store holds of one flow from media to evaluation.

    Attributes:
        detections_digest: The detection run, or None: nothing was detected.
        detector: Its detector's name; empty where unknown.
        media, frames, detections: Tables of ``schema.MEDIA``, ``FRAMES``, ``DETECTIONS``.
        pairs_digest: The pair set, or None: nothing was mined from these detections.
        mining: The pair set's settings.
        pairs, static: Tables of ``schema.PAIRS`` and ``STATIC``.
        run: The run, or None: nothing was trained.
        history: A flat dict per epoch; empty without a run.
        broken_off: ``step``, ``loss`` and ``norm`` at which the run's loss ceased to be a number, or None.
        config_text: The run's configuration as YAML, else the one that was given.
        crops: Reads the detections' crops.
    """

    store: Store
    detections_digest: str | None
    detector: str
    media: pa.Table
    frames: pa.Table
    detections: pa.Table
    pairs_digest: str | None
    mining: dict[str, Any]
    pairs: pa.Table
    static: pa.Table
    run: str | None
    history: list[dict[str, Any]]
    broken_off: dict[str, Any] | None
    config_text: str
    crops: PackReader


def gather(config: Config, store: Store, *, run: str | None, detections: str | None, pairs: str | None) -> Findings:
    """Read what there is.

    Args:
        config: Shown where the run has no configuration of its own.
        store: The store.
        run: Name of a run; default the one worked on last.
        detections: Digest of a detection run; default that of the pairs, else the newest.
        pairs: Digest of a pair set; default the newest of the detections.

    Raises:
        ConfigError: A name was given that the store does not hold.
        StoreError: A table or record cannot be read.
    """
    _check(store, "models", run)
    _check(store, "detections", detections)
    _check(store, "pairs", pairs)
    pairs = pairs or _newest_pairs(store, detections)
    mining = dict(store.collection("pairs", pairs).settings()) if pairs else {}
    detections = detections or mining.get("detections") or store.newest("detections")
    if pairs and mining.get("detections", detections) != detections:
        raise ConfigError(f"The pairs {pairs} were mined from the detections {mining['detections']}, not {detections}.")
    run = run or _newest_run(store)
    found = store.collection("detections", detections) if detections else None
    mined = store.collection("pairs", pairs) if pairs else None
    return Findings(
        store=store,
        detections_digest=detections,
        detector=str(_setting(found.settings(), "detector") or "") if found else "",
        media=found.read("media", schema.MEDIA) if found else schema.MEDIA.empty_table(),
        frames=found.read("frames", schema.FRAMES) if found else schema.FRAMES.empty_table(),
        detections=found.read("detections", schema.DETECTIONS) if found else schema.DETECTIONS.empty_table(),
        pairs_digest=pairs,
        mining=mining,
        pairs=mined.read("pairs", schema.PAIRS) if mined else schema.PAIRS.empty_table(),
        static=mined.read("static", schema.STATIC) if mined else schema.STATIC.empty_table(),
        run=run,
        history=_history(store, run),
        broken_off=_broken_off(store, run),
        config_text=_config_text(config, store, run),
        crops=PackReader(store, ("crops", detections or "none")),
    )


def _check(store: Store, place: str, name: str | None) -> None:
    if name is not None and not store.path(place, name).is_dir():
        known = sorted(path.name for path in store.path(place).glob("*") if path.is_dir())
        hint = nearest(name, known) if known else "The store has none yet."
        raise ConfigError(f"The store {store.root} has no {place}/{name}. {hint}")


def _newest_pairs(store: Store, detections: str | None) -> str | None:
    for digest in reversed(store.collections("pairs")):
        if detections is None or store.collection("pairs", digest).settings().get("detections") == detections:
            return digest
    return None


def _newest_run(store: Store) -> str | None:
    """The run worked on last of those that have something to show: one that failed at once has its settings alone."""
    shown = {path.parent for name in ("history.json", "backbone.safetensors") for path in _models(store, name)}
    files = sorted((p for p in _models(store, "*.*") if p.parent in shown), key=lambda path: path.stat().st_mtime_ns)
    return files[-1].parent.name if files else None


def _models(store: Store, pattern: str) -> list[Path]:
    return list(store.path("models").glob(f"*/{pattern}"))


def _setting(settings: Any, name: str) -> Any:
    """A value by name, wherever in nested settings it stands."""
    if not isinstance(settings, dict):
        return None
    if name in settings and not isinstance(settings[name], dict):
        return settings[name]
    return next((value for part in settings.values() if (value := _setting(part, name)) is not None), None)


def _history(store: Store, run: str | None) -> list[dict[str, Any]]:
    if run is None or not store.path("models", run, "history.json").is_file():
        return []
    history = store.read_json("models", run, "history.json")
    if not isinstance(history, list) or not all(isinstance(epoch, dict) for epoch in history):
        path = store.path("models", run, "history.json")
        raise StoreError(f"{path} is no list of epochs: it was altered. Remove it, and train on to have it written.")
    return history


def _broken_off(store: Store, run: str | None) -> dict[str, Any] | None:
    if run is None or not store.path("models", run, ".nonfinite.json").is_file():
        return None
    content = store.read_json("models", run, ".nonfinite.json")
    known = isinstance(content, dict) and {"step", "loss", "norm"} <= content.keys()
    return {name: content[name] for name in ("step", "loss", "norm")} if known else None


def _config_text(config: Config, store: Store, run: str | None) -> str:
    path: Path | None = store.path("models", run, "config.yaml") if run else None
    return path.read_text() if path is not None and path.is_file() else config.to_yaml()

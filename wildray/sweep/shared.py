"""What all trials share, made once: footage, detections, pair sets, divided individuals, untrained baselines.

In: a sweep and a store. Out: a ``Shared``, small and picklable: trials get digests, read, and copy nothing. Each part
is a stage that finds what it made before, so a sweep that starts again starts where it was.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wildray.config import BackboneConfig, Config
from wildray.errors import BusyError, ConfigError, DataError, WildrayError
from wildray.labelled import newest_labelled
from wildray.learning.first_backbone import first_backbone
from wildray.learning.methods import method_class
from wildray.mining.detect import detect
from wildray.mining.mine import MineResult, mine
from wildray.retrieval.probe import make_probe
from wildray.simulate import simulate
from wildray.store import Store
from wildray.sweep.space import Settings
from wildray.sweep.spec import SweepSpec
from wildray.sweep.splits import Parts, import_parts

logger = logging.getLogger(__name__)

LEASE_WAIT_S = 1.0
"""Pause between looks at a pair set that another trial is mining."""


@dataclass(frozen=True)
class Shared:
    """What trials read; pickles.

    Attributes:
        parts: Imports of the divided individuals.
        detections: Digest of the detections.
        facts: Counts of media, frames and boxes.
        seconds: Time that each of the shared parts took, in this start.
    """

    parts: Parts
    detections: str
    facts: Mapping[str, int]
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(spec: SweepSpec, store: Store, *, workers: int) -> Shared:
    """Simulate, detect, import and divide, as far as it is not done.

    Args:
        spec: The sweep.
        store: Where everything lies.
        workers: Processes that detect at once.

    Raises:
        WildrayError: A stage cannot do its part, or there are no detections or labelled images to sweep over.
    """
    config, seconds = spec.config(), {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        result = work()
        seconds[name] = time.monotonic() - begun
        return result

    media, data = list(spec.media), spec.data
    if spec.simulate:
        reserve = store.path("sweeps", spec.name, "reserve")
        timed("simulate", lambda: simulated(config, store, "sweeps", spec.name, "reserve"))
        media = media or [str(reserve / "media")]
        data = data or str(reserve / "labelled" / "metadata.csv")
    if media:
        scale = config.scale.model_copy(update={"workers": workers})
        found = timed("detect", lambda: detect(config.model_copy(update={"scale": scale}), store, media))
        digest = found.digest
        facts = {name: int(getattr(found, name)) for name in ("num_media", "num_frames", "num_detections")}
    else:
        digest, facts = _newest_detections(store)
    parts = timed(
        "import",
        lambda: import_parts(config, store, data or _known_data(store), spec.split, supervised=tries_supervised(spec)),
    )
    return Shared(parts, digest, facts, seconds)


def simulated(config: Config, store: Store, *place: str) -> None:
    """Make a reserve at a place of the store unless it was made with the same settings."""
    if store.is_remote:
        raise ConfigError(
            f"simulate: true makes footage in the store, and {store.root} is no folder: 'wildray simulate OUT', then "
            "name the footage in the file instead."
        )
    reserve = store.path(*place)
    settings = config.simulate.model_dump(mode="json")
    record = reserve / "done.json"
    if record.is_file() and json.loads(record.read_text()) == settings:
        return
    simulate(config, reserve)
    store.write_text(json.dumps(settings), *place, "done.json")


def tries_supervised(spec: SweepSpec) -> bool:
    """Whether any of the methods that may be tried needs labels."""
    dimension = spec.search.get("train.method")
    names = [spec.config().train.method] if dimension is None else list(dimension.values)
    return any(method_class(name).supervised for name in names)


def pairs_of(config: Config, store: Store) -> MineResult:
    """The pair set of a configuration; where another trial is mining it, wait and take what that one made."""
    while True:
        try:
            return mine(config, store)
        except BusyError:
            time.sleep(LEASE_WAIT_S)


def backbone_key(config: Config) -> str:
    """Name of an untrained network in the records: name and image size, and what else of it is not the default."""
    backbone, usual = config.backbone, BackboneConfig()
    others = [
        getattr(backbone, name) for name in ("weights", "pooling") if getattr(backbone, name) != getattr(usual, name)
    ]
    return "/".join([backbone.name, str(backbone.image_size), *others])


@dataclass
class Attempts:
    """Work that some trials share, each part of it tried once; seconds are summed up.

    Attributes:
        seconds: That all of it took.
    """

    seconds: float = 0.0
    _failed: dict[str, str | None] = field(default_factory=dict)

    def failed(self, key: str, work: Callable[[], object]) -> str | None:
        """Do what has this key unless it was tried; returns why it cannot be done, if so."""
        if key not in self._failed:
            begun = time.monotonic()
            try:
                work()
                self._failed[key] = None
            except WildrayError as error:
                self._failed[key] = str(error)
            self.seconds += time.monotonic() - begun
        return self._failed[key]


def untrained(configs: Sequence[Config], store: Store, sweep: str, data: str) -> dict[str, dict[str, float]]:
    """What networks measure before training, each once per sweep.

    Args:
        configs: Of the trials.
        store: Keeps the figures in ``sweeps/<name>/untrained.json``.
        sweep: Name of the sweep.
        data: Digest of the labelled images.
    """
    path = store.path("sweeps", sweep, "untrained.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    if known.get("data") != data:
        known = {"data": data, "figures": {}}
    for config in configs:
        key = backbone_key(config)
        if key not in known["figures"]:
            backbone = first_backbone(config).eval().requires_grad_(False)
            known["figures"][key] = make_probe(config, store, data)(backbone)
            store.write_text(json.dumps(known, indent=1), "sweeps", sweep, "untrained.json")
    return dict(known["figures"])


def setting_config(spec: SweepSpec, settings: Settings, *, seed: int, shared: Shared) -> Config:
    """The configuration of a trial, over what is shared; without budget and pairs."""
    config = spec.config({**settings, "train.seed": seed, "mine.detections": shared.detections})
    resources = spec.resources
    scale = config.scale.model_copy(
        update={"workers": resources.workers, "use_gpu": resources.gpus > 0, "cpus_per_worker": None}
    )
    tracking = config.tracking.model_copy(update={"experiment": spec.name})
    config = config.model_copy(update={"scale": scale, "tracking": tracking})
    if method_class(config.train.method).supervised:
        assert shared.parts.train is not None, "individuals were set aside, since a supervised method may be tried"
        labels = {"labels": shared.parts.train.digest}
        config = config.model_copy(update={"train": config.train.model_copy(update=labels)})
    return config


def _newest_detections(store: Store) -> tuple[str, dict[str, int]]:
    digest = store.newest("detections")
    if digest is None:
        raise DataError(
            f"The store {store.root} has no detections: give media: or simulate: true in the sweep file, or run "
            "'wildray detect' first."
        )
    records = store.collection("detections", digest).finished().values()
    return digest, {
        name: sum(int(record.get(name, 0)) for record in records)
        for name in ("num_media", "num_frames", "num_detections")
    }


def _known_data(store: Store) -> str:
    """The metadata CSV of the newest import."""
    digest = newest_labelled(store)
    if digest is None:
        raise DataError(
            f"The store {store.root} has no labelled images to judge trials by: give data: metadata.csv in the sweep "
            "file."
        )
    return str(store.collection("labelled", digest).settings()["metadata"])

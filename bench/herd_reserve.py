"""A simulated reserve of herds, looked at four times a second, with its truth in memory.

In: a working folder, where it is made once. Out: detections with crops, what is known of them, and labelled images of
individuals that nobody filmed. ``bench.reserve`` looks twice a second and has fewer herds: it gives too few wrong pairs
to ask what they cost.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

from wildray.cli.cluster import connect, prepare_environment
from wildray.config import Config
from wildray.errors import DataError
from wildray.labelled import import_labelled
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.truth import read_truth
from wildray.simulate import simulate
from wildray.store import Store


@dataclass(frozen=True)
class HerdReserve:
    """What is trained and measured on.

    Attributes:
        root: The store's folder.
        detections: Digest of the detections.
        held_out: Digest of the labelled images of individuals that were not filmed.
        truth: ``boxes.parquet`` of the footage.
    """

    root: str
    detections: str
    held_out: str
    truth: str

    @property
    def store(self) -> Store:
        """The store."""
        return Store(self.root)

    def footage(self) -> AnnotatedCollection:
        """The detections with their truth."""
        return AnnotatedCollection(self.store.collection("detections", self.detections), read_truth([self.truth]))


def herd_config(*, smoke: bool) -> Config:
    """Settings of the footage and of what is seen in it: the demo's, with herds, videos alone and a denser look."""
    settings: dict[str, object] = {
        "simulate.num_videos": 12 if smoke else 80,
        "simulate.herd_share": 0.9,
        "simulate.empty_share": 0.0,
        "simulate.bursts": 0.0,
        "simulate.timelapses": 0.0,
        "simulate.labelled_individuals": 8 if smoke else 40,
        "detect.base_interval": "0.25s",
    }
    return Config.load(preset="demo", overrides=settings)


def open_herd_reserve(work: Path, *, smoke: bool) -> HerdReserve:
    """The reserve of a working folder, made unless it is there."""
    folder = work / ("herds-smoke" if smoke else "herds")
    record = folder / "reserve.json"
    if not record.is_file():
        # in a process of its own, so that Ray and its threads are gone before anything is measured; Ray reads its
        # environment as it is imported, which a process that starts does before it gets to do anything
        prepare_environment()
        process = multiprocessing.get_context("spawn").Process(target=_make, args=(folder, smoke))
        process.start()
        process.join()
        if process.exitcode:
            raise DataError(f"The reserve in {folder} was not made (exit status {process.exitcode}): see above.")
    return HerdReserve(**json.loads(record.read_text()))


def _make(folder: Path, smoke: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from wildray.mining.detect import detect

    config, world = herd_config(smoke=smoke), folder / "world"
    if not (world / "labelled" / "metadata.csv").is_file():
        simulate(config, world)
    store = Store.open(folder / "store", create=True)
    connect(None)
    scale = config.scale.model_copy(update={"workers": 2, "cpus_per_worker": 1.0})
    found = detect(config.model_copy(update={"scale": scale}), store, [str(world / "media")])
    held_out = import_labelled(
        store,
        world / "labelled" / "metadata.csv",
        padding=config.detect.crop_padding,
        longest_px=config.detect.crop_longest_px,
    ).digest
    known = {"root": store.root, "detections": found.digest, "held_out": held_out}
    truth = str(world / "truth" / "boxes.parquet")
    (folder / "reserve.json").write_text(json.dumps({**known, "truth": truth}, indent=1))

"""A simulated reserve of herds, looked at four times a second, with its truth in memory.

In: a working folder, where it is made once. Out: detections with crops, what is known of them, and labelled images of
individuals that nobody filmed. ``bench.reserve`` looks twice a second and has fewer herds: it gives too few wrong pairs
to ask what they cost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench.reserve import made_apart, made_footage
from wildray.config import Config
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.truth import read_truth
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
    return HerdReserve(**made_apart(folder / "reserve.json", _make, smoke=smoke))


def _make(folder: Path, smoke: bool) -> None:
    footage = made_footage(folder, herd_config(smoke=smoke))
    known = {"root": footage.store.root, "detections": footage.detections, "held_out": footage.held_out}
    truth = str(footage.world / "truth" / "boxes.parquet")
    (folder / "reserve.json").write_text(json.dumps({**known, "truth": truth}, indent=1))

"""The registry of methods: a name, a class, one file each."""

from __future__ import annotations

from wildray.errors import ConfigError, nearest
from wildray.learning.methods.arcface import ArcFace
from wildray.learning.methods.barlow_twins import BarlowTwins
from wildray.learning.methods.base import Method
from wildray.learning.methods.byol import BYOL
from wildray.learning.methods.dino import DINO
from wildray.learning.methods.dinov2 import DINOv2
from wildray.learning.methods.fastsiam import FastSiam
from wildray.learning.methods.lejepa import LeJEPA
from wildray.learning.methods.moco import MoCo
from wildray.learning.methods.simclr import SimCLR
from wildray.learning.methods.supcon import SupCon
from wildray.learning.methods.triplet import Triplet
from wildray.learning.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "fastsiam": FastSiam,
    "dino": DINO,
    "dinov2": DINOv2,
    "vicreg": VICReg,
    "lejepa": LeJEPA,
    "arcface": ArcFace,
    "triplet": Triplet,
    "supcon": SupCon,
}


def method_class(name: str) -> type[Method]:
    """The class of a method; ConfigError with the nearest name where there is none."""
    if name not in METHODS:
        raise ConfigError(f"No method is called {name!r} (train.method). {nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "method_class"]

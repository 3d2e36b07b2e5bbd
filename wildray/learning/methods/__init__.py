"""The registry of methods: a name, a class, one file each."""

from __future__ import annotations

from wildray.errors import ConfigError, nearest
from wildray.learning.methods.base import Method
from wildray.learning.methods.dino import DINO
from wildray.learning.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "dino": DINO}


def method_class(name: str) -> type[Method]:
    """The class of a method; ConfigError with the nearest name where there is none."""
    if name not in METHODS:
        raise ConfigError(f"No method is called {name!r} (train.method). {nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "method_class"]

"""Annotated detections that a study judges: made where the store lacks them, found where it has them.

In: a grid's footage, or what the store has with truth files beside it. Out: a ``Judgeable`` for each collection. A
second study of the same footage looks at no frame again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wildray.errors import ConfigError, DataError
from wildray.mining.detect import detect
from wildray.mining.detectors.mot_results import SUFFIX
from wildray.mining.detectors.results_file import SCHEME
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.truth import read_truth
from wildray.schema import MEDIA
from wildray.store import Store
from wildray.sweep.pair_quality.spec import Footage, PairGrid
from wildray.sweep.shared import simulated

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judgeable:
    """A collection of detections and its truth; picklable, and opens nothing.

    Attributes:
        name: What it is called in tables.
        footage: What footage it is of; several collections may look at one.
        detections: Digest of the detections.
        truth: Paths of the truth.
        advised: Whether what to choose is derived from it.
        num_decoded: Frames that were decoded to make it, now.
    """

    name: str
    footage: str
    detections: str
    truth: tuple[str, ...]
    advised: bool = True
    num_decoded: int = 0

    def load(self, store: Store, *, min_iou: float) -> AnnotatedCollection:
        """Its tables and its truth."""
        return AnnotatedCollection(
            store.collection("detections", self.detections), read_truth(self.truth), min_iou=min_iou
        )


def prepare(grid: PairGrid, store: Store, *, workers: int) -> list[Judgeable]:
    """Detect, or find detected, all footage of the grid.

    Args:
        grid: What is studied. Footage whose variables are not set is left out, and said so.
        store: Where everything lies.
        workers: Processes that detect at once.

    Raises:
        ConfigError: The grid names no footage that is there.
        WildrayError: A stage cannot do its part.
    """
    made: list[Judgeable] = []
    for name, footage in grid.footage.items():
        missing = footage.variables()
        if missing:
            logger.warning("purity: %s is left out, since %s is not set", name, " and ".join(missing))
            continue
        made += _collections(name, footage, grid, store, workers=workers)
    if not made:
        raise ConfigError(
            f"The grid {grid.name} names no footage that is there: set the variables that its paths hold, or judge "
            "what the store has detected with --truth FILE."
        )
    return made


def _collections(name: str, footage: Footage, grid: PairGrid, store: Store, *, workers: int) -> Iterator[Judgeable]:
    media = tuple(os.path.expandvars(path) for path in footage.media)
    truth = tuple(os.path.expandvars(path) for path in footage.truth)
    if footage.simulate is not None:
        config = grid.config({f"simulate.{key}": value for key, value in footage.simulate.items()})
        reserve = ("reserves", config.simulate.digest())
        simulated(config, store, *reserve)
        media = (str(store.path(*reserve, "media")),)
        if "mot_fps" in footage.detect:  # the true boxes of its clips; of a clip without an animal the file is empty
            clips = sorted(store.path(*reserve, "truth", "mot").rglob(f"*{SUFFIX}"))
            media = tuple(str(path) for path in clips if path.stat().st_size)
        truth = truth or (str(store.path(*reserve, "truth", "boxes.parquet")),)
    truth = truth or tuple(path for path in media if path.lower().endswith(SUFFIX))
    if not truth:
        raise DataError(f"footage: {name}: no truth is known of {', '.join(media)}: name it as truth: FILE.")
    for words, settings in footage.ways().items():
        config = grid.config({**settings, "scale.workers": workers})
        found = detect(config, store, media)
        decoded = 0 if _absent(store, found.digest) else found.num_new_frames
        yield Judgeable(f"{name}, {words}" if words else name, name, found.digest, truth, footage.advised, decoded)


def _absent(store: Store, digest: str) -> bool:
    """Whether no medium of a collection is at hand, so that its boxes came from a file and nothing was decoded."""
    uris = store.collection("detections", digest).read("media", MEDIA, columns=["uri"])["uri"].to_pylist()
    return all(uri.startswith(SCHEME) for uri in uris)


def in_store(store: Store, truth: Sequence[str], *, detections: str | None) -> Judgeable:
    """What the store has detected, with truth from the command line.

    Args:
        store: Has the detections.
        truth: Truth files.
        detections: Digest; default the newest.

    Raises:
        StageError: Nothing has been detected.
        ConfigError: There are no such detections.
    """
    digest = store.choose("detections", detections, option="--detections")
    return Judgeable("footage", "footage", digest, tuple(truth))

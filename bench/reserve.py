"""The simulated reserve that benches train and measure on, made once.

In: a working folder. Out: a store with pairs, subsets of them, the same crops with their true identities, and labelled
images of individuals that nobody filmed. Footage, boxes and pairs come from the stages that a user runs; only the
identities come from the simulator.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.truth_labels import label_crops
from wildray.cli.cluster import connect, prepare_environment
from wildray.config import Config, EvalConfig
from wildray.errors import DataError
from wildray.labelled import import_labelled, open_labelled
from wildray.learning.labels import check_unseen
from wildray.learning.pairs import count_pairs
from wildray.schema import PAIRS, hash64
from wildray.simulate import simulate
from wildray.store import Store

logger = logging.getLogger(__name__)

SHARES = {"whole": 1.0, "half": 0.5, "quarter": 0.25}
ELSEWHERE = EvalConfig(exclude=("encounter", "camera_id"), same=("orientation",))
"""An animal is to be found again in another encounter, at another camera, by the same flank."""
EITHER_FLANK = EvalConfig(exclude=("encounter", "camera_id"))


@dataclass(frozen=True)
class Part:
    """A share of the footage to train on.

    Attributes:
        pairs: Digest of the mined pairs.
        num_pairs: How many.
        labels: Digest of the same crops with their true identities.
        num_images: How many.
        num_individuals: Individuals among them.
    """

    pairs: str
    num_pairs: int
    labels: str
    num_images: int
    num_individuals: int


@dataclass(frozen=True)
class Reserve:
    """What benches train and measure on.

    Attributes:
        root: The store's folder.
        parts: By name of the share: whole, half, quarter; each holds the next.
        held_out: Digest of the labelled images of individuals that were not filmed.
        frame_size: (width, height) of the frames in pixels.
    """

    root: str
    parts: Mapping[str, Part]
    held_out: str
    frame_size: tuple[int, int]

    @property
    def store(self) -> Store:
        """The store."""
        return Store(self.root)


def reserve_config(*, smoke: bool) -> Config:
    """Settings of the reserve and of what is mined from it: the demo's, with more footage and more held-out animals."""
    settings: dict[str, object] = {
        "simulate.num_videos": 12 if smoke else 60,
        "simulate.labelled_individuals": 8 if smoke else 40,
    }
    return Config.load(preset="demo", overrides=settings)


def open_reserve(work: Path, *, smoke: bool) -> Reserve:
    """The reserve of a working folder, made unless it is there."""
    folder = work / ("reserve-smoke" if smoke else "reserve")
    known = made_apart(folder / "reserve.json", _make, smoke=smoke)
    return Reserve(
        root=known["root"],
        parts={name: Part(**part) for name, part in known["parts"].items()},
        held_out=known["held_out"],
        frame_size=(known["frame_size"][0], known["frame_size"][1]),
    )


def made_apart(record: Path, make: Callable[[Path, bool], None], *, smoke: bool) -> Any:
    """What the file ``record`` holds, which ``make`` writes unless it is there.

    In a process of its own, so that Ray and its threads are gone before anything is measured; Ray reads its environment
    as it is imported, which a process that starts does before it gets to do anything.
    """
    if not record.is_file():
        prepare_environment()
        process = multiprocessing.get_context("spawn").Process(target=make, args=(record.parent, smoke))
        process.start()
        process.join()
        if process.exitcode:
            raise DataError(f"The reserve in {record.parent} was not made (exit status {process.exitcode}): see above.")
    return json.loads(record.read_text())


@dataclass(frozen=True)
class Footage:
    """Simulated footage that was looked at.

    Attributes:
        world: Folder of the reserve: media, truth, labelled images.
        store: Has the detections.
        detections: Their digest.
        held_out: Digest of the labelled images of individuals that were not filmed.
    """

    world: Path
    store: Store
    detections: str
    held_out: str


def made_footage(folder: Path, config: Config) -> Footage:
    """Simulate unless it was, detect, import the labelled images."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from wildray.mining.detect import detect

    world = folder / "world"
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
    return Footage(world, store, found.digest, held_out)


def _make(folder: Path, smoke: bool) -> None:
    from wildray.mining.mine import mine

    config = reserve_config(smoke=smoke)
    footage = made_footage(folder, config)
    store, held_out = footage.store, footage.held_out
    whole = mine(config, store).digest
    parts = {}
    for name, share in SHARES.items():
        pairs = whole if share == 1.0 else subset(store, whole, share=share)
        labels = label_crops(store, footage.world / "truth" / "boxes.parquet", pairs=pairs)
        check_unseen(store, trained=labels, evaluated=held_out)
        known = {one for one in open_labelled(store, labels).column("identity") if one is not None}
        num_images = len(open_labelled(store, labels).table)
        parts[name] = Part(pairs, count_pairs(store, pairs), labels, num_images, len(known))
    width, _, height = config.simulate.frame_size.partition("x")
    reserve = Reserve(store.root, parts, held_out, (int(width), int(height)))
    (folder / "reserve.json").write_text(json.dumps(asdict(reserve), indent=1))


def subset(store: Store, pairs: str, *, share: float) -> str:
    """A collection of about a share of the pairs: whole sequences, chosen by hash, so that smaller shares nest.

    Chosen by sequence and not by pair: half of the pairs of every sequence would show nearly all that the whole shows.
    """
    source = store.collection("pairs", pairs)
    table = source.read("pairs", PAIRS)
    sequences, counts = np.unique(table["sequence_id"].to_numpy(), return_counts=True)
    order = np.argsort([hash64(("subset", number)) for number in sequences.tolist()])
    num = int(np.abs(np.cumsum(counts[order]) - share * table.num_rows).argmin()) + 1
    kept = np.isin(table["sequence_id"].to_numpy(), sequences[order[:num]])
    digest = f"{hash64((pairs, share)) & (2**64 - 1):016x}"
    target = store.collection("pairs", digest)
    target.begin({**source.settings(), "subset_of": pairs, "share": share})
    target.write("pairs", "000000", table.filter(pa.array(kept)))
    target.done("000000", {"num_pairs": int(kept.sum())})
    return digest

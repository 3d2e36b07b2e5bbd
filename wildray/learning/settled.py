"""What a configuration leaves to the data, settled once as a run begins.

In: a configuration, and what is to be trained on. Out: the configuration that is written into the run's folder and that
every worker reads. Were each worker to settle it by itself, a store that grows would change the middle of a run.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from wildray.config import Config
from wildray.learning.crops import FEW_KNOWN, camera_of_crops, known_backgrounds
from wildray.learning.pairs import read_pairs
from wildray.learning.run import begun_settings
from wildray.learning.stored_weights import FETCHED
from wildray.packs import PackReader
from wildray.store import Store

logger = logging.getLogger(__name__)


def with_settled_background(config: Config, store: Store, run: str) -> Config:
    """The configuration with ``augment.background auto`` settled: as the run was begun, or by what is known of crops.

    Args:
        config: With ``train.pairs`` or ``train.labels`` filled in.
        store: Holds what is trained on.
        run: Name of the run.

    Raises:
        StageError: The pairs cannot be trained on.
        StoreError: Packs of crops, or the settings of a begun run, cannot be read.
    """
    if config.augment.background != "auto":
        return config
    former = begun_settings(store, run)
    if former is not None:  # runs from before there was auto kept their scenery
        chosen = former["augment"].get("background", "keep")
    elif config.train.labels is not None:
        chosen = "keep"  # labelled images come without the camera's empty frames
    else:
        chosen = _by_what_is_known(store, str(config.train.pairs))
        logger.info("pretrain %s: augment.background auto is %s", run, chosen)
    settled = config.model_dump(mode="json")
    settled["augment"]["background"] = chosen
    return Config.validated(settled)


def with_settled_places(config: Config, store: Store) -> Config:
    """The configuration as it is to be recorded.

    Files have absolute paths, since workers have their own working directories; detect and mine are those that the
    pairs were made with.

    Args:
        config: With ``train.pairs`` or ``train.labels`` filled in.
        store: Holds the pairs.
    """
    content = config.model_dump(mode="json")
    weights = config.backbone.weights
    if weights not in FETCHED:
        content["backbone"]["weights"] = str(Path(weights).expanduser().absolute())
    if config.train.pairs is not None:
        mined = store.collection("pairs", config.train.pairs).settings()
        found = store.collection("detections", str(mined["detections"])).settings()
        for section, recorded in (("mine", mined.get("mine")), ("detect", found.get("detect"))):
            if isinstance(recorded, dict):
                known = {name: value for name, value in recorded.items() if name in content[section]}
                content[section] = {**content[section], **known}
        content["mine"]["detections"] = mined["detections"]
    return Config.validated(content)


def _by_what_is_known(store: Store, pairs: str) -> str:
    samples = read_pairs(store, pairs)
    known = known_backgrounds(PackReader(store, samples.place), samples)
    num_cameras = len(np.unique(camera_of_crops(samples)[known]))
    return "swap" if num_cameras > 1 and known.mean() >= FEW_KNOWN else "keep"

"""What a configuration leaves to the data, settled once as a run begins.

In: a configuration, and what is to be trained on. Out: the configuration that is written into the run's folder and that
every worker reads. Were each worker to settle it by itself, a store that grows would change the middle of a run.
"""

from __future__ import annotations

import logging

import numpy as np

from wildray.config import Config
from wildray.learning.crops import FEW_KNOWN, camera_of_crops, known_backgrounds
from wildray.learning.pairs import read_pairs
from wildray.learning.run import begun_settings
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


def _by_what_is_known(store: Store, pairs: str) -> str:
    samples = read_pairs(store, pairs)
    known = known_backgrounds(PackReader(store, samples.place), samples)
    num_cameras = len(np.unique(camera_of_crops(samples)[known]))
    return "swap" if num_cameras > 1 and known.mean() >= FEW_KNOWN else "keep"

"""Which backbone stands behind a result, and which one stood there before training.

In: the name of a run, or a ``backbone`` section. Out: frozen backbones in eval mode, on the device that is to be used.
"""

from __future__ import annotations

from pathlib import Path

import torch

from wildray.config import Config
from wildray.errors import StoreError, WeightsError, nearest
from wildray.learning.backbone import Backbone
from wildray.learning.first_backbone import first_backbone, load_backbone, open_backbone
from wildray.learning.stored_weights import FETCHED
from wildray.remote import local_copy
from wildray.store import Store


def frozen_backbone(config: Config, store: Store, run: str | None) -> Backbone:
    """The backbone of a run, or, without one, the backbone that the configuration names.

    Args:
        config: ``backbone`` and ``train.seed`` are used where there is no run.
        store: Holds the runs.
        run: Name of a run.

    Raises:
        StoreError: There is no such run, or it has no finished epoch.
        WeightsError: Its weights cannot be read.
    """
    if run is None:
        return _frozen(load_backbone(config.backbone, seed=config.train.seed))
    path = store.path("models", run, "backbone.safetensors")
    if not path.is_file():
        known = sorted(found.parent.name for found in store.path("models").glob("*/backbone.safetensors"))
        hint = nearest(run, known) if known else f"'wildray pretrain --store {store.root} --run {run}' makes one."
        state = "has no finished epoch yet" if path.parent.is_dir() else "does not exist"
        raise StoreError(f"The run {run!r} {state}. {hint}")
    return _frozen(open_backbone(local_copy(path)))


def backbone_before(config: Config, store: Store, run: str | None) -> Backbone:
    """The backbone as it was before the run's first step: the same network, seed and, where given, starting weights.

    Without a run nothing was trained, and it is the same as ``frozen_backbone``.

    Raises:
        StoreError: The run's configuration is missing.
        WeightsError: The starting weights are no longer to be had.
    """
    if run is None:
        return frozen_backbone(config, store, None)
    path = store.path("models", run, "config.yaml")
    if not path.is_file():
        raise StoreError(f"The run {run!r} has no configuration ({path}): train it again under another name.")
    trained = Config.load(local_copy(path))
    weights = trained.backbone.weights
    if weights not in FETCHED and not Path(weights).is_file():
        raise WeightsError(
            f"The weights that the run {run!r} began with are gone ({weights}): put them back to compare with them."
        )
    return _frozen(first_backbone(trained))


def device_of(config: Config) -> torch.device:
    """Where backbones run: a GPU where there is one, unless ``scale.use_gpu`` says no."""
    wanted = torch.cuda.is_available() if config.scale.use_gpu is None else config.scale.use_gpu
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def _frozen(backbone: Backbone) -> Backbone:
    return backbone.eval().requires_grad_(False)

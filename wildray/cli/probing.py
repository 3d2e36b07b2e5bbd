"""Which labelled images a training is measured on as it goes on.

In: what the user named, what the run was begun with. Out: a probe, or None. One run is measured on one set of animals:
a curve over two of them would rise or fall with the animals and not with the network.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from wildray.config import Config
from wildray.errors import ConfigError, DataError
from wildray.labelled import labelled_digest, newest_labelled, open_labelled
from wildray.store import Store

if TYPE_CHECKING:
    from wildray.retrieval.probe import Probe

logger = logging.getLogger(__name__)

NOTHING = "none"
"""What ``--data`` says to have nothing measured."""


def trainable(config: Config, store: Store, run: str, asked: str | None) -> tuple[Config, Probe | None]:
    """Check all of a training that can be checked before Ray is there.

    Args:
        config: Settings of the training.
        store: Holds the run.
        run: Its name.
        asked: As ``probe_for`` takes it.

    Returns:
        The configuration with labelled images by their digest, and the probe.

    Raises:
        ConfigError: Settings do not go together, or the run was measured on other images so far.
        DataError: The images that were asked for cannot be used.
    """
    from wildray.learning.labels import with_imported_labels
    from wildray.learning.train import check_training

    check_training(config)
    config = with_imported_labels(config, store)
    return config, probe_for(config, store, run, asked)


def probe_for(config: Config, store: Store, run: str, asked: str | None) -> Probe | None:
    """The probe of a run.

    Args:
        config: ``eval``, ``backbone.image_size``, ``train.labels`` (a digest).
        store: Holds the run.
        run: Its name.
        asked: Metadata CSV, or the digest of an import; ``none``; or None: what the run was begun with, else the newest
            import, if that will do.

    Raises:
        ConfigError: The run was measured on other images so far.
        DataError: The images that were asked for cannot be used.
    """
    from wildray.learning.labels import check_unseen
    from wildray.retrieval.probe import make_probe

    record = store.path("models", run, "probe.json")
    known = store.read_json("models", run, "probe.json")["labelled"] if record.is_file() else None
    if asked == NOTHING:
        return None
    digest = labelled_digest(config, store, asked) if asked else known or newest_labelled(store)
    if digest is None:
        return None
    begun = store.path("models", run, "history.json").is_file()
    if known is not None and begun and digest != known:
        raise ConfigError(
            f"The run {run} was measured on the labelled images {known} so far, --data {asked} are others ({digest}): "
            f"give those, or none, or begin another --run. 'wildray evaluate --data {asked}' measures it on any."
        )
    try:
        if config.train.labels is not None:
            check_unseen(store, trained=config.train.labels, evaluated=digest)
        probe = make_probe(config, store, digest)
    except (ConfigError, DataError) as error:
        if asked:
            raise
        logger.warning(
            "pretrain %s: mAP is not measured, since the newest labelled images (%s) will not do: %s",
            run,
            digest,
            error,
        )
        return None
    num = open_labelled(store, digest).table.num_rows
    logger.info(
        "pretrain %s: mAP is measured on the %d labelled images %s%s",
        run, num, digest, "" if asked else "; --data chooses others, or none",
    )  # fmt: skip
    store.write_text(json.dumps({"labelled": digest}), "models", run, "probe.json")
    return probe

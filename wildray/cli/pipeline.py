"""``wildray pipeline``: footage to figures in one command, for a cluster's queue or a machine left alone over night.

Each stage goes through the same stage function as its own command, and what a store already has is not made again: the
same command goes on where it was stopped. Everything that can be wrong with the command is found before the first
frame is looked at; a stage that fails after hours for a mistyped setting would be found by nobody.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wildray.cli.cluster import connect
from wildray.cli.commands import checked, plain, show
from wildray.cli.probing import NOTHING, trainable
from wildray.config import Config
from wildray.store import Store

if TYPE_CHECKING:
    from wildray.retrieval.probe import Probe

logger = logging.getLogger(__name__)


def pipeline(arguments: argparse.Namespace) -> object:
    """Run every stage on footage: detect, mine, pretrain, evaluate, report.

    What is finished is not done again: stopped at any moment, the same command goes on. With --data, mAP on the
    labelled images is measured as training goes on and at its end; without it nothing is evaluated.
    """
    config, store = checked(arguments, create=True)
    config, probe = trainable(config, store, arguments.run_name, arguments.data)
    connect(arguments.address, verbose=arguments.verbose)
    _check_tracking(config, store)
    data = None if arguments.data == NOTHING else arguments.data
    stages = run_stages(config, store, arguments.media, run=arguments.run_name, data=data, probe=probe)
    if not arguments.json:
        show(arguments, {"run": arguments.run_name, "page": stages["page"], "seconds": stages["seconds"]})
    return stages


def run_stages(
    config: Config,
    store: Store,
    media: Sequence[str],
    *,
    run: str,
    data: str | None,
    probe: Probe | None,
    detect_config: Config | None = None,
) -> dict[str, Any]:
    """Every stage from media to the page, on the Ray that is connected to.

    Args:
        config: Settings of all stages.
        store: Where everything is kept.
        media: What ``detect`` takes.
        run: Name of the model.
        data: Labelled images to evaluate on, or None: nothing is evaluated.
        probe: Measures as training goes on.
        detect_config: Settings of detect, where they are others.

    Returns:
        One object per stage under its name, ``page`` and ``seconds``.
    """
    begun = time.monotonic()
    from wildray.cli.tracking import log_evaluation, log_report
    from wildray.learning.train import pretrain
    from wildray.mining.detect import detect
    from wildray.mining.mine import mine
    from wildray.report import report
    from wildray.retrieval.evaluate import evaluate

    stages: dict[str, Any] = {}
    stages["detect"] = plain(detect(detect_config or config, store, media))
    stages["mine"] = plain(mine(config, store))
    stages["pretrain"] = plain(pretrain(config, store, run=run, probe=probe))
    if data is not None:
        stages["evaluate"] = plain(evaluate(config, store, run=run, data=data))
        log_evaluation(config, store, run, stages["evaluate"])
    page = report(config, store, run=run)
    log_report(config, store, run, page)
    return stages | {"page": str(page.page), "seconds": time.monotonic() - begun}


def _check_tracking(config: Config, store: Store) -> None:
    """Refuse now what training would refuse: a database of one machine for several."""
    from wildray import runlog
    from wildray.learning.worker import num_machines

    runlog.check_uri(runlog.uri_of(config.tracking, store.root), num_nodes=num_machines())

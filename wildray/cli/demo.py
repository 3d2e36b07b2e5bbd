"""``wildray demo``: the whole flow on a simulated reserve, ending in a table and a page.

Each stage goes through the same stage function as its own command; what a store already has is not made again, so a
demo that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wildray.cli.cluster import connect
from wildray.cli.commands import plain
from wildray.cli.options import config_of
from wildray.cli.pipeline import run_stages
from wildray.config import Config
from wildray.errors import ConfigError
from wildray.labelled import labelled_digest
from wildray.store import Store

logger = logging.getLogger(__name__)

RUN = "demo"


def demo(arguments: argparse.Namespace) -> object:
    """Run the whole flow on a simulated reserve and show what came out.

    Makes videos of known animals, finds the animals, pairs them, trains a small backbone without a label, and
    measures how well it tells apart individuals that it has never seen, in another encounter and on another camera.
    Ends in a table (chance, before training, after) and a page.
    """
    begun = time.monotonic()
    arguments.preset = arguments.preset or "demo"
    config = config_of(arguments)
    store = Store.open(arguments.store, create=True)
    from wildray.retrieval.probe import make_probe

    if store.is_remote:
        raise ConfigError(
            f"The demo makes its footage in the store, and {store.root} is no folder: give another --store."
        )
    reserve = store.path("reserve")
    stages: dict[str, Any] = {"simulate": _simulated(config, reserve)}
    connect(arguments.address, verbose=arguments.verbose)
    if config.detect.detector == "motion":
        logger.info("demo: MegaDetector does not take drawn animals for animals, so the motion detector finds them")
    data = str(reserve / "labelled" / "metadata.csv")
    probe = make_probe(config, store, labelled_digest(config, store, data))
    media = [str(reserve / "media")]
    stages |= run_stages(config, store, media, run=RUN, data=data, probe=probe, detect_config=_on_all_cpus(config))
    stages["seconds"] = time.monotonic() - begun
    if not arguments.json:
        _print(stages, store)
    return stages


def _on_all_cpus(config: Config) -> Config:
    """The configuration with a detector per CPU, on which its results do not depend."""
    workers = max(config.scale.workers, os.cpu_count() or 1)
    return config.model_copy(update={"scale": config.scale.model_copy(update={"workers": workers})})


def _simulated(config: Config, reserve: Path) -> dict[str, Any]:
    """Make the reserve, or take the one that was made with the same settings."""
    from wildray.simulate import simulate

    record = reserve / "done.json"
    settings = config.simulate.model_dump(mode="json")
    if record.exists():
        known = json.loads(record.read_text())
        if known["settings"] == settings:
            return dict(known["result"])
    result = plain(simulate(config, reserve))
    record.write_text(json.dumps({"settings": settings, "result": result}))
    return result


def _print(stages: dict[str, Any], store: Store) -> None:
    console = Console()
    measured = stages["evaluate"]
    table = Table(title="mAP on individuals never seen, in another encounter and on another camera")
    for column in ("", "mAP", "95 % interval", "times chance"):
        table.add_column(column, justify="left" if not column else "right")
    chance = measured["chance_mAP"]
    for name, key in (("chance", "chance_mAP"), ("before training", "untrained_mAP"), ("after training", "mAP")):
        low, high = measured.get(f"{key}_low"), measured.get(f"{key}_high")
        interval = f"{low:.3f} to {high:.3f}" if low is not None else ""
        table.add_row(name, f"{measured[key]:.3f}", interval, f"{measured[key] / chance:.1f}")
    console.print(table)
    found, mined = stages["detect"], stages["mine"]
    console.print(
        f"{found['num_media']} videos and stills, {found['num_frames']} frames, {found['num_detections']} boxes, "
        f"{mined['num_pairs']} pairs, {stages['pretrain']['num_steps']} training steps, "
        f"{stages['seconds']:.0f} s in all"
    )
    console.print(f"Page:   {stages['page']}", soft_wrap=True)
    console.print(f"MLflow: wildray mlflow --store {store.root}", soft_wrap=True)

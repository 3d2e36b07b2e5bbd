"""One function per command: settings and store in, stage function called, result printed.

In: parsed arguments. Out: a JSON-ready object; the text for people goes to stdout unless ``--json`` asked for the
object alone. What a stage does lies in the stage; a command only connects, calls and prints. Each docstring is the
command's help.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wildray.cli.cluster import connect, nodes
from wildray.cli.options import config_of
from wildray.cli.probing import trainable
from wildray.config import Config
from wildray.errors import ConfigError
from wildray.libraries import Check
from wildray.store import Store, check_run_name

logger = logging.getLogger(__name__)

Command = Callable[[argparse.Namespace], object]


def simulate(arguments: argparse.Namespace) -> object:
    """Make a camera-trap reserve: videos and stills with known individuals.

    OUT/media holds the footage, OUT/truth the boxes with identity, OUT/labelled images of individuals that appear
    nowhere in the footage, with their metadata.
    """
    config = config_of(arguments)
    from wildray.simulate import simulate as run_stage

    return show(arguments, run_stage(config, arguments.out))


def detect(arguments: argparse.Namespace) -> object:
    """Find the animals in media and keep a crop of each.

    Media that the store already has are not looked at again. Stopped at any moment, the same command goes on.
    """
    config, store = _ready(arguments, create=True)
    from wildray.mining.detect import detect as run_stage

    return show(arguments, run_stage(config, store, arguments.media))


def mine(arguments: argparse.Namespace) -> object:
    """Pair the same animal between frames; mark what never moves.

    Reads the detections, no pixels. Equal settings over equal detections share one pair set.
    """
    config, store = _ready(arguments)
    from wildray.mining.mine import mine as run_stage

    return show(arguments, run_stage(config, store))


def pretrain(arguments: argparse.Namespace) -> object:
    """Train a backbone on the mined pairs, or, with --train.labels, on labelled images.

    Stopped at any moment, the same command goes on from the last checkpoint. With --data, mAP on the labelled images is
    measured as training goes on. Supervised methods (arcface, triplet, supcon) need --train.labels; label-free ones may
    train on it too, with --train.views self. None of its individuals may be among those of --data.

    Of a run that was begun, train.epochs may grow (the learning rate then rises and falls once more), and how it is
    checkpointed, measured, fed and spread over workers may change; everything else is what it was.
    """
    config, store = checked(arguments, create=config_of(arguments).train.labels is not None)
    config, probe = trainable(config, store, arguments.run_name, arguments.data)
    connect(arguments.address, verbose=arguments.verbose)
    from wildray.learning.train import pretrain as run_stage

    return show(arguments, run_stage(config, store, run=arguments.run_name, probe=probe))


def embed(arguments: argparse.Namespace) -> object:
    """Turn labelled images, or the crops of detections, into unit vectors with a trained, or any other, backbone.

    Vectors of detections (--data detections) serve a second round of mining: --mine.embeddings takes their digest.
    """
    config, store = _ready(arguments, create=arguments.data is not None)
    from wildray.retrieval.embed import embed as run_stage

    return show(arguments, run_stage(config, store, run=arguments.run_name, data=arguments.data))


def evaluate(arguments: argparse.Namespace) -> object:
    """Measure how well individuals that were never seen are told apart: mAP and CMC.

    Chance and the same backbone before training stand beside the result. --eval.exclude drops answers that share a
    column with the query (its own encounter by default), --eval.same keeps only those that do.
    """
    config, store = _ready(arguments, create=arguments.data is not None)
    from wildray.retrieval.evaluate import evaluate as run_stage

    measured = run_stage(config, store, run=arguments.run_name, data=arguments.data)
    if arguments.run_name:
        from wildray.cli.tracking import log_evaluation

        log_evaluation(config, store, arguments.run_name, plain(measured))
    return show(arguments, measured)


def sweep(arguments: argparse.Namespace) -> object:
    """Train with many settings and compare them on individuals that none of them has seen.

    The file says what is searched, how, for how long and by which measure; its base holds the settings of everything
    else, over which --section.name options lie. Detection is done once, each set of pairs is mined once. Stopped at any
    moment, the same command goes on. --dry-run shows the trials and what they would cost.
    """
    from wildray.cli.swept import run

    return show(arguments, run(arguments))


def purity(arguments: argparse.Namespace) -> object:
    """Measure how many of the mined pairs join one individual, by footage whose individuals are known.

    --truth names what is known: MOT ground truth (frame,id,x,y,w,h) of each medium, or truth/boxes.parquet of a
    simulated reserve. Detections are given the animals they show one-to-one; a pair is right where both boxes show one
    individual. The share of right pairs comes with a 95 % interval over whole sequences (over blocks of time where
    there is one sequence only), and by camera, animals in the frame, gap, overlap and margin.

    --grid does the same for every combination of many mining settings and several collections of detections, which are
    made once: purity against yield, what to choose in which company, a page and a Markdown table. With --truth it
    judges the store's own detections in place of the file's footage. Stopped at any moment, the same command goes on.
    """
    from wildray.cli.purity import run

    return run(arguments)


def report(arguments: argparse.Namespace) -> object:
    """Write a page of what the stages found: pairs, static detections, curves, ranked answers.

    With --sweep, of what the trials of a sweep came to, under way or ended: heat map, curves, importance, costs.
    """
    config, store = checked(arguments)
    if arguments.sweep is not None:
        from wildray.report.sweeps import report_sweep

        return show(arguments, report_sweep(store, arguments.sweep))
    from wildray.report import report as run_stage

    page = run_stage(config, store, run=arguments.run_name)
    if arguments.run_name:
        from wildray.cli.tracking import log_report

        log_report(config, store, arguments.run_name, page)
    return show(arguments, page)


def audit(arguments: argparse.Namespace) -> object:
    """Measure how pure mined pairs are: draw some for people to judge, and read their verdicts.

    Without --verdicts, writes a sheet: one HTML file that shows pairs and takes verdicts by key, in any browser,
    without a network. With --verdicts, reads the files that were saved from it: purity of the whole set with a 95 %
    interval, identity drift, agreement of reviewers, and which stricter settings would keep enough pairs pure.
    """
    from wildray.cli.audit import run

    result = run(arguments, *checked(arguments))
    return result if arguments.verdicts is not None else show(arguments, result)


def purge(arguments: argparse.Namespace) -> object:
    """Take the crops of media or detections out everywhere: packs, pairs, vectors, pages.

    For people in the footage, whom a detector of animals alone cannot tell apart. The rows of the detections stay.
    """
    from wildray.mining.purge import purge as run_stage

    return show(arguments, run_stage(Store.open(arguments.store), arguments.what))


def export(arguments: argparse.Namespace) -> object:
    """Write the detections as a MegaDetector results file (format 1.6), for Timelapse and other tools.

    People are written too, as category 2: that is how privacy is filtered for.
    """
    import os

    from wildray.mining.detectors.results_writer import write_results
    from wildray.schema import DETECTIONS, FRAMES, MEDIA

    store = Store.open(arguments.store)
    digest = store.choose("detections", arguments.detections, option="--detections")
    collection = store.collection("detections", digest)
    facts = collection.settings().get("facts", {})
    media = collection.read("media", MEDIA)
    folders = [os.path.dirname(uri) for uri in media["uri"].to_pylist() if os.path.isabs(uri)]
    root = arguments.root or (os.path.commonpath(folders) if folders else None)
    write_results(
        arguments.file,
        media=media,
        frames=collection.read("frames", FRAMES),
        detections=collection.read("detections", DETECTIONS),
        info={"detector": str(facts.get("detector", "unknown"))},
        root=root,
    )
    return show(arguments, {"file": arguments.file, "num_media": media.num_rows, "digest": digest, "root": root})


def mlflow(arguments: argparse.Namespace) -> object:
    """Open the MLflow UI of a store on this machine, until it is stopped with Ctrl-C."""
    from wildray.runlog import serve_ui

    store = Store.open(arguments.store)
    return {"exit_status": serve_ui(store.root, host=arguments.host, port=arguments.port)}


def doctor(arguments: argparse.Namespace) -> object:
    """Show what this machine or cluster has, what is missing, and the command that mends it."""
    from wildray.doctor import diagnose, render

    found: list[dict[str, object]] = []
    on_nodes: list[Check] = []
    if arguments.address:
        from wildray.cli.node_checks import check_nodes

        connect(arguments.address, verbose=arguments.verbose)
        found = nodes()
        on_nodes = check_nodes(arguments.store)
    checks = [*diagnose(arguments.store, nodes=found), *on_nodes]
    if not arguments.json:
        render(checks)
    return {"checks": [dataclasses.asdict(check) for check in checks]}


def show(arguments: argparse.Namespace, result: Any) -> dict[str, Any]:
    """Print a stage's result for people (unless ``--json``); returns it as plain values."""
    values = plain(result)
    if not arguments.json:
        table = Table(show_header=False, box=None, pad_edge=False)
        for key, value in values.items():
            if not isinstance(value, (dict, list)):
                table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
        Console().print(table)
    return values


def plain(result: Any) -> dict[str, Any]:
    """A stage's result as a dict of JSON-ready values."""
    if isinstance(result, Mapping):
        return dict(result)
    if hasattr(result, "to_json"):
        return dict(result.to_json())
    return dataclasses.asdict(result)


def _ready(arguments: argparse.Namespace, *, create: bool = False) -> tuple[Config, Store]:
    """Settings and store, checked before Ray is started."""
    config, store = checked(arguments, create=create)
    connect(arguments.address, verbose=arguments.verbose)
    return config, store


def checked(arguments: argparse.Namespace, *, create: bool = False) -> tuple[Config, Store]:
    """Settings and store, and whether what is named is there, without anything that takes seconds to import."""
    config = config_of(arguments)
    if getattr(arguments, "run_name", None) is not None:
        check_run_name(arguments.run_name)
    for path in (getattr(arguments, "data", None), config.train.labels):
        if path is not None and path.lower().endswith(".csv") and not Path(path).expanduser().is_file():
            raise ConfigError(f"There is no file {path}: give the path of a metadata CSV of labelled images.")
    return config, Store.open(arguments.store, create=create)

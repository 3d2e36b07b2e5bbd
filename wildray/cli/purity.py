"""``wildray purity``: judge a pair set by truth, or every setting of a grid, and print what came of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from wildray.cli.cluster import connect
from wildray.cli.logs import printable
from wildray.cli.options import config_of, overrides_of
from wildray.errors import ConfigError
from wildray.store import Store

if TYPE_CHECKING:
    from wildray.mining.judge import PairQuality


def run(arguments: argparse.Namespace) -> Any:
    """The figures of a pair set, or of a study."""
    if not 0 < arguments.match_iou <= 1:
        raise ConfigError(f"--match-iou: got {arguments.match_iou}, expected a number above 0 and up to 1.")
    return _study(arguments) if arguments.grid is not None else _one(arguments)


def _one(arguments: argparse.Namespace) -> Any:
    from wildray.mining.judge import pair_quality
    from wildray.mining.truth import read_truth

    if arguments.detections is not None:
        raise ConfigError("--detections goes with --grid; a pair set knows its detections: name it as --pairs.")
    if not arguments.truth:
        raise ConfigError(
            "Truth is needed: --truth FILE, MOT ground truth or truth/boxes.parquet of a simulated reserve; or --grid "
            "FILE, which names its footage. Without any truth, 'wildray audit' has people judge."
        )
    config_of(arguments)  # an unknown or wrong setting is said, whether it is used or not
    store = Store.open(arguments.store)
    quality = pair_quality(
        store,
        read_truth(arguments.truth),
        pairs=arguments.pairs,
        min_iou=arguments.match_iou,
        partial=arguments.partial,
    )
    if not arguments.json:
        _print(quality)
    return quality.to_json()


def _study(arguments: argparse.Namespace) -> Any:
    from wildray.report.pair_quality import report_pair_quality
    from wildray.sweep.pair_quality.footage import in_store, prepare
    from wildray.sweep.pair_quality.spec import PairGrid

    if arguments.pairs is not None:
        raise ConfigError("--pairs judges one pair set, --grid mines its own: give one of them.")
    grid = PairGrid.load(arguments.grid, overrides_of(arguments))
    store = Store.open(arguments.store, create=bool(grid.footage) and not arguments.truth)
    connect(arguments.address, verbose=arguments.verbose)
    from wildray.sweep.pair_quality.study import study

    if arguments.truth:
        collections = [in_store(store, arguments.truth, detections=arguments.detections)]
    else:
        collections = prepare(grid, store, workers=grid.config().scale.workers)
    result = study(grid, collections, store, min_iou=arguments.match_iou)
    page = report_pair_quality(store, grid.name)
    values = {**vars(result), **page.to_json()}
    if not arguments.json:
        console = Console()
        console.print(
            f"{result.num_points:,} settings and collections, {result.num_pair_sets:,} pair sets, {result.num_mined:,} "
            f"mined now, decoded frames {result.num_decoded:,}, {result.seconds:.0f} s"
        )
        for sentence in page.advice:
            console.print(f"- {sentence}", markup=False)
        console.print(f"{page.page}\n{page.table}", markup=False, soft_wrap=True)
    return values


def _print(quality: PairQuality) -> None:
    whole, console = quality.whole, Console()
    if whole.purity is None:
        console.print(f"The pairs {quality.pairs} are none: there is nothing to judge.")
        return
    drawn = f"blocks of {whole.block_s:g} s" if whole.block_s is not None else "sequences"
    parts = f" {whole.num_partial:,} hold a box of a part of an animal, which counts as that animal."
    lines = [
        f"Pairs {quality.pairs}: purity {whole.purity:.3f} ({whole.low:.3f} to {whole.high:.3f}, 95 % interval over "
        f"{whole.num_groups} {drawn}). Of {whole.num_pairs:,} pairs {whole.num_same:,} join one individual, "
        f"{whole.num_different:,} two, {whole.num_false_boxes:,} hold a box that shows none."
        + (parts if whole.num_partial else ""),
        f"They show {whole.num_individuals:,} individuals in {whole.num_encounters:,} encounters. Of the detections "
        f"{quality.num_unmatched_detections:,} match no animal ({quality.num_part_boxes:,} are parts of one); of "
        f"{quality.num_truth:,} true boxes in the frames looked at {quality.num_unmatched_truth:,} were not detected.",
    ]
    if quality.num_media_unknown:
        lines.append(f"{quality.num_media_unknown:,} media without truth were left out.")
    for line in lines:
        console.print(line, markup=False)
    console.print(_parts_table(quality))


def _parts_table(quality: PairQuality) -> Table:
    """By camera, animals in the frame, gap, overlap and margin; gap and overlap are medians of right pairs."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("", "pairs", "purity (95 % interval)", "individuals", "gap / s", "IoU"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=name != "")
    for breakdown, rows in quality.parts.items():
        table.add_section()
        for part, one in rows.items():
            words = {"camera": part, "density": f"{part} animals", "iou": f"IoU {part}"}
            share = "-" if one.purity is None else f"{one.purity:.3f} ({one.low:.3f} to {one.high:.3f})"
            medians = (one.gap_s[1] if one.gap_s else None, one.iou)
            table.add_row(
                printable(words.get(breakdown, f"{breakdown} {part}")),
                *(f"{one.num_pairs:,}", share, f"{one.num_individuals:,}"),
                *("-" if value is None else f"{value:.2f}" for value in medians),
            )
    return table

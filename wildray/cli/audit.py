"""``wildray audit``: draw a sheet, or read the verdicts on one and print what they say."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wildray.cli.logs import printable
from wildray.config import Config
from wildray.errors import ConfigError
from wildray.store import Store

if TYPE_CHECKING:
    from wildray.report.audit.estimate import Estimate
    from wildray.report.audit.result import AuditResult, Share

PIPED_WIDTH = 130
"""Columns of what is written into a file: the tables whole."""
AXIS_NAMES = {"density": "boxes in the frame", "gap_s": "gap / s", "iou": "IoU"}


def run(arguments: argparse.Namespace, config: Config, store: Store) -> Any:
    """What was drawn, or what the verdicts say."""
    from wildray.report.audit import draw_sheet, read_audit

    if arguments.verdicts is None:
        return draw_sheet(config, store, pairs=arguments.pairs, out=arguments.out)
    for name in ("pairs", "out"):
        if getattr(arguments, name) is not None:
            raise ConfigError(
                f"--{name} draws a sheet, --verdicts reads one: give one of them. A verdict file names its pairs."
            )
    result = read_audit(config, store, arguments.verdicts)
    if not arguments.json:
        show_audit(result)
    return result.to_json()


def show_audit(result: AuditResult) -> None:
    """Print the tables."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    counts = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in result.counts.items())
    console.print(Text(f"Sheet {result.sheet} of the pairs {result.pairs}, {result.num_drawn} pairs drawn: {counts}."))
    table = Table(
        title="Estimates for all pairs of the set, with 95 % intervals", title_justify="left", box=SIMPLE_HEAD
    )
    for name in ("", "pairs", "judged", "purity", "identity drift", "not an animal"):
        table.add_column(name, justify="left" if name == "" else "right")
    table.add_row("all", *_cells(result.whole))
    for axis, rows in result.parts.items():
        table.add_section()
        for row in rows:
            table.add_row(f"{AXIS_NAMES[axis]} {row.part}", *_cells(row))
    console.print(table)
    for name, seconds in zip(result.reviewers, result.median_seconds, strict=True):
        console.print(Text(f"{printable(name)}: {seconds:.1f} s a pair in the median."))
    for one in result.agreements:
        names = " and ".join(printable(name) for name in one.reviewers)
        kappa = "unknown: both gave one verdict alone" if one.kappa is None else f"{one.kappa:.3f}"
        agreed = (
            "no pair in common"
            if one.agreed is None
            else f"agree on {one.agreed:.1%} of {one.num_pairs}, kappa {kappa}"
        )
        console.print(Text(f"{names}: {agreed}; same against different: {one.conflicts}."))
    console.print(Text(f"Purity of {result.recommendation['target']:g}: {result.recommendation['sentence']}"))
    for note in result.notes:
        console.print(Text(f"Note: {note}"))


def _cells(share: Share) -> list[str]:
    estimates = (share.purity, share.drift, share.not_an_animal)
    return [f"{share.num_pairs:,}", str(share.num_judged), *(_spelled(one) for one in estimates)]


def _spelled(one: Estimate) -> str:
    return "unknown" if one.value is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"

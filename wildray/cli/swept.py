"""``wildray sweep``: read the file, show what it would do or do it, print what came of it."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from wildray.cli.cluster import connect, resources
from wildray.cli.options import overrides_of
from wildray.store import Store
from wildray.sweep.spec import SweepSpec

if TYPE_CHECKING:
    from wildray.sweep.plan import Plan

MAX_SHOWN = 40
"""Trials that a dry run prints one by one."""


def run(arguments: argparse.Namespace) -> Any:
    """The sweep's result, or its plan."""
    spec = SweepSpec.load(arguments.file, overrides_of(arguments))
    store = Store.open(arguments.store, create=spec.simulate or bool(spec.media))
    connect(arguments.address, verbose=arguments.verbose, dashboard=True)
    from wildray.report.sweeps import report_sweep
    from wildray.sweep.plan import plan
    from wildray.sweep.stage import sweep
    from wildray.sweep.tracked import open_parent
    from wildray.sweep.tuner import room_for

    if not arguments.dry_run:
        result = sweep(spec, store)
        page = report_sweep(store, spec.name)
        with open_parent(spec, store) as log:
            for path in (page.page, page.metrics_file, *page.figures):
                log.artifact(path, "report")
        return dataclasses.asdict(result) | {"page": str(page.page)}
    room = room_for(spec.resources, resources())
    planned = plan(spec, store, concurrency=room)
    if not arguments.json:
        _print(planned, spec)
    return {
        "num_trials": planned.num_trials,
        "num_impossible": sum(trial.problem is not None for trial in planned.trials),
        "num_pair_sets": planned.num_pair_sets,
        "num_backbones": planned.num_backbones,
        "concurrency": planned.concurrency,
        "hours": planned.hours,
        "core_hours": planned.core_hours,
        "estimated_from": planned.measured,
    }


def _print(planned: Plan, spec: SweepSpec) -> None:
    table = Table(title=f"{spec.name}: what would be run")
    for name in (*spec.search, "seed", "steps", "images", "minutes"):
        table.add_column(name, justify="left" if name in spec.search else "right")
    for trial in planned.trials[:MAX_SHOWN]:
        values = [str(trial.settings.get(name, "")) for name in spec.search]
        estimates = (str(trial.num_steps), f"{trial.num_images:,.0f}", f"{trial.seconds / 60:.1f}")
        table.add_row(*values, str(trial.seed), *(estimates if trial.problem is None else ("cannot", "be", "run")))
    console = Console()
    console.print(table)
    if len(planned.trials) > MAX_SHOWN:
        console.print(f"... and {len(planned.trials) - MAX_SHOWN} more")
    for problem in {trial.problem: None for trial in planned.trials if trial.problem is not None}:
        console.print(f"Cannot be run: {problem}", markup=False)

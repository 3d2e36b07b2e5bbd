"""The page of a sweep: which setting is best, by how much, and what the others say.

In: a store and a sweep's name. Out: ``reports/sweep-<name>/``: ``index.html``, which holds everything it shows, its
charts as PNG beside it, and ``metrics.json``. It is made of what the trials recorded and can be written at any moment,
while the sweep is under way too. MLflow's own charts show runs; they know neither intervals nor which trials
were stopped.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from wildray import __version__
from wildray.report.figures import Chart
from wildray.report.page import Html
from wildray.report.pictures import write_picture
from wildray.report.sweeps import against, compared, told
from wildray.report.sweeps.costs import Cost, cost
from wildray.report.sweeps.page import document
from wildray.report.sweeps.records import Sweep, number, part, read_sweep
from wildray.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepPage:
    """What report_sweep wrote.

    Attributes:
        page: The page.
        figures: The charts as PNG.
        metrics: Counts and figures of merit, flat: ``num_trials``, ``num_finished``, ``num_stopped``, ``num_failed``,
            ``core_hours``, ``outside_share``, ``startup_s`` (mean of a trial's attempts) and, where known,
            ``validation_mAP``, ``test_mAP`` with ``_low`` and ``_high``, ``seconds``.
        metrics_file: The same as JSON.
    """

    page: Path
    figures: tuple[Path, ...]
    metrics: dict[str, float]
    metrics_file: Path


def report_sweep(store: Store, name: str) -> SweepPage:
    """Write the page of a sweep, under way or ended; it replaces an earlier one.

    Args:
        store: Holds the sweep, and takes the page.
        name: Of the sweep.

    Raises:
        ConfigError: The store has no sweep of that name.
        StoreError: A record was altered, or the page cannot be written.
    """
    begun = time.monotonic()
    sweep = read_sweep(store, name)
    logger.info("report: sweep %s, %d trials", name, len(sweep.records))
    sections, charts = _sections(sweep)
    folder = f"sweep-{name}"
    pictures = tuple(write_picture(store, folder, chart) for chart in charts)
    metrics = _metrics(sweep)
    metrics_file = store.write_text(json.dumps(metrics, indent=1), "reports", folder, "metrics.json")
    page = document(f"wildray: sweep {name}", _subtitle(sweep), sections, f"wildray {__version__} · store {store.root}")
    path = store.write_text(page, "reports", folder, "index.html")
    logger.info("report: %s, %.1f MB, %d charts, %.1f s", path, len(page) / 1e6, len(charts), time.monotonic() - begun)
    return SweepPage(page=path, figures=pictures, metrics=metrics, metrics_file=metrics_file)


def _sections(sweep: Sweep) -> tuple[dict[str, Html], list[Chart]]:
    charted = {
        "heatmap": compared.heat_map(sweep),
        "size": against.size(sweep),
        "samples": against.samples(sweep),
        "progress": told.progress(sweep),
        "importance": compared.importances(sweep),
        "species": compared.species(sweep),
        "methods": compared.methods(sweep),
    }
    sections = {"result": told.result(sweep)}
    sections |= {name: made[0] for name, made in charted.items() if made is not None}
    sections |= {"trials": told.trials(sweep), "cost": cost(sweep), "settings": told.settings(sweep)}
    return sections, [chart for made in charted.values() if made is not None for chart in made[1]]


def _subtitle(sweep: Sweep) -> str:
    described = str(sweep.content.get("description") or "").strip()
    spec = part(sweep.content, "spec")
    seeds, images = spec.get("seeds"), number(part(spec, "budget").get("images"))
    words = [f"{sweep.num_trials:,} {'trial' if sweep.num_trials == 1 else 'trials'}"]
    if isinstance(seeds, list) and len(seeds) > 1:
        words.append(f"{len(seeds)} seeds each")
    if images is not None:
        words.append(f"{images:,.0f} images each")
    words.append(f"page made on {time.strftime('%Y-%m-%d %H:%M')}")
    return f"{described} · {', '.join(words)}" if described else ", ".join(words)


def _metrics(sweep: Sweep) -> dict[str, float]:
    found = Cost.of(sweep)
    statuses = [record.status for record in sweep.records]
    attempts = sum(len(record.startup_s) for record in sweep.records)
    metrics = {"num_trials": float(sweep.num_trials)}
    metrics |= {f"num_{status}": float(statuses.count(status)) for status in ("finished", "stopped", "failed")}
    metrics |= {"core_hours": found.core_hours, "outside_share": found.outside_share}
    if attempts:
        metrics["startup_s"] = found.startup_s / attempts
    if found.wall_s is not None:
        metrics["seconds"] = found.wall_s
    for where in ("validation", "test"):
        figures = part(sweep.content, "best", where)
        for key in ("mAP", "mAP_low", "mAP_high"):
            if (value := number(figures.get(key))) is not None:
                metrics[f"{where}_{key}"] = value
    return metrics

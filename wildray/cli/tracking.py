"""What the commands add to a training run's MLflow record: the evaluation's figures, the report's pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wildray import runlog
from wildray.config import Config
from wildray.report import ReportResult, log_pictures
from wildray.store import Store


def log_evaluation(config: Config, store: Store, run: str, measured: Mapping[str, Any]) -> None:
    """Add an evaluation's numbers to the run, under ``final``."""
    numbers = {f"final/{key}": float(value) for key, value in measured.items() if isinstance(value, (int, float))}
    with _open(config, store, run) as log:
        log.metrics(numbers, step=0)


def log_report(config: Config, store: Store, run: str, page: ReportResult) -> None:
    """Add the report's page and pictures to the run."""
    with _open(config, store, run) as log:
        log_pictures(page, log)


def _open(config: Config, store: Store, run: str) -> runlog.RunLog:
    return runlog.open_in(config.tracking, store.root, run, {})

"""Charts as PNG files beside a page, to be logged, or put into a paper."""

from __future__ import annotations

from pathlib import Path

from wildray.report.figures import Chart
from wildray.store import Store


def write_picture(store: Store, folder: str, chart: Chart) -> Path:
    """Publish a chart under ``reports/<folder>/``; returns its path."""
    path = store.path("reports", folder, f"{chart.name}.png")

    def write(temporary: Path) -> None:
        temporary.write_bytes(chart.png)

    store.publish(path, write)
    return path

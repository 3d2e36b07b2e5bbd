"""Stores for the report: an empty one, and one with all that a page shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_rows import write_detections, write_evaluation, write_pairs, write_run

from wildray.report import figures
from wildray.store import Store


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are not drawn, which takes seconds."""
    monkeypatch.setattr(figures, "drawn_chart", lambda name, size, draw: figures.Chart(name, "<svg></svg>", b"png"))


@pytest.fixture
def empty_store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("full"), create=True)
    write_pairs(store, write_detections(store))
    write_run(store)
    write_evaluation(store)
    return store

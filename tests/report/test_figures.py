"""Charts: unusual numbers and names, the same bytes from the same data."""

from __future__ import annotations

import numpy as np
import pytest

from wildray.report.figures import bars, curves, histograms, scatter, timeline
from wildray.report.learned import flat_map


@pytest.mark.parametrize("values", [[], [np.nan], [1.0], [2.0, 2.0, np.inf], list(np.linspace(0, 1, 50))])
def test_histograms_of_any_numbers(values: list[float]) -> None:
    chart = histograms("h", [("title", "x / s", np.array(values, dtype=np.float64))])
    assert chart.svg.startswith("<svg")
    assert chart.png.startswith(b"\x89PNG")


def test_names_are_text_and_not_formulas() -> None:
    names = ["$x^2$", "<b>", "北の水場", "a\nb", "n" * 60]
    times = {name: np.array(["2024-05-01T06:00:00"], dtype="datetime64[us]") for name in names}
    svg = timeline("t", times, {name: ["animal"] for name in names}).svg
    assert "$x^2$" in svg
    assert "&lt;b&gt;" in svg
    assert "北の水場" in svg
    assert "n" * 25 + "…" in svg
    assert "<b>" not in svg


def test_colours_are_those_of_the_page_and_nothing_is_linked() -> None:
    epochs = np.arange(3, dtype=np.float64)
    svg = curves("c", [("Loss", "loss", {"loss": (epochs, epochs), "other": (epochs, epochs)})]).svg
    assert "var(--ink)" in svg
    assert "var(--soft)" in svg
    assert "http" not in svg
    assert "DejaVu" not in svg


def test_the_same_data_give_the_same_picture() -> None:
    panels = [("By species", [("nyala", 0.5, 0.1), ("zebra", 0.25, None)])]
    first, second = (bars("b", panels, label="mAP") for _ in range(2))
    assert first == second


def test_ids_of_two_charts_do_not_meet() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    one, other = (scatter(name, points, [("By animal", ["a", "b"] * 10)]) for name in ("one", "two"))
    ids = [set(part.split('"')[0] for part in chart.svg.split(' id="')[1:]) for chart in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_the_map_keeps_groups_together() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 24)) * 4
    vectors = np.concatenate([centre + rng.normal(size=(20, 24)) * 0.1 for centre in centres]).astype(np.float32)
    points = flat_map(vectors)
    assert points.shape == (60, 2)
    groups = points.reshape(3, 20, 2)
    spread = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    apart = min(np.linalg.norm(groups[i].mean(axis=0) - groups[j].mean(axis=0)) for i in range(3) for j in range(i))
    assert apart > 2 * spread


@pytest.mark.parametrize("count", [3, 10, 40])
def test_a_map_of_equal_vectors_is_finite(count: int) -> None:
    points = flat_map(np.ones((count, 8), dtype=np.float32))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()

"""The sections on what was learned: results, curves, ranked answers, the map of vectors, and the settings.

In: ``Findings`` and ``Evaluation``. Out: sections and charts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wildray.report.crops import crop
from wildray.report.evaluation import Evaluation
from wildray.report.figures import Chart, bars, curves, dots, scatter
from wildray.report.gather import Findings
from wildray.report.mined import drawn
from wildray.report.page import Content, Html, missing, note, section, table, tag
from wildray.report.words import BROKEN_OFF, COLLAPSED, EVALUATE, NOT_EVALUATED, NOT_TRAINED, PRETRAIN, STALE

NUM_STRIPS, NUM_ANSWERS = 12, 8
MAX_BARS, MAX_POINTS = 30, 1500
_METRICS = {"mAP": "mAP", "cmc_1": "CMC-1", "cmc_5": "CMC-5", "cmc_10": "CMC-10"}
_CURVES = (
    ("Loss", "loss", {"loss": "loss"}),
    ("mAP on labelled images", "mAP", {"mAP": "mAP"}),
    ("Effective rank of the vectors", "directions", {"embedding_rank": "rank"}),
    ("Spread of the vectors", "0 = all alike, 1 = uniform", {"embedding_std": "spread"}),
    ("Distance of positive pairs", "0 = alike, 2 = by chance", {"alignment": "alignment"}),
    ("Uniformity of the vectors", "0 = all alike, -4 = uniform", {"uniformity": "uniformity"}),
    ("Learning rate", "learning rate", {"learning_rate": "learning rate"}),
    ("Speed", "images per second", {"images_per_s": "speed"}),
)


def results(evaluation: Evaluation | None) -> tuple[Html, list[Chart]]:
    """Chance, before and after training, with intervals."""
    if evaluation is None:
        return section("results", missing(NOT_EVALUATED, EVALUATE)), []
    figures = evaluation.figures
    rows: list[list[Content]] = []
    for key, name in _METRICS.items():
        if key in figures:
            before, after = _with_interval(figures, f"untrained_{key}"), _with_interval(figures, key, strong=True)
            rows.append([name, _number(figures.get(f"chance_{key}")), before, after])
    excluded = ", ".join(evaluation.exclude) if evaluation.exclude is not None else "encounter, where the table has it"
    counts = [
        f"{int(figures[key]):,} {words}"
        for key, words in (
            ("num_queries", "queries"),
            ("num_identities", "individuals"),
            ("num_gallery", "gallery images"),
        )
        if key in figures
    ]
    rule = f"answers that share one of these columns with the query do not count: {excluded or 'none'}"
    if evaluation.same:
        rule += f"; nor do those that differ in one of these: {', '.join(evaluation.same)}"
    told = tag("p", tag("small", f"{', '.join(counts)}; {rule}."))
    gain = None
    if "gain_mAP" in figures:
        low, high = figures.get("gain_mAP_low"), figures.get("gain_mAP_high")
        sure = low is not None and high is not None and (low > 0 or high < 0)
        interval = f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else ""
        verdict = "" if sure else " The interval holds zero: training changed nothing that this test can show."
        gain = tag(
            "p", "Training changed mAP by ", tag("strong", f"{figures['gain_mAP']:+.3f}"), f"{interval}.{verdict}"
        )
    body = table(["", "chance", "before training", "after training"], rows, numeric=(1, 2, 3))
    chart = dots(
        "result",
        [name for key, name in _METRICS.items() if key in figures],
        {
            series: [_interval(figures, f"{prefix}{key}") for key in _METRICS if key in figures]
            for series, prefix in (("chance", "chance_"), ("before training", "untrained_"), ("after training", ""))
        },
    )
    stale = note(STALE) if evaluation.stale else None
    return section("results", stale, drawn(chart), body, gain, told), [chart]


def training(found: Findings) -> tuple[Html, list[Chart]]:
    """Loss, mAP, and whether the vectors collapsed."""
    broken = None if found.broken_off is None else note(BROKEN_OFF.format(**found.broken_off))
    if not found.history:
        return section("training", broken or missing(NOT_TRAINED, PRETRAIN)), []
    panels = []
    for title, label, series in _CURVES:
        present = {name: _series(found.history, key) for key, name in series.items()}
        present = {name: pair for name, pair in present.items() if pair[0].size}
        if present:
            panels.append((title, label, present))
    if not panels:
        return section("training", tag("p", "The history holds no numbers.")), []
    chart = curves("training", panels)
    last = found.history[-1]
    collapsed = None
    if last.get("embedding_rank", 2.0) < 1.5 or last.get("embedding_std", 1.0) < 0.02:
        collapsed = note(COLLAPSED)  # fmt: skip
    told = tag("p", tag("small", f"Run {found.run}, {len(found.history)} epochs."))
    return section("training", broken, collapsed, drawn(chart), told), [chart]


def answers(evaluation: Evaluation | None) -> Html:
    """Queries with their first answers, right and wrong marked."""
    if evaluation is None:
        return section("answers", missing(NOT_EVALUATED, EVALUATE))
    if evaluation.labelled is None or not evaluation.matches.num_rows:
        return section("answers", missing("The labelled images or their matches are gone:", EVALUATE))
    strips = _strips(evaluation)
    return section("answers", tag("div", strips, class_="strips"))


def vector_map(evaluation: Evaluation | None) -> tuple[Html, list[Chart]]:
    """The vectors in two dimensions."""
    if evaluation is None or evaluation.labelled is None or evaluation.vectors is None:
        return section("map", missing("There are no vectors of labelled images:", EVALUATE)), []
    table_of = evaluation.labelled.table
    known = dict(zip(table_of["image_id"].to_pylist(), range(table_of.num_rows), strict=True))
    rows = [(place, known[name]) for place, name in enumerate(evaluation.vector_ids) if name in known]
    if len(rows) < 3:
        return section("map", tag("p", "There are too few images for a map.")), []
    if len(rows) > MAX_POINTS:
        chosen = np.random.default_rng(0).choice(len(rows), MAX_POINTS, replace=False)
        rows = [rows[index] for index in np.sort(chosen).tolist()]
    panels = []
    for column, name in (("identity", "By individual"), ("species", "By species"), ("camera_id", "By camera")):
        if column in table_of.column_names:
            values = table_of[column].to_pylist()
            panels.append((name, [str(values[row] or "unknown") for _, row in rows]))
    chart = scatter("vectors", flat_map(evaluation.vectors[[place for place, _ in rows]]), panels)
    return section("map", drawn(chart)), [chart]


def groups(evaluation: Evaluation | None) -> tuple[Html, list[Chart]]:
    """Figures per species and per individual."""
    if evaluation is None:
        return section("groups", missing(NOT_EVALUATED, EVALUATE)), []
    panels = []
    for name, figures in (("By species", evaluation.per_species), ("By individual", evaluation.per_identity)):
        ranked = sorted(
            ((key, values["mAP"], values.get("chance_mAP")) for key, values in figures.items()),
            key=lambda item: (-item[1], item[0]),
        )
        if len(ranked) > MAX_BARS:
            half = MAX_BARS // 2
            name, ranked = f"{name} (the best and the worst {half} of {len(ranked)})", ranked[:half] + ranked[-half:]
        if ranked:
            panels.append((name, ranked))
    if not panels:
        return section("groups", tag("p", "Evaluation wrote no figures by group.")), []
    chart = bars("groups", panels, label="mAP")
    return section("groups", drawn(chart)), [chart]


def settings(found: Findings) -> Html:
    """The configuration, folded."""
    names = [("detections", found.detections_digest), ("pairs", found.pairs_digest), ("run", found.run)]
    rows = [[name, tag("code", value)] for name, value in names if value]
    folded = tag("details", tag("summary", "config.yaml"), tag("pre", found.config_text))
    return section("settings", table(["", "name in the store"], rows) if rows else None, folded)


def flat_map(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N, 2) coordinates of (N, D) vectors: t-SNE of their main components; of few, those components alone."""
    centred = np.asarray(vectors, dtype=np.float64) - vectors.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    components = (left * singular)[:, :50]
    if components.shape[1] < 2:
        components = np.pad(components, ((0, 0), (0, 2 - components.shape[1])))
    if len(vectors) < 30 or singular[0] < 1e-9:
        return np.asarray(components[:, :2], dtype=np.float64)
    from sklearn.manifold import TSNE  # a second to import

    perplexity = min(30.0, len(vectors) / 4)
    placed = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=500).fit_transform(components)
    return np.asarray(placed, dtype=np.float64)


def _strips(evaluation: Evaluation) -> list[Html]:
    assert evaluation.labelled is not None
    rows = {row["image_id"]: row for row in evaluation.labelled.table.to_pylist()}
    by_query: dict[str, list[dict[str, Any]]] = {}
    for match in evaluation.matches.to_pylist():
        if match["query_id"] in rows and match["gallery_id"] in rows:
            by_query.setdefault(match["query_id"], []).append(match)
    right = {
        query: [rows[match["gallery_id"]]["identity"] == rows[query]["identity"] for match in sorted_by_rank(found)]
        for query, found in by_query.items()
    }
    ranked = sorted(by_query, key=lambda query: (-sum(right[query][:NUM_ANSWERS]), query))
    middle = ranked[1:-1]
    drawn_by_lot = np.random.default_rng(0).permutation(len(middle))[: NUM_STRIPS - 2].tolist()
    chosen = [*ranked[:1], *ranked[1:][-1:], *(middle[index] for index in sorted(drawn_by_lot))]
    reader = evaluation.labelled.reader()
    strips = []
    for query in chosen:
        cards = [_answer(reader, rows[query], None, "query")]
        for match in sorted_by_rank(by_query[query])[:NUM_ANSWERS]:
            same = rows[match["gallery_id"]]["identity"] == rows[query]["identity"]
            cards.append(_answer(reader, rows[match["gallery_id"]], match["similarity"], "right" if same else "wrong"))
        strips.append(tag("div", cards, class_="strip"))
    return strips


def sorted_by_rank(matches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers of one query, the most alike first."""
    return sorted(matches, key=lambda match: int(match["rank"]))


def _answer(reader: Any, row: Mapping[str, Any], similarity: float | None, kind: str) -> Html:
    sign = {"query": "query", "right": "✓ ", "wrong": "✗ "}[kind]
    name = row.get("identity") or "unknown"
    told = tag("figcaption", tag("b", sign), None if kind == "query" else f"{similarity:.2f}", tag("br"), name)
    return tag("figure", crop(reader, row["crop_pack"], row["crop_row"], f"{kind}: {name}"), told, class_=kind)


def _series(history: list[dict[str, Any]], key: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    points = [
        (float(epoch.get("epoch", number + 1)), float(epoch[key]))
        for number, epoch in enumerate(history)
        if isinstance(epoch.get(key), int | float) and np.isfinite(epoch[key])
    ]
    pairs = np.array(points, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _interval(figures: Mapping[str, float], key: str) -> tuple[float, float, float]:
    """(value, low, high); both ends are the value where there is no interval, and NaN where there is no value."""
    value = figures.get(key, float("nan"))
    return value, figures.get(f"{key}_low", value), figures.get(f"{key}_high", value)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _with_interval(figures: Mapping[str, float], key: str, *, strong: bool = False) -> Html:
    value, low, high = figures.get(key), figures.get(f"{key}_low"), figures.get(f"{key}_high")
    number = tag("b" if strong else "span", _number(value))
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return Html(number + tag("small", interval))

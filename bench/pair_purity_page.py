"""The page and the figure of ``bench.pair_purity``, of whatever runs are finished.

In: results by name. Out: Markdown, and a PNG. Sentences come from contrasts with a rule that was stated first; what
is not finished stands as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.pages import MISSING, origin, over, states, table, with_interval
from bench.record import Result, Results
from bench.verdicts import STATUS_RULE, VERDICT_RULE, contrast, counts, pooled_std
from wildray.report.figures import COLORS, INK, drawn_chart

FIGURE = "pair_purity.png"
PURITIES = {"gap-2000": 1.0, "purity-95": 0.95, "purity-85": 0.85, "purity-70": 0.7, "purity-50": 0.5}
GAPS_S = {"gap-250": 0.25, "gap-500": 0.5, "gap-1000": 1.0, "gap-2000": 2.0, "gap-4000": 4.0}
MINED = {"mined-direct": "direct", "mined-assigned": "assigned", "mined-chained": "chained"}
SECOND = "second-chained"
SELF = "self-2000"
CLAIMS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "Purity 1 over purity 0.5": (["gap-2000"], ["purity-50"]),
    "Purity 0.95 and 1 over 0.5 and 0.7": (["gap-2000", "purity-95"], ["purity-50", "purity-70"]),
    "Gap of 4 s over 0.25 s": (["gap-4000"], ["gap-250"]),
    "Gaps of 2 and 4 s over 0.25 and 0.5 s": (["gap-2000", "gap-4000"], ["gap-250", "gap-500"]),
    "Pairs of `chained` over pairs of `direct`": (["mined-chained"], ["mined-direct"]),
    "Right pairs over two views of one crop": (["gap-2000"], [SELF]),
    "Second round over first": ([SECOND], ["mined-chained"]),
}


def page(results: Results) -> str:
    """The page as Markdown."""
    sections = [
        "# What the purity of pairs is worth",
        origin(results, command="python -m bench.pair_purity --table docs/pair_purity.md"),
        _introduction(results),
        f"![mAP against purity, and against the gap]({FIGURE})",
        "## Purity\n\nRight pairs of 2 s, a share of them swapped for wrong ones that `direct` made at 2 s.\n\n"
        + _purity_table(results),
        "## Gap\n\nRight pairs alone. Beside them what `direct` (IoU 0.2, the published rule) makes at that gap of the "
        "same footage.\n\n" + _gap_table(results),
        "## As mined, and a second round\n\n" + _mined_table(results),
        "## What follows\n\n" + _claims(results),
        _meaning(results),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(results: Results) -> str:
    one = next(iter(results.values()), None)
    size = MISSING if one is None else f"{int(one['set_num']):,} pairs"
    seen = MISSING if one is None or one["error"] else f"{one['num_seen_images']:,} images in {one['num_steps']} steps"
    return (
        "SimCLR with a ResNet-10-T at 64 px trains from random weights on pairs of a simulated reserve of herds (80 "
        "videos of 10 s, 0.9 of the visits by two to four animals, frames 0.25 s apart, boxes by motion), at one "
        f"budget ({seen}) and on sets of one size ({size}): what differs is which pairs. Right and wrong are by the "
        "simulator's truth: two animals are a wrong pair; a box of no animal is neither, and is only among what is as "
        "mined. Right pairs are drawn from those of `chained`, at random by seed. Measured is mAP on forty individuals "
        "that nobody filmed: an animal is to be found again in another encounter, at another camera, by the same "
        "flank. Brackets are 95 % intervals over these individuals, ± is the standard deviation over seeds."
        f"\n\n{STATUS_RULE}"
    )


def found(results: Results, kind: str) -> list[Result]:
    """Finished runs of a kind, by seed, without those that failed."""
    names = [name for name in sorted(results) if name.rpartition("-s")[0] == kind]
    return [results[name] for name in names if results[name]["error"] is None]


def _cells(runs: Sequence[Result]) -> list[str]:
    if not runs:
        return [MISSING, *[""] * 4]
    return [
        states(runs),
        str(len(runs)),
        with_interval(runs),
        over(runs, lambda one: one["after"]["cmc_1"]),
        over(runs, lambda one: one["loss_last"], 2),
    ]


HEADER = ["", "seeds", "mAP", "CMC-1", "loss, last epoch"]


def _purity_table(results: Results) -> str:
    rows = [[f"{purity:g}", *_cells(found(results, kind))] for kind, purity in PURITIES.items()]
    rows.append(["*two views of one crop instead of a pair*", *_cells(found(results, SELF))])
    before = [one for kind in PURITIES for one in found(results, kind)]
    if before:
        rows.append(["*before training*", "", "", over(before[:1], lambda one: one["before"]["mAP"]), "", ""])
        rows.append(["*chance*", "", "", over(before[:1], lambda one: one["after"]["chance_mAP"]), "", ""])
    return table(["purity", *HEADER], rows)


def _gap_table(results: Results) -> str:
    rows = []
    for kind, gap_s in GAPS_S.items():
        runs = found(results, kind)
        told = next((one for one in runs if "direct_num" in one), None)
        yielded = f"{int(runs[0]['mined_num']):,}" if runs else ""
        published = ["", ""]
        if told is not None:
            published = [f"{int(told['direct_num']):,}", f"{told['direct_purity']:.3f}, {told['direct_different']:.3f}"]
        rows.append([f"{gap_s:g} s", *_cells(runs), yielded, *published])
    return table(["gap", *HEADER, "right pairs of `chained`", "pairs of `direct`", "right, of two animals"], rows)


def _mined_table(results: Results) -> str:
    rows = []
    for kind, name in {**MINED, SECOND: "chained, second round"}.items():
        runs = found(results, kind)
        facts = ["", "", ""]
        if runs:
            facts = [
                f"{np.mean([one['mined_num'] for one in runs]):,.0f}",
                over(runs, lambda one: one["set_purity"]),
                over(runs, lambda one: one["different"]),
            ]
        rows.append([name, *facts, *_cells(runs)])
    second = found(results, SECOND)[:1]
    overlap = ""
    if second:
        overlap = (
            f" With overlap alone, without any looks, it mines {int(second[0]['overlap_num']):,} pairs of purity "
            f"{second[0]['overlap_purity']:.3f}."
        )
    return (
        "All at 2 s; of what each mines as many pairs as everywhere are drawn. *chained* compares colours; its *second "
        "round* compares, by `mine.embeddings`, what the run of the first round with the same seed has learned."
        + overlap
        + "\n\n"
        + table(["linker", "pairs mined", "right", "of two animals", *HEADER], rows)
    )


def verdicts(results: Results) -> dict[str, Any]:
    """The contrast of each claim, over the seeds that all of its kinds were run with; None without one."""
    kinds = {name.rpartition("-s")[0] for name in results}
    seeds = sorted({name.rpartition("-s")[2] for name in results})
    spread = pooled_std(results, [[f"{kind}-s{seed}" for seed in seeds] for kind in sorted(kinds)])
    told: dict[str, Any] = {}
    for claim, (better, worse) in CLAIMS.items():
        sides = [[f"{kind}-s{seed}" for kind in [*better, *worse]] for seed in seeds]
        usable = [side for side in sides if all(name in results and counts(results[name]) for name in side)]
        weights = {
            name: (1 if number < len(better) else -1) / (len(better) if number < len(better) else len(worse))
            for side in usable
            for number, name in enumerate(side)
        }
        weights = {name: weight / len(usable) for name, weight in weights.items()}
        told[claim] = contrast(results, weights, spread=spread) if weights else None
    return told


def _claims(results: Results) -> str:
    lines = []
    for claim, told in verdicts(results).items():
        if told is None:
            lines.append(f"- {claim}: {MISSING}, or none that may decide it.")
        else:
            lines.append(f"- {claim}: **{told.verdict}**, {told}, from {told.num_runs} runs.")
    chance = "Nothing corrects for the number of claims: of twenty such intervals about one leaves 0 out by chance."
    return f"{VERDICT_RULE} {chance}\n\n" + "\n".join(lines)


def _meaning(results: Results) -> str:
    """What it says of the published rule: an overlap of 0.2, at 120 s, 120 frames, or between consecutive frames."""
    told = verdicts(results)["Purity 0.95 and 1 over 0.5 and 0.7"]
    said = {
        "held": "On this footage a wrong pair costs: the interval decides how pure a set of the published rule is, and "
        "through that what is learned.",
        "not held": "On this footage impure sets were not worse at this budget, against expectation.",
        "undecided": "At this budget and on this footage a loss by wrong pairs could not be told from chance, even "
        "where half of them join two animals; the interval above bounds what it can be. So an impure rule need not "
        "show in mAP, and a good mAP does not say that pairs are pure.",
    }
    verdict = "What a wrong pair costs is not yet run." if told is None else said[told.verdict]
    return (
        "**The published overlap of 0.2 and its interval** (120 s in one place, 120 frames in another, consecutive "
        f"frames in a third). {_published(results)}{verdict} {_use(results)}Which reading is meant decides how many "
        "pairs there are, too: in clips of 10 s nothing is 120 s apart, 120 frames are the whole clip at 12 frames a "
        "second, and consecutive frames are pairs of the shortest gap of the table. Of real crowds the rule's sets are "
        "less pure than any that was tried here: 0.03 to 0.40 at 120 frames ([pair_quality.md](pair_quality.md)). A "
        "wrong pair of this reserve joins animals of one herd, which are of one species, in one scene; it may teach "
        "much of what a right one does. Real animals, longer training and larger images may show what this does not."
    )


def _use(results: Results) -> str:
    """Whether pairs were of any use here, without which their purity can be of little."""
    told = verdicts(results)["Right pairs over two views of one crop"]
    if told is None:
        return ""
    if told.verdict == "held":
        return "Right pairs taught more than two views of one crop. "
    worse = "less than" if told.verdict == "not held" else "no more, as far as can be told, than"
    return (
        f"Even right pairs taught {worse} two views of one crop (D = {told.value:+.3f}): where pairs add nothing, "
        "their purity can cost little. "
    )


def _published(results: Results) -> str:
    """What the published rule comes to at the shortest and the longest gap."""
    ends = [next((one for one in found(results, kind) if "direct_num" in one), None) for kind in GAPS_S]
    told = [one for one in ends if one is not None]
    if len(told) < 2:
        return ""
    near, far = told[0], told[-1]
    return (
        f"On this footage the rule's pairs of two animals grow from {near['direct_different']:.3f} of its set at "
        f"{near['gap_s']:g} s to {far['direct_different']:.3f} at {far['gap_s']:g} s; the other pairs that are not "
        "right hold a box of no animal. "
    )


def figures(results: Results) -> dict[str, bytes]:
    """MAP against purity and against the gap, as PNG by file name."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _series(left, results, PURITIES, color=COLORS[0], label="swapped at 2 s")
        for number, (kind, name) in enumerate({**MINED, SECOND: "second round"}.items(), start=1):
            runs = found(results, kind)
            if runs:
                place = float(np.mean([one["set_purity"] for one in runs]))
                value = float(np.mean([one["after"]["mAP"] for one in runs]))
                left.plot(place, value, linestyle="", marker="s^Dv"[number - 1], color=COLORS[number], label=name)
        left.set(xlabel="purity: share of right pairs", ylabel="mAP on unseen individuals", title="Purity")
        _series(right, results, GAPS_S, color=COLORS[0], label="right pairs")
        right.set_xscale("log", base=2)
        right.set_xticks(list(GAPS_S.values()), labels=[f"{gap_s:g}" for gap_s in GAPS_S.values()])
        right.set(xlabel="gap between the boxes of a pair / s", title="Gap, at purity 1")
        some = [one for kind in (*PURITIES, *GAPS_S) for one in found(results, kind)]
        for axes in (left, right):
            if some:
                axes.axhline(some[0]["before"]["mAP"], color=INK, linestyle="--", linewidth=1, label="before training")
                axes.axhline(some[0]["after"]["chance_mAP"], color=INK, linestyle=":", linewidth=1, label="chance")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=7, loc="lower left", ncols=2)

    return {FIGURE: drawn_chart("pair_purity", (9.6, 3.6), draw).png}


def _series(axes: Axes, results: Results, kinds: Mapping[str, float], *, color: str, label: str) -> None:
    """Each run as a dot, means as a line with their interval over individuals as bars."""
    places, means, lows, highs = [], [], [], []
    for kind, place in kinds.items():
        runs = found(results, kind)
        values = [one["after"]["mAP"] for one in runs]
        axes.plot([place] * len(values), values, linestyle="", marker=".", color=color, alpha=0.5)
        if values:
            places.append(place)
            means.append(float(np.mean(values)))
            lows.append(float(np.mean([one["after"]["mAP_low"] for one in runs])))
            highs.append(float(np.mean([one["after"]["mAP_high"] for one in runs])))
    reach = [np.subtract(means, lows), np.subtract(highs, means)]
    axes.errorbar(
        places, means, yerr=reach, color=color, marker="o", markersize=4, linewidth=1.6, capsize=2, label=label
    )

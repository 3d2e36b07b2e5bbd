"""The page of ``bench.herds``: tables, and a figure of purity and yield against the detection rate.

In: counts. Out: Markdown and a chart. What is measured is in ``bench.herds``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.herd_counts import FPS, GAPS, HERDS, RATES, ByGap, Results, cell, share
from bench.pages import table
from bench.record import commit, machine
from wildray.mining.tracklets import COMPANY_CHANGE
from wildray.report.figures import Chart, drawn_chart

Rows = Sequence[Sequence[str]]


def chart(results: Results) -> Chart:
    """Purity and pairs per detected frame against the detection rate."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, len(HERDS), sharex=True)
        for column, herd in enumerate(HERDS):
            for gap in GAPS:
                found = [results[herd, every, "chained"][gap] for every in RATES]
                rates = [FPS / every for every in RATES]
                means = [sum(count.pairs for count in counts) / len(counts) for counts in found]
                per_frame = [mean * every for mean, every in zip(means, RATES, strict=True)]
                axes[0, column].plot(rates, [share(counts) for counts in found], marker="o", label=f"{gap} frames")
                axes[1, column].plot(rates, np.array(per_frame) / per_frame[0], marker="o", label=f"{gap} frames")
            axes[0, column].set_title(herd)
            axes[0, column].set_ylim(0.9, 1.003)
            axes[1, column].set_xscale("log")
            axes[1, column].xaxis.set_minor_locator(NullLocator())
            axes[1, column].set_xticks([FPS / every for every in RATES], [f"{FPS / every:.0f}" for every in RATES])
            axes[1, column].set_xlabel("frames detected per second")
        axes[0, 0].set_ylabel("share of right pairs")
        axes[1, 0].set_ylabel("pairs per detected frame\n(all frames: 1)")
        axes[0, 0].legend(loc="lower right")

    return drawn_chart("herds", (9.0, 5.0), draw)


def page(results: Results, *, front: Mapping[float, Mapping[str, ByGap]], left_out: Rows, draws: int) -> str:
    """The results as Markdown.

    Args:
        results: Of every linker.
        front: By limit of the change of colour in company, by herd, with every third frame detected.
        left_out: Rows of the settings that were chosen without the herd they are reported on.
        draws: Draws of the detections.
    """
    gaps = [f"{gap} frames" for gap in GAPS]
    header = ["herd", "frames", "linker", *gaps]
    rows = [
        [name, f"1 of {every}", linker, *(cell(by_gap[gap]) for gap in GAPS)]
        for (name, every, linker), by_gap in results.items()
    ]
    return "\n".join(
        [
            "# Three real herds, linker by linker",
            "",
            f"Made by `python -m bench.herds --draws {draws}` at commit {commit()} on {machine()}: true boxes of koi "
            "(9 fish) and pigeons (27 and 14 birds) with a corner jitter of 5 % and a tenth of them missed, the mean "
            f"over {draws} draws. Each cell: pairs of boxes so many frames apart (of the video, whatever the rate at "
            "which frames were detected); the share that joins one individual, with a 95 % interval over blocks of "
            "time in the first draw; and that share with slips of the labels mended: boxes that carry, for a frame, "
            "the name of an animal that was far from there in the frames before and after, while the animal that was "
            "there before and after has no box (9 boxes of pigeons 29033, 1 of pigeons 8234).",
            "",
            table(header, rows),
            "",
            "![Purity and pairs per detected frame against the detection rate](herds.png)",
            "",
            "What is dared with every third frame: the most that the colour may change between two boxes in company "
            f"(`tracklets.COMPANY_CHANGE`, {COMPANY_CHANGE:g} as it comes).",
            "",
            table(
                ["most change", "herd", *gaps],
                [
                    [f"{limit:g}", name, *(cell(counts[gap]) for gap in GAPS)]
                    for limit, of in front.items()
                    for name, counts in of.items()
                ],
            ),
            "",
            "Settings of `chained` chosen on the two other herds and reported on the third: those whose worst cell "
            "there is purest, of equal ones those with the most pairs. The limits of colour in the code were found on "
            "all three, and are not chosen here.",
            "",
            table(["herd", "frames", "settings", *gaps], left_out),
            "",
        ]
    )

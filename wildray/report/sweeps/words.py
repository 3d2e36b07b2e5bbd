"""The sentences of a sweep's page that say what a section is and how to read it.

Out: ``SECTIONS``: identifier to (short name, title, how to read it), in the order of the page.
"""

from __future__ import annotations

SECTIONS = {
    "result": (
        "Result",
        "Best setting",
        "The best setting was chosen on the validation individuals and tested once on individuals that no trial was "
        "measured on: the test is the figure to report. Brackets hold intervals over individuals; untrained is the "
        "same network with its starting weights, chance a random ranking.",
    ),
    "heatmap": (
        "Heat map",
        "Two settings against each other",
        "Each cell is the mean mAP on validation over everything else that varies, with the number of trials it is "
        "taken over: '2 of 4' is two that finished of four. A cell without colour (†) has stopped trials alone, which "
        "saw fewer images: do not compare it with the coloured ones.",
    ),
    "size": (
        "Size",
        "mAP against the size of the network",
        "Each point is the mean of the trials with one backbone, the bar runs from the least to the largest of them. "
        "A line that goes flat says that a larger network is not worth its time here; hollow points are of stopped "
        "trials (†).",
    ),
    "samples": (
        "Samples",
        "mAP against the number of samples",
        "Strict mining settings give few samples, lax ones many with more mistakes among them; every trial sees "
        "equally many images. Each point is the mean of the trials with so many samples, the bar runs from the least "
        "to the largest, hollow points are of stopped trials (†).",
    ),
    "progress": (
        "Course",
        "mAP against images seen",
        "A line is a trial. Lines that still rise at the right edge ask for a larger budget; those that end in a "
        "hollow mark did not have the whole budget, and where they end is not what they would have reached.",
    ),
    "importance": (
        "Importance",
        "Which settings matter",
        "How much worse a random forest predicts the mAP of trials that it has not seen when the values of one setting "
        "are shuffled among them (permutation importance). The line runs over 90 % of the bootstrap samples; a setting "
        "whose line reaches zero may not matter. With few trials this says little, and "
        "nothing beyond the values tried.",
    ),
    "species": (
        "Species",
        "mAP by species",
        "Each cell is the mAP of one species' queries, the mean over the seeds of a setting, the best settings first. "
        "Settings that are good in all but poor for one species matter where that species is the one that counts.",
    ),
    "methods": (
        "Methods",
        "Methods compared",
        "The best setting of each method on validation, with the interval over individuals as a line and its seeds as "
        "dots. A method with more settings had more chances to be lucky; where lines overlap, neither is shown to be "
        "better. An empty bar (†) is of stopped trials.",
    ),
    "trials": (
        "Trials",
        "All trials",
        "The best first; those stopped early (†) after those that had the whole budget, since their mAP is that of "
        "less training; those that failed last, with their reason.",
    ),
    "cost": (
        "Cost",
        "What it cost",
        "Time is counted per trial and added up, so it is more than the clock's where trials ran at the same time. "
        "Work that all trials share was done once.",
    ),
    "settings": (
        "Sweep",
        "What was asked for",
        "What was searched, on which individuals it was judged, and the sweep file in full.",
    ),
}

NOTHING = "No trial has been measured yet, so there is no best setting."
ALL_FAILED = "Every trial that ended has failed: the reasons stand under Trials."
UNDER_WAY = "The sweep has not ended: all figures are of what is done so far."
SURVIVORS = (
    "Trials were stopped early because they were behind, so the finished ones are a choice of the good: their means "
    "lean upwards."
)
ONLY_ONE = "It is the only setting with a result: there is nothing it was compared with."
CLEARLY_BEST = "Better than every other setting that it was compared with: no interval of the difference holds 0."
NOT_BETTER = "The interval of the difference in mAP holds 0 for these: the sweep does not show that it is better."
POOR_FOREST = (
    "On trials that it has not seen, the forest is no better than the mean of all trials: read nothing into the bars."
)

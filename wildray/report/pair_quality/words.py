"""The sentences of the page of a study that say what a section is and how to read it.

Out: ``SECTIONS``: identifier to (short name, title, how to read it), in the order of the page.
"""

from __future__ import annotations

SECTIONS = {
    "advice": (
        "Advice",
        "What to choose",
        "For each number of animals in the frame the longest interval at which some setting is right often enough, and "
        "the setting of the largest yield there. Longer intervals show an animal in more poses; short ones give many "
        "pairs that are nearly copies. Derived from the densest look at each footage; brackets hold 95 % intervals.",
    ),
    "table": (
        "Table",
        "Purity and pairs by linker and interval",
        "Each cell: the share of pairs that join one individual, with its 95 % interval over sequences (over blocks of "
        "time where footage is one sequence), and the number of pairs.",
    ),
    "pareto": (
        "Front",
        "Purity against yield",
        "A point is a setting, over all footages as one; the line joins those that no other beats in both. Choose on "
        "the line; whatever lies below it costs pairs or purity for nothing.",
    ),
    "rates": (
        "Rates",
        "Purity and yield against the detection rate",
        "The same footage with fewer frames looked at, at one interval between the two boxes of a pair. Where purity "
        "falls to the left, the linker needs frames close together.",
    ),
    "heat": (
        "Heat maps",
        "Interval against overlap",
        "Purity and right pairs a minute of each linker, at the lowest confidence tried, over the densest look at each "
        "footage; under each value the number of pairs. A linker that uses no threshold has equal columns.",
    ),
}

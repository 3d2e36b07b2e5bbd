"""The sentences of the page that say what a section is and how to read it, and the commands that fill it.

Out: ``SECTIONS``: identifier to (short name, title, how to read it).
"""

from __future__ import annotations

DETECT = "wildray detect MEDIA --store STORE"
MINE = "wildray mine --store STORE"
PRETRAIN = "wildray pretrain --store STORE --run NAME"
EVALUATE = "wildray evaluate --store STORE --run NAME --data metadata.csv"

NOT_DETECTED = "No media were looked at:"
NOT_MINED = "Nothing was mined from these detections:"
NOT_TRAINED = "Nothing was trained:"
NOT_EVALUATED = "Nothing was evaluated:"

SECTIONS = {
    "summary": (
        "Summary",
        "What there is",
        "What came out of each stage. A file that could not be looked at is listed with its reason: check that "
        "none is missing that matters.",
    ),
    "results": (
        "Result",
        "Result",
        "How well animals that training never saw are told apart. mAP is 1 where every right answer comes first; "
        "CMC-k is the share of queries with a right answer among the first k. Chance is a random ranking; before "
        "training is the same network with its starting weights. Brackets hold 95 % intervals, unless "
        "eval.confidence says otherwise.",
    ),
    "pairs": (
        "Pairs",
        "Pairs",
        "Each card holds two crops that training takes for one animal. Look for cards with two animals: their "
        "share is the error that training has to bear. The map shows where the two boxes stood in the frame: the "
        "first solid blue, the second dashed orange.",
    ),
    "static": (
        "Static",
        "Static detections",
        "Boxes that stayed in one place through a sequence and inside which nothing changed: rocks, stumps, "
        "logos. They are kept out of training. An animal among them means that mine.static_presence is too low, "
        "or mine.static_motion too high.",
    ),
    "when": (
        "When",
        "When",
        "A mark is a detection, at the time when the camera saw it. Gaps are quiet nights, empty batteries, or a "
        "clock that stands wrong.",
    ),
    "distributions": (
        "Distributions",
        "Distributions",
        "How sure the detector was, and how far apart in time and place the two sides of a pair are. Pairs at "
        "the left end of overlap or margin are the doubtful ones; a peak of scores at the left edge speaks for a "
        "higher threshold.",
    ),
    "training": (
        "Training",
        "Training",
        "The loss should fall and mAP rise. The loss alone can deceive: where rank and spread go to their floor "
        "(1 and 0), all crops are given one vector and nothing was learned.",
    ),
    "answers": (
        "Answers",
        "Ranked answers",
        "Left the query, then the images most like it, the most alike first, with their similarity. A tick and a "
        "solid green frame: the same animal. A cross and a dashed red frame: another one. The first row is the "
        "best, the second the worst, the rest are drawn by lot.",
    ),
    "map": (
        "Map",
        "Map of the vectors",
        "Every point is an image; neighbours look alike to the network (t-SNE keeps neighbourhoods, not "
        "distances). Good: the points of one animal lie together. Bad: the points of one camera do, whatever the "
        "animal; then the network learned the scenery.",
    ),
    "groups": (
        "Groups",
        "By species and individual",
        "Which animals are told apart, and which are not. The last ones are those to look for among the answers.",
    ),
    "settings": (
        "Settings",
        "Settings",
        "Everything that was set, under the names that files, the command line and sweeps use.",
    ),
}

LITE_AND_PEOPLE = (
    "MegaDetectorLite has a single category and cannot tell people from animals: people in the footage are among "
    "the detections, the crops and the pictures of this page. Look before you share it; 'wildray purge' takes "
    "them out."
)
NO_PAIRS = (
    "No two boxes were found that could be one animal. A lower mine.min_score or mine.min_iou, or another "
    "mine.interval, may give some:"
)
STALE = (
    "These figures, the ranked answers, the map and the groups are of former weights: the run was trained on since. "
    "Run wildray evaluate again."
)
BROKEN_OFF = "Training broke off at step {step}: the loss became {loss} with a gradient norm of {norm}."
COLLAPSED = (
    "The vectors collapsed: all crops are given nearly the same one. Train longer, begin with pretrained "
    "weights, or take a lighter backbone."
)

"""The fault table as a page: what came of the runs, as counts over them.

In: records of runs, as ``bench.faults`` keeps them. Out: Markdown. A count is of the runs in which the fault came while
its stage was at work; what was not tried stands as "not yet run".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.fault_kinds import FAULTS, LATE_S
from bench.fault_world import REPLACED_AFTER_S, SETTINGS
from bench.pages import MISSING, table

Record = Mapping[str, Any]

HEADER = (
    "fault", "runs", "outcome", "lost rows", "duplicated rows", "done twice", "standstill, s",
    "in all, s", "end result equal",
)  # fmt: skip
UNITS = {"media": "media decoded", "shards": "shards mined", "steps": "steps trained", "trials": "trials begun"}
KILLED = -9


def outcome(record: Record) -> str:
    """How a run came to its end."""
    *before, last = record["starts"]
    if last["status"] is None or any(start["status"] is None for start in before):
        return "hung"
    if last["status"] != 0:
        return "failed"
    if not before:
        return "went on by itself"
    if all(start["status"] == KILLED for start in before):
        return "went on when run again"
    if any(start["kind"] in ("Defect", "") for start in before):
        return "unclear error, went on when run again"
    return "clear error, went on when run again"


def equal(record: Record) -> str:
    """Whether weights, or a sweep's trials, are those of the undisturbed run."""
    if "trials_equal" in record:
        return "same trials, each once, same figures" if record["trials_equal"] else "other trials"
    if "weights_equal" not in record:
        return "no end"
    return "bit by bit" if record["weights_equal"] else f"differ by up to {record['largest_difference']:.2g}"


def counted(words: Sequence[str]) -> str:
    """Each word with how often it stands there: ``a (2 of 3), b (1 of 3)``."""
    return ", ".join(f"{word} ({count} of {len(words)})" for word, count in Counter(words).most_common())


def twice(records: Sequence[Record]) -> str:
    """What was done twice, in each run."""
    told = []
    for name, words in UNITS.items():
        counts = [record["repeated"][name] for record in records]
        if name == "trials" and not any("trials_equal" in record for record in records):
            continue  # a command that is run again takes its one training's lease again
        if any(counts):
            told.append(f"{words}: {', '.join(map(str, counts))}")
    return "; ".join(told) or "nothing"


def row(title: str, records: Sequence[Record]) -> list[str]:
    """A row of the table."""
    came = [record for record in records if record["came"]]
    if not came:
        return [title, "0", *[MISSING] * (len(HEADER) - 2)]
    undisturbed = dict.fromkeys(f"{record['undisturbed_s']:.0f}" for record in came)
    return [
        title,
        str(len(came)),
        counted([outcome(record) for record in came]),
        counted([str(record.get("lost", "no end")) for record in came]),
        counted([str(record.get("duplicated", "no end")) for record in came]),
        twice(came),
        ", ".join("none" if record["standstill_s"] is None else f"{record['standstill_s']:.0f}" for record in came),
        ", ".join(f"{record['seconds']:.0f}" for record in came) + f" ({' or '.join(undisturbed)})",
        counted([equal(record) for record in came]),
    ]


def seen(records: Sequence[Record]) -> list[str]:
    """What was seen of a fault besides, of each run that was disturbed by it."""
    told = [
        (FAULTS[record["fault"]].title, line)
        for record in sorted(records, key=lambda one: (list(FAULTS).index(one["fault"]), one["number"]))
        for line in record["told"]
        if record["came"] and (line.startswith("workers that trained") or line.endswith(("refused", "undisturbed")))
    ]
    return [f"{title}: {line}" for title, line in told]


def page(records: Sequence[Record]) -> str:
    """The page of all records."""
    rows = [
        row(fault.title, sorted((one for one in records if one["fault"] == name), key=lambda one: int(one["number"])))
        for name, fault in FAULTS.items()
    ]
    commits = sorted({str(record["commit"]) for record in records})
    machines = sorted({str(record["machine"]) for record in records})
    loads = [float(record["load"]) for record in records]
    num_rows = max((int(record.get("num_rows", 0)) for record in records), default=0)
    errors = sorted(
        {_first_words(start["error"]) for record in records for start in record["starts"] if start["error"]}
    )
    return "\n".join(
        [
            "# What faults do",
            "",
            "A pipeline (detect, mine, pretrain, evaluate, report), or a sweep of four trials, on a Ray cluster of a "
            "head without CPUs and two workers of one CPU, all on one machine; disturbed once in each run, at a random "
            f"moment of the stage. `python -m bench.faults` at commit {', '.join(commits) or 'none yet'} (a plus: with "
            f"changes not yet committed) on {'; '.join(machines) or 'none yet'}, two cores, on which other work ran at "
            f"times (load at the end of runs: {min(loads, default=0):.1f} to {max(loads, default=0):.1f}). "
            "Mining waits a second in each shard, or there would be nothing to disturb.",
            "",
            table(HEADER, rows),
            "",
            f"Rows: of media, frames, detections and pairs, {num_rows:,} in all, counted as texts and compared with "
            "those of the same command undisturbed. Done twice, a number for each run: media that two processes had "
            "open after planning (looked for ten times a second), shards published twice, steps from the last that "
            "training said it was at (it says so once a second, in object storage every ten: a few more may have been "
            "done; a checkpoint is written every "
            f"{SETTINGS['train.checkpoint_steps']} steps) back to the first of the next attempt, and trials that took "
            "their lease again. Standstill: the longest time after the fault in which nothing new of the stage was "
            "finished, whichever worker does it: no chunk, no shard, or no step that the training (each trial of a "
            "sweep) had not reached before; starting the command again and, where a node is lost, the "
            f"{REPLACED_AFTER_S:.0f} s until another comes are in it. In all: wall-clock time of all starts of the "
            "command together, and in brackets of the undisturbed one; other work on the machine "
            "makes either larger. End result: weights of the backbone, or of the sweep the settings and every figure "
            "of every trial but times.",
            "",
            "With a notice, the other node comes "
            f"{LATE_S:.0f} s after the first has gone, so that training goes on with one worker and then with two "
            "again, at the same batch. Another number of workers sums in another order: the loss parts in its last "
            "digits at that epoch, and what is rounding then grows over hundreds of steps.",
            "",
            *(f"- {line}" for line in seen(records)),
            *(f"- Said by commands that stopped: {error}" for error in errors),
            "",
        ]
    )


def _first_words(error: str) -> str:
    error = re.sub(r"\S*/store/", "STORE/", error)
    return error if len(error) < 300 else f"{error[:300]} ..."

"""Tables of a study, once as values for both the page and the Markdown.

In: a study. Out: ``Rows``: a header and lines of text, and the whole as Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wildray.report.pair_quality.advice import Advice, fronts
from wildray.report.pair_quality.charts import at_rates, rate_interval
from wildray.report.pair_quality.records import Point, Share, Study, front

MOST_ON_FRONT = 5
"""Settings of a front that the table has of each interval: both ends and some between."""


@dataclass(frozen=True)
class Rows:
    """A table as text.

    Attributes:
        header: Names of the columns.
        lines: Their cells.
    """

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown; a bar in a name would end its cell."""
        rows = [self.header, tuple("---" for _ in self.header), *self.lines]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def by_interval(study: Study) -> Rows:
    """Footage and linker against interval, at the reference overlap and confidence."""
    lines = []
    used = [name for name in study.intervals if any(_shown(study, point, name) for point in study.points)]
    for footage in study.footages:
        points = [point for point in study.densest(footage) if (point.min_iou, point.min_score) == study.reference]
        for linker in study.linkers:
            own = {point.interval: point for point in points if point.linker == linker}
            cells = [_cell(own[name].share) if name in own else "" for name in used]
            rate = f"{points[0].frames_per_s:.3g}" if points else ""
            lines.append((footage, rate, linker, *cells))
    return Rows(("footage", "frames/s", "linker", *used), tuple(lines))


def by_rate(study: Study) -> Rows:
    """Detection rates of each footage at one interval."""
    lines = []
    for footage in study.footages:
        interval = rate_interval(study, footage)
        for point in at_rates(study, footage, interval) if interval is not None else ():
            share = point.share
            worth = _cell(share) if share.num_pairs else "no pairs"
            lines.append(
                (footage, str(interval), point.linker, f"{point.frames_per_s:.3g}", worth, f"{share.per_minute:,.0f}")
            )
    return Rows(("footage", "interval", "linker", "frames/s", "purity, pairs", "right pairs/min"), tuple(lines))


def of_fronts(study: Study) -> Rows:
    """Settings on the front of each interval."""
    lines = []
    for interval, shares in fronts(study).items():
        settings = list(shares)
        on = front([(shares[setting].per_minute, shares[setting].purity) for setting in settings])
        if len(on) > MOST_ON_FRONT:
            on = [on[round(place * (len(on) - 1) / (MOST_ON_FRONT - 1))] for place in range(MOST_ON_FRONT)]
        for number in on:
            linker, _, min_iou, min_score = settings[number]
            share = shares[settings[number]]
            lines.append((interval, linker, f"{min_iou:g}", f"{min_score:g}", _cell(share), f"{share.per_minute:,.0f}"))
    return Rows(("interval", "linker", "min_iou", "min_score", "purity, pairs", "right pairs/min"), tuple(lines))


def markdown(study: Study, advice: Sequence[Advice]) -> str:
    """All of it, to be put into documentation."""
    overlap, score = study.reference
    parts = [
        f"# Pair quality: {study.name}",
        study.description,
        "\n".join(f"- {one.sentence}" for one in advice),
        f"Purity (95 % interval) and number of pairs by interval, at min_iou {overlap:g} and min_score {score:g}, over "
        "the densest look at each footage:",
        by_interval(study).markdown(),
        "By detection rate, at the interval nearest to a second that all rates have pairs at:",
        by_rate(study).markdown(),
        "Settings that no other beats in both purity and yield, all footages as one:",
        of_fronts(study).markdown(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(study: Study, point: Point, interval: str) -> bool:
    is_reference = (point.min_iou, point.min_score) == study.reference
    return is_reference and point.interval == interval and point.share.num_pairs > 0


def _cell(share: Share) -> str:
    if not share.num_pairs:
        return "-"
    return f"{share.purity:.3f} ({share.low:.3f} to {share.high:.3f}), {share.num_pairs:,}"

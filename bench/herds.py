"""Pairs of three real herds by every linker, at three detection rates: how many, and how many of them are right.

    WILDRAY_TEST_DATA=... python -m bench.herds [--draws 8] [--out docs/herds.md]

In: MOT files with identity in ``$WILDRAY_TEST_DATA/tracks``. Out: tables, and ``herds.png`` beside the page. The true
boxes are taken as detections, with a corner jitter of 5 % and a tenth of them missed, several draws of each. The peers:
the published rule (``direct``), one-to-one assignment (``assigned``), and the plain chain that anybody would write
(``bench.plain_chain``). Settings of ``chained`` are also chosen on two herds and reported on the third.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import ray

from bench.herd_counts import FPS, GAPS, HERDS, RATES, ByGap, Count, Results, by_gap, cell, share
from bench.herds_page import chart, page
from bench.label_slips import slips
from bench.plain_chain import plain_chain
from wildray.cli.cluster import connect
from wildray.config import Config
from wildray.mining.colour import colour_arrays
from wildray.mining.detect import detect
from wildray.mining.following import Measure, Rules, Sightings
from wildray.mining.judge import judge
from wildray.mining.linkers import seen_twice
from wildray.mining.many_settings import AnnotatedCollection
from wildray.mining.matching import identity_codes, match
from wildray.mining.mine import sequence_gap_s
from wildray.mining.pairs import mine_tables
from wildray.mining.purity import SAME, purity
from wildray.mining.sequences import assign_sequences
from wildray.mining.tracklets import COMPANY_CHANGE, chained, settled
from wildray.mining.truth import CORNERS, read_truth
from wildray.store import Store

Int64 = npt.NDArray[np.int64]

LIMITS = (0.44, 0.48, 0.52, 0.56, 0.6)
"""Changes of colour in company that the front is made of."""
GRID = {
    "min_iou": (0.2, 0.3),
    "min_margin": (0.05, 0.1, 0.15, 0.2),
    "look_weight": (0.5, 1.0, 1.5),
    "max_missed": (4,),
}
"""What is chosen on two herds for the third. The limits of colour in ``tracklets`` and ``following`` were found on all
three; they are not in it."""


@dataclass(frozen=True)
class Herd:
    """Detections of one draw, with their individuals.

    Attributes:
        loaded: The collection with its truth.
        boxes: The detections, as linkers take them.
        identity: (N,) individual of each; -1 none.
        mended: (N,) the same without slips of a label.
        every: Of how many frames one was looked at.
    """

    loaded: AnnotatedCollection
    boxes: Sightings
    identity: Int64
    mended: Int64
    every: int


Herds = Mapping[tuple[str, int], Sequence[Herd]]
"""Draws by herd and rate."""


def load(store: Store, path: Path, *, every: int, draw: int) -> Herd:
    """Detections of one draw of a herd."""
    settings = {"detect.mot_fps": FPS, "detect.mot_every": every, "detect.mot_seed": draw}
    digest = detect(Config.load(None, settings), store, [str(path)]).digest
    truth = read_truth([path])
    loaded = AnnotatedCollection(store.collection("detections", digest), truth)
    order = np.lexsort((loaded.detections["detection_id"].to_numpy(), loaded.detections["frame_index"].to_numpy()))
    detections = loaded.detections.take(order)
    index = detections["frame_index"].to_numpy().astype(np.int64) // every
    num_frames = int(loaded.frames["frame_index"].to_numpy().max()) // every + 1
    colours, _ = colour_arrays(detections["colour"])
    shown = match(detections, truth.boxes, loaded.files, frames=loaded.frames).shown
    codes = identity_codes(truth.boxes, np.arange(truth.boxes.num_rows))
    mended = codes.copy()
    corners = np.stack([truth.boxes[name].to_numpy() for name in CORNERS], axis=1)
    for row, owner in slips(truth.boxes["frame_index"].to_numpy(), codes, corners).items():
        mended[row] = owner
    boxes = Sightings(
        np.stack([detections[name].to_numpy() for name in CORNERS]).astype(np.float64),
        np.zeros(len(index), dtype=np.int64),
        colours.astype(np.float32),
        Measure(),
        index,
        np.zeros(num_frames, dtype=np.int64),
        np.arange(num_frames) * every / FPS,
    )
    known = shown >= 0
    return Herd(loaded, boxes, np.where(known, codes[shown], -1), np.where(known, mended[shown], -1), every)


def mined(herd: Herd, linker: str, gap: int) -> Count:
    """Pairs by the miner itself."""
    config = Config.load(
        None,
        {"mine.linker": linker, "mine.interval": f"{gap}frames", "mine.min_score": 0.0, "mine.remove_static": False},
    ).mine
    loaded = herd.loaded
    sequences = assign_sequences(loaded.media, gap_s=sequence_gap_s(config))
    _, pairs = mine_tables(sequences, loaded.frames, loaded.detections, config)
    matching = match(loaded.detections, loaded.truth.boxes, loaded.files, frames=loaded.frames)
    judged = judge(pairs, loaded.detections, matching, loaded.truth.boxes)
    order = np.lexsort((loaded.detections["detection_id"].to_numpy(), loaded.detections["frame_index"].to_numpy()))
    row_of = {int(number): row for row, number in enumerate(loaded.detections["detection_id"].to_numpy()[order])}
    a, b = ([row_of[number] for number in pairs[name].to_pylist()] for name in ("anchor_id", "positive_id"))
    whole = purity(judged)
    return Count(len(judged), int((judged.verdict == SAME).sum()), _same(herd.mended, a, b), whole.low, whole.high)


def of_tracklets(herd: Herd, tracklet: Int64) -> dict[int, Count]:
    """Pairs that tracklets hold, at every gap."""
    at = {key: row for row, key in enumerate(zip(tracklet.tolist(), herd.boxes.frame.tolist(), strict=True))}
    found = {}
    for gap in GAPS:
        step = gap // herd.every
        pairs = [(row, at[t, f + step]) for (t, f), row in at.items() if t >= 0 and (t, f + step) in at]
        a, b = ([pair[side] for pair in pairs] for side in (0, 1))
        found[gap] = Count(len(pairs), _same(herd.identity, a, b), _same(herd.mended, a, b))
    return found


def _same(identity: Int64, a: Sequence[int], b: Sequence[int]) -> int:
    first, second = identity[np.array(a, dtype=int)], identity[np.array(b, dtype=int)]
    return int(((first == second) & (first >= 0)).sum())


def _followed(herd: Herd, rules: Rules, *, most_in_company: float = COMPANY_CHANGE) -> dict[int, Count]:
    boxes = herd.boxes
    starts = np.searchsorted(boxes.frame, np.arange(len(boxes.run) + 1)).astype(np.int64)
    _, company = seen_twice(boxes.xyxy, boxes.category, np.ones(len(boxes.frame), dtype=np.float32), starts)
    return of_tracklets(herd, settled(boxes, chained(boxes, rules).chain, company, most_in_company=most_in_company))


def _left_out(herds: Herds, every: int) -> Iterator[list[str]]:
    """For each herd the settings that are purest on the two others, of equal ones those with the most pairs."""
    points = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    found = {
        (name, number): by_gap([_followed(herd, Rules(**point)) for herd in herds[name, every]])
        for name in HERDS
        for number, point in enumerate(points)
    }

    def worst(name: str, number: int) -> float:
        return float(np.nan_to_num(min(share(counts) for counts in found[name, number].values())))

    def product(name: str, number: int) -> float:
        return float(sum(np.log(max(sum(c.pairs for c in counts), 1)) for counts in found[name, number].values()))

    for name in HERDS:
        others = [other for other in HERDS if other != name]
        purest = {n: min(worst(other, n) for other in others) for n in range(len(points))}
        best = max(purest, key=lambda n: (purest[n], sum(product(other, n) for other in others)))
        settings = ", ".join(f"{key} {value:g}" for key, value in points[best].items())
        yield [name, f"1 of {every}", settings, *(cell(found[name, best][gap]) for gap in GAPS)]


def load_all(folder: Path, work: Path, *, draws: int) -> Herds:
    """All draws of all herds at all rates."""
    store = Store.open(work, create=True)
    return {
        (name, every): [load(store, folder / f"{stem}_gt_mot.txt", every=every, draw=draw) for draw in range(draws)]
        for name, stem in HERDS.items()
        for every in RATES
    }


def measure(herds: Herds) -> Results:
    """Every linker on every herd, rate and draw."""
    results: dict[tuple[str, int, str], ByGap] = {}
    for (name, every), drawn in herds.items():
        for linker in ("direct", "assigned", "chained"):
            results[name, every, linker] = by_gap([{gap: mined(herd, linker, gap) for gap in GAPS} for herd in drawn])
        results[name, every, "plain chain"] = by_gap([of_tracklets(herd, plain_chain(herd.boxes)) for herd in drawn])
    return results


def front(herds: Herds) -> dict[float, dict[str, ByGap]]:
    """Purer and fewer pairs, or more and less pure ones, with every third frame detected."""
    rules = Rules(**{name: getattr(Config().mine, name) for name in GRID})
    return {
        limit: {
            name: by_gap([_followed(herd, rules, most_in_company=limit) for herd in herds[name, 3]]) for name in HERDS
        }
        for limit in LIMITS
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "WILDRAY_TEST_DATA" not in os.environ:
        raise SystemExit("WILDRAY_TEST_DATA names no folder of real data; expected one with tracks/*_gt_mot.txt.")
    connect(None)
    with tempfile.TemporaryDirectory(prefix="herds-") as name:
        tracks = Path(os.environ["WILDRAY_TEST_DATA"]) / "tracks"
        herds = load_all(tracks, Path(name), draws=options.draws)
        results = measure(herds)
        left_out = [row for every in (1, 3) for row in _left_out(herds, every)]
        text = page(results, front=front(herds), left_out=left_out, draws=options.draws)
    print(text)
    if options.out is not None:
        options.out.write_text(text)
        options.out.with_name("herds.png").write_bytes(chart(results).png)
    ray.shutdown()


if __name__ == "__main__":
    main()

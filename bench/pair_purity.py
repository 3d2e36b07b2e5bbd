"""Whether the purity of pairs matters to what is learned: ``python -m bench.pair_purity --table docs/pair_purity.md``.

In: a working folder, where the reserve is made once. Out: for pair sets of one size, how well animals that nobody
filmed are found again elsewhere. SimCLR trains on each at one budget, three seeds each; a seed draws its own pairs too.
One series varies the purity at one gap between the boxes of a pair, another the gap among right pairs alone, a third
takes the pairs that each linker mines, and the last mines again with what a first model has learned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bench.experiments import IMAGES_PER_STEP, Bench, Run, command
from bench.graded_pairs import Mined, graded, kept, mined
from bench.herd_reserve import HerdReserve, herd_config, open_herd_reserve
from bench.measures import Retrieval
from bench.pair_purity_page import page
from bench.record import Results
from bench.reserve import EITHER_FLANK, ELSEWHERE
from wildray.config import Config, MineConfig
from wildray.units import Interval

SEEDS = (0, 1, 2)
PURITIES = (1.0, 0.95, 0.85, 0.7, 0.5)
GAPS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
GAP_S = 2.0
"""Gap of the series of purities and of what linkers mine: the default of ``mine.interval``."""
LINKERS = ("direct", "assigned", "chained")
NUM_IMAGES = 150 * IMAGES_PER_STEP
SMOKE_IMAGES = 6 * IMAGES_PER_STEP
SETTINGS: dict[str, object] = {
    "backbone.name": "resnet10t",
    "backbone.image_size": 64,
    "train.method": "simclr",
    "train.probe_every": 0,
    "augment.background": "keep",
}


@dataclass(frozen=True)
class Spec:
    """Which run it is.

    Attributes:
        series: ``purity``, ``gap`` or ``mined``.
        of: Purity in per cent, gap in milliseconds, or linker.
        seed: Of the draw of pairs and of the training.
    """

    series: str
    of: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"{self.series}-{self.of}-s{self.seed}"


def specs() -> Iterator[Spec]:
    """All runs but those of a second round, in order of priority. Purity 1 is the run of its gap."""
    for seed in SEEDS:
        yield from (Spec("gap", f"{1000 * gap_s:g}", seed) for gap_s in sorted(GAPS_S, key=lambda gap: gap != GAP_S))
        yield from (Spec("purity", f"{100 * purity:g}", seed) for purity in reversed(PURITIES[1:]))
        yield from (Spec("mined", linker, seed) for linker in LINKERS)


class Sets:
    """The pair sets, made as they are asked for.

    Args:
        reserve: What they are mined from.
    """

    def __init__(self, reserve: HerdReserve) -> None:
        self.reserve, self.footage = reserve, reserve.footage()
        self.mined = cache(self._mined)

    @property
    def num(self) -> int:
        """Pairs of every set: as many as each of them can have."""
        right = [self.mined("chained", gap_s).right.num_rows for gap_s in GAPS_S]
        wrong = self.mined("direct", GAP_S).wrong.num_rows
        whole = [self.mined(linker, GAP_S).pairs.num_rows for linker in LINKERS]
        return min(*right, *whole, int(wrong / (1 - min(PURITIES))))

    def of(self, spec: Spec) -> tuple[str, dict[str, float]]:
        """Digest of the set of a run, and facts about it."""
        purity, gap_s = 1.0, GAP_S
        if spec.series == "mined":
            source = self.mined(spec.of, GAP_S)
            return self.whole(source, spec, gap_s=GAP_S)
        if spec.series == "gap":
            gap_s = float(spec.of) / 1000
        else:
            purity = float(spec.of) / 100
        right, wrong = self.mined("chained", gap_s).right, self.mined("direct", gap_s).wrong
        pairs = graded(right, wrong, purity=purity, num=self.num, seed=spec.seed)
        facts = {"set_purity": purity, "set_num": pairs.num_rows, "gap_s": gap_s, "mined_num": right.num_rows}
        return kept(self.reserve.store, pairs, detections=self.reserve.detections, facts={"set": spec.name}), facts

    def whole(self, source: Mined, spec: Spec, *, gap_s: float) -> tuple[str, dict[str, float]]:
        """A set of what was mined, right or wrong, with facts about it."""
        none = source.pairs.slice(0, 0)
        pairs = graded(source.pairs, none, purity=1.0, num=self.num, seed=spec.seed)
        facts = {
            "set_purity": source.purity,
            "set_num": pairs.num_rows,
            "gap_s": gap_s,
            "mined_num": source.pairs.num_rows,
        }
        return kept(self.reserve.store, pairs, detections=self.reserve.detections, facts={"set": spec.name}), facts

    def _mined(self, linker: str, gap_s: float) -> Mined:
        config = herd_config(smoke=False).mine
        changes: dict[str, object] = {"linker": linker, "interval": Interval(f"{gap_s:g}s")}
        return mined(self.footage, MineConfig.model_validate({**config.model_dump(), **changes}))


def run_of(spec: Spec, sets: Sets, *, num_images: int) -> Run:
    """The training run of a spec."""
    reserve = sets.reserve
    pairs, facts = sets.of(spec)
    return Run(
        name=spec.name,
        config=Config.load(overrides={**SETTINGS, "train.seed": spec.seed}),
        store=reserve.store,
        samples=pairs,
        num_samples=int(facts["set_num"]),
        num_images=num_images,
        measure=Retrieval(reserve.store, reserve.held_out, {"": ELSEWHERE, "either_flank_": EITHER_FLANK}),
        facts=facts,
    )


def plan(work: Path, smoke: bool) -> Callable[[Results], list[Run]]:
    """All runs, after making the reserve."""
    sets = Sets(open_herd_reserve(work, smoke=smoke))
    num_images = SMOKE_IMAGES if smoke else NUM_IMAGES
    runs = [run_of(spec, sets, num_images=num_images) for spec in specs()]
    return lambda results: runs


if __name__ == "__main__":
    sys.exit(command(Bench("pair_purity", plan, page)))

"""Whether the purity of pairs matters to what is learned: ``python -m bench.pair_purity --table docs/pair_purity.md``.

In: a working folder, where the reserve is made once. Out: for pair sets of one size, how well animals that nobody
filmed are found again elsewhere. SimCLR trains on each at one budget, three seeds each; a seed draws its own pairs too.
One series varies the purity at one gap between the boxes of a pair, another the gap among right pairs alone, a third
takes the pairs that each linker mines, and the last mines again with what a first model has learned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.experiments import IMAGES_PER_STEP, Bench, Run, command
from bench.graded_pairs import Mined, graded, kept, mined
from bench.herd_reserve import HerdReserve, herd_config, open_herd_reserve
from bench.measures import Retrieval
from bench.pair_purity_page import figures, page
from bench.record import Results
from bench.reserve import EITHER_FLANK, ELSEWHERE
from wildray.config import Config, MineConfig
from wildray.retrieval.embed import embed

SEEDS = (0, 1, 2)
PURITIES = (1.0, 0.95, 0.85, 0.7, 0.5)
GAPS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
GAP_S = 2.0
"""Gap of the series of purities and of what linkers mine: the default of ``mine.interval``."""
LINKERS = ("direct", "assigned", "chained")
NUM_IMAGES = 150 * IMAGES_PER_STEP
SMOKE_IMAGES = 6 * IMAGES_PER_STEP
MAX_WAITING = 4
"""Runs ahead of a second round from which on it is not yet its turn."""
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
        series: ``purity``, ``gap``, ``mined``, ``second`` (mined once more, with what ``mined``
            learned) or ``self`` (two views of one crop of a pair).
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


def specs() -> list[Spec]:
    """All runs in order of priority. Purity 1 is the run of its gap."""
    gaps = [("gap", f"{1000 * gap_s:g}") for gap_s in GAPS_S]
    purities = [("purity", f"{100 * purity:g}") for purity in PURITIES[1:]]
    linkers = [("mined", linker) for linker in LINKERS]
    kinds = [*gaps, *purities, *linkers, ("self", f"{1000 * GAP_S:g}")]
    # of further seeds first what is furthest apart
    ends = [("gap", f"{1000 * GAP_S:g}"), purities[-1], linkers[-1], linkers[0], gaps[0], gaps[-1]]
    rest = [kind for kind in kinds if kind not in ends]
    further = [Spec(*kind, seed) for part in (ends, rest) for seed in SEEDS[1:] for kind in part]
    second = [Spec("second", "chained", seed) for seed in SEEDS]
    return [*(Spec(*kind, SEEDS[0]) for kind in [*ends, *rest]), second[0], *further, *second[1:]]


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
            return self.whole(self.mined(spec.of, GAP_S), spec)
        if spec.series in ("gap", "self"):
            gap_s = float(spec.of) / 1000
        else:
            purity = float(spec.of) / 100
        right, wrong = self.mined("chained", gap_s).right, self.mined("direct", gap_s).wrong
        pairs = graded(right, wrong, purity=purity, num=self.num, seed=spec.seed)
        published = self.mined("direct", gap_s)
        facts = {
            "set_purity": purity,
            "set_num": pairs.num_rows,
            "gap_s": gap_s,
            "mined_num": right.num_rows,
            "direct_num": published.pairs.num_rows,
            "direct_purity": published.purity,
            "direct_different": published.wrong.num_rows / published.pairs.num_rows,
        }
        return kept(self.reserve.store, pairs, detections=self.reserve.detections, facts={"set": spec.name}), facts

    def second(self, seed: int) -> tuple[str, dict[str, float]]:
        """The set that is mined by what the first round learned, from all that was mined by colours."""
        store, detections = self.reserve.store, self.reserve.detections
        first = Spec("mined", "chained", seed)
        config = Config.load(overrides={**SETTINGS, "train.seed": seed})
        vectors = embed(config, store, run=first.name, data=f"detections/{detections}").digest
        overlap = self._mined("chained", GAP_S, look_weight=0.0)
        pairs, facts = self.whole(self._mined("chained", GAP_S, embeddings=vectors), Spec("second", "chained", seed))
        return pairs, {**facts, "overlap_num": overlap.pairs.num_rows, "overlap_purity": overlap.purity}

    def whole(self, source: Mined, spec: Spec) -> tuple[str, dict[str, float]]:
        """A set of what was mined, right or wrong, with facts about it."""
        pairs = graded(source.pairs, source.pairs.slice(0, 0), purity=1.0, num=self.num, seed=spec.seed)
        facts = {
            "set_purity": source.purity,
            "set_num": pairs.num_rows,
            "gap_s": GAP_S,
            "mined_num": source.pairs.num_rows,
            "different": source.wrong.num_rows / source.pairs.num_rows,
        }
        return kept(self.reserve.store, pairs, detections=self.reserve.detections, facts={"set": spec.name}), facts

    def _mined(self, linker: str, gap_s: float, **settings: object) -> Mined:
        usual = herd_config(smoke=False).mine.model_dump(mode="json")
        config = MineConfig.model_validate({**usual, "linker": linker, "interval": f"{gap_s:g}s", **settings})
        return mined(self.footage, config)


def run_of(spec: Spec, sets: Sets, *, num_images: int) -> Run:
    """The training run of a spec."""
    reserve, views = sets.reserve, "self" if spec.series == "self" else "temporal"
    pairs, facts = sets.second(spec.seed) if spec.series == "second" else sets.of(spec)
    return Run(
        name=spec.name,
        config=Config.load(overrides={**SETTINGS, "train.seed": spec.seed, "train.views": views}),
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
    known = cache(lambda spec: run_of(spec, sets, num_images=num_images))

    def runs(results: Results) -> list[Run]:
        """A second round is mined when it is its turn, since its boxes are embedded first."""
        wanted: list[Run] = []
        for spec in specs():
            first = Spec("mined", "chained", spec.seed).name
            model = sets.reserve.store.path("models", first, "backbone.safetensors")
            waiting = sum(run.name not in results for run in wanted)
            if spec.series != "second" or (waiting < MAX_WAITING and first in results and model.is_file()):
                wanted.append(known(spec))
        return wanted

    return runs


if __name__ == "__main__":
    sys.exit(command(Bench("pair_purity", plan, page, figures)))

"""What the workers of the tests of strategies do; a module of its own, since spawned processes import it."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from wildray.config import Config
from wildray.learning.batch import Batch, Facts
from wildray.learning.batchnorm import share_batchnorm
from wildray.learning.checkpoint import State
from wildray.learning.job import Place, make_method, recipe_of
from wildray.learning.optim import make_optimizer
from wildray.learning.strategy import make_strategy

NUM_SAMPLES, SIZE_PX, STEPS = 8, 64, 4
RATE = 1e-3


def strategy_config(strategy: str, method: str, **overrides: object) -> Config:
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    return Config.load(
        overrides={
            "scale.strategy": strategy,
            "scale.workers": 2,
            "train.method": method,
            "train.batch_size": NUM_SAMPLES,
            "train.epochs": 1,
            "train.precision": "fp32",
            "train.clip_norm": 0.5,
            "backbone.name": "test_vit",
            "backbone.image_size": SIZE_PX,
            "method.hidden_dim": 48,
            "method.projection_dim": 24,
            "method.local_views": 0,
        }
        | given
    )


def random_batch(num_views: int, step: int, *, rank: int, num_workers: int, poison: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(step)
    mine = slice(rank * NUM_SAMPLES // num_workers, (rank + 1) * NUM_SAMPLES // num_workers)
    views = [torch.rand(NUM_SAMPLES, 3, SIZE_PX, SIZE_PX, generator=generator)[mine] for _ in range(num_views)]
    if poison:
        views[0][0, 0, 0, 0] = float("nan")
    row = torch.arange(NUM_SAMPLES)[mine]
    wide = row.repeat(num_views, 1)
    facts = Facts(wide, wide, torch.zeros(*wide.shape, 4), wide, wide.double())
    return Batch(views=views, labels=None, tracklet_id=row, facts=facts, seeds=row)


class Run:
    """One training of a tiny method, step by step."""

    def __init__(self, config: Config, place: Place, state: State | None = None) -> None:
        self.config, self.place, self.state = config, place, state or State()
        self.method = share_batchnorm(make_method(config), num_workers=place.num_workers)
        self.optimizer = make_optimizer(self.method, recipe_of(self.method, config), config.train)
        self.strategy = make_strategy(self.method, self.optimizer, config=config, place=place, state=self.state)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def train(self, until: int, *, poison: bool = False) -> None:
        num_parts = self.config.train.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = RATE
        for step in range(self.state.step, until):
            torch.manual_seed(step)
            self.method.train()
            batch = random_batch(
                len(self.method.views.views),
                step,
                rank=self.place.rank,
                num_workers=self.place.num_workers,
                poison=poison,
            )
            losses = [
                self.strategy.backward(part, num_parts=num_parts, last=number == num_parts)
                for number, part in enumerate(batch.split(num_parts), start=1)
            ]
            loss = torch.stack(losses).mean()
            if self.place.num_workers > 1:
                dist.all_reduce(loss)
            self.losses.append(float(loss) / self.place.num_workers)
            self.norms.append(self.strategy.step(clip_norm=self.config.train.clip_norm))
            self.state.step = step + 1
            self.strategy.after_step((step + 1) / STEPS)

    def saved(self, path: str) -> State:
        """The state as it comes back from a file."""
        self.state.method, self.state.optimizer = self.strategy.states()
        torch.save(vars(self.state), path)
        return State(**torch.load(path, weights_only=True))

    def weights(self) -> dict[str, Tensor]:
        backbone = self.strategy.whole_backbone()
        return {} if backbone is None else {k: v.clone() for k, v in backbone.net.state_dict().items()}


def compare(config: Config, place: Place, folder: str) -> dict[str, object]:
    """Losses, norms and weights of a training, and of one that was stopped, saved and gone on with."""
    whole = Run(config, place)
    whole.train(STEPS)
    first = Run(config, place)
    first.train(2)
    second = Run(config, place, first.saved(f"{folder}/state{place.rank}.pt"))
    second.train(STEPS)
    return {
        "losses": whole.losses,
        "norms": whole.norms,
        "weights": whole.weights(),
        "resumed": second.weights(),
        "resumed_losses": second.losses,
    }


def poisoned(config: Config, place: Place) -> dict[str, object]:
    run = Run(config, place)
    run.train(1)
    before = run.weights()
    run.train(2, poison=True)
    return {"norm": run.norms[-1], "before": before, "weights": run.weights()}


def strategy_worker(rank: int, num_workers: int, folder: str, jobs: list[tuple[str, Config]]) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    # beyond reach of a machine that is only busy
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_workers, timeout=timedelta(minutes=3)
    )
    place = Place(rank=rank, num_workers=num_workers)
    results = {}
    for name, config in jobs:
        results[name] = poisoned(config, place) if name.endswith("poisoned") else compare(config, place, folder)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()

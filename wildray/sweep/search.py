"""Which point comes next: the plan's, or Optuna's, as a searcher of Ray Tune [RAY TUNE].

In: settings that are planned, or a space; what earlier starts found. Out: points, each of some settings and a seed.
Tune's own grid would run again what is finished, and its Optuna knows neither several seeds of a setting nor a restart:
here the study is made anew from the ledger at every start, by asking for what was tried and telling what came of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ray.tune.search import Searcher

from wildray.sweep.space import Settings, key_of, suggested
from wildray.sweep.spec import SweepSpec
from wildray.trials import FAILED

logger = logging.getLogger(__name__)

Point = dict[str, Any]


def stamped(point: Point) -> Point:
    """A point with the time at which Tune asked for it: from there a trial's start-up counts, processes included."""
    return {**point, "asked_at": time.time()}


class PlannedSearch(Searcher):
    """Points of a list, in order.

    Args:
        points: Each with ``settings`` and ``seed``.
        spec: For the objective.
    """

    def __init__(self, points: Iterable[Point], spec: SweepSpec) -> None:
        super().__init__(metric=spec.objective[0].metric, mode=spec.objective[0].mode)
        self._left = deque(points)

    def suggest(self, trial_id: str) -> Any:
        """The next point, with when it was asked for, or the word that there is none."""
        return stamped(self._left.popleft()) if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing depends on what came of a point."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger has all."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: every start makes a new searcher."""


class OptunaStudy(PlannedSearch):
    """Optuna's suggestions, each with every seed; what is told is the mean over them.

    Args:
        spec: The sweep.
        known: (settings, means of the objectives) of earlier starts; values None: to be run first, as it was begun.
        done: Points that have ended, by ``key_of``.
    """

    def __init__(
        self, spec: SweepSpec, *, known: Sequence[tuple[Settings, Sequence[float] | None]], done: Iterable[str]
    ) -> None:
        super().__init__([], spec)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._spec, self._done = optuna, spec, set(done)
        self._study = optuna.create_study(
            directions=["maximize" if one.mode == "max" else "minimize" for one in spec.objective],
            sampler=optuna.samplers.TPESampler(seed=spec.algorithm.seed + len(known)),
        )
        self._open: dict[str, Any] = {}  # by key of the settings: Optuna's trial
        self._found: dict[str, list[Sequence[float]]] = {}
        self._point_of: dict[str, Point] = {}
        self._num_asked = 0
        for settings, values in sorted(known, key=lambda one: one[1] is None):
            self._study.enqueue_trial(self._plain(settings))
            if values is None:
                continue
            trial = self._study.ask()
            suggested(spec.search, trial)
            self._study.tell(trial, list(values))
            self._num_asked += 1

    def suggest(self, trial_id: str) -> Any:
        """The next seed of the last suggestion, or the first of a new one."""
        while not self._left:
            if self._num_asked >= (self._spec.budget.trials or 0):
                return Searcher.FINISHED
            self._ask()
        point = self._left.popleft()
        self._point_of[trial_id] = point
        return stamped(point)

    def _ask(self) -> None:
        trial = self._study.ask()
        settings = suggested(self._spec.search, trial)
        self._num_asked += 1
        key = key_of(settings)
        if key in self._open:  # a small space: the same again
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return
        self._open[key], self._found[key] = trial, []
        points = [{"settings": settings, "seed": seed} for seed in self._spec.seeds]
        self._left.extend(point for point in points if key_of(point) not in self._done)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna once all seeds of a suggestion have ended; of failed ones, that it failed."""
        point = self._point_of.pop(trial_id, None)
        if point is None:
            return
        key = key_of(point["settings"])
        trial, names = self._open[key], [one.metric for one in self._spec.objective]
        if error or result is None or FAILED in result or any(name not in result for name in names):
            if trial is not None:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                self._open[key] = None
            return
        self._found[key].append([float(result[name]) for name in names])
        if trial is not None and len(self._found[key]) == len(self._spec.seeds):
            self._study.tell(trial, [fmean(values) for values in zip(*self._found[key], strict=True)])
            self._open[key] = None

    def _plain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as Optuna holds them: the place in the list, where there is a list."""
        search = self._spec.search
        return {
            name: value if search[name].is_range else search[name].values.index(value)
            for name, value in settings.items()
        }

"""Which settings matter: permutation importance of a small random forest, with its spread.

In: settings and mAP of finished trials. Out: ``Importance``. A forest takes settings as ranks, so that no scale has to
be chosen for them. fANOVA (Hutter et al., ICML 2014) divides the variance over settings and their interactions, and
needs more trials than a sweep here has; plain means per value mislead where settings were not drawn independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildray.report.sweeps.records import Sweep, figure, ordered, show

MIN_TRIALS, MIN_SETTINGS = 8, 5
"""Fewer finished trials, or different settings among them, say nothing."""
NUM_BOOTSTRAP, NUM_TREES, NUM_SHUFFLES = 20, 25, 4


@dataclass(frozen=True)
class Importance:
    """How much each setting matters to the forest.

    Attributes:
        names: (D,) dotted names of the settings, the most important first.
        values: (D,) mean increase of the absolute error of mAP when the setting is shuffled.
        low, high: (D,) 5th and 95th percentile over the bootstrap samples.
        error: Mean absolute error of the forest on trials it has not seen.
        error_of_mean: The same of the mean of the trials that the forest was made from.
        num_trials: Trials that were used.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    error: float
    error_of_mean: float
    num_trials: int


def importance(sweep: Sweep) -> Importance | None:
    """Of the settings that vary over the finished trials; None where those are too few."""
    records = sweep.finished
    settings = sorted({record.setting for record in records})
    names = [name for name in sweep.search if len({show(r.settings.get(name)) for r in records}) > 1]
    if len(records) < MIN_TRIALS or len(settings) < MIN_SETTINGS or len(names) < 2:
        return None
    columns = []
    for name in names:
        order = ordered(record.settings[name] for record in records if name in record.settings)
        # a setting that does not matter for a trial is a value of its own
        columns.append([order.index(show(r.settings[name])) if name in r.settings else -1 for r in records])
    groups = np.array([settings.index(record.setting) for record in records])
    return _bootstrapped(names, np.array(columns, dtype=np.float64).T, np.array([figure(r) for r in records]), groups)


def _bootstrapped(
    names: Sequence[str],
    features: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
) -> Importance:
    """Importance over bootstrap samples of the settings: the seeds of one setting stay on one side.

    Args:
        names: (D,) names of the features.
        features: (N, D) ranks.
        values: (N,) mAP.
        groups: (N,) setting of each trial, from 0.
    """
    from sklearn.ensemble import RandomForestRegressor  # a second to import
    from sklearn.inspection import permutation_importance

    values = values.astype(np.float64)
    rng = np.random.default_rng(0)
    num_groups = int(groups.max()) + 1
    gains, errors, errors_of_mean = [], [], []
    for seed in range(NUM_BOOTSTRAP):
        drawn = rng.integers(num_groups, size=num_groups)
        inside = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        outside = np.flatnonzero(~np.isin(groups, drawn))
        if len(outside) < 2:
            continue
        forest = RandomForestRegressor(NUM_TREES, random_state=seed).fit(features[inside], values[inside])
        shuffled = permutation_importance(
            forest, features[outside], values[outside], scoring="neg_mean_absolute_error", n_repeats=NUM_SHUFFLES,
            random_state=seed,
        )  # fmt: skip
        gains.append(shuffled.importances_mean)
        errors.append(np.abs(forest.predict(features[outside]) - values[outside]).mean())
        errors_of_mean.append(np.abs(values[inside].mean() - values[outside]).mean())
    low, high = np.percentile(gains, [5, 95], axis=0)
    mean = np.mean(gains, axis=0)
    order = np.argsort(-mean, kind="stable").tolist()
    return Importance(
        names=tuple(names[place] for place in order),
        values=tuple(float(mean[place]) for place in order),
        low=tuple(float(low[place]) for place in order),
        high=tuple(float(high[place]) for place in order),
        error=float(np.mean(errors)),
        error_of_mean=float(np.mean(errors_of_mean)),
        num_trials=len(values),
    )

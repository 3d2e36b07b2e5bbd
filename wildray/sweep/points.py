"""What of a planned sweep is to be run: trials with a record each, and what they share.

In: a grid or random settings. Out: trials that can be run. Settings that do not go together, and trials that lack a
shared part that cannot be made, are failed rows with their reason, and the sweep goes on without them.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

from wildray.learning.methods import method_class
from wildray.sweep.shared import Attempts, pairs_of, untrained
from wildray.sweep.space import all_settings
from wildray.sweep.trial import Context, Trial, record_of, trial_of
from wildray.trials import Ledger

logger = logging.getLogger(__name__)


def planned(context: Context, ledger: Ledger) -> list[Trial]:
    """Every trial of a grid or of random settings, in order; none for Optuna, which decides as it goes.

    Every one has a record then; of settings that do not go together, a failed one, and they are left out.
    """
    if context.spec.algorithm.kind == "optuna":
        return []
    trials = []
    for settings in all_settings(context.spec):
        for seed in context.spec.seeds:
            record = record_of(settings, seed, context)
            if record.status == "failed" or ledger.read(record.trial) is None:
                ledger.write(record)
            if record.status == "failed":
                logger.warning("sweep: %s failed: %s", record.trial, record.reason)
            else:
                trials.append(trial_of(settings, seed, context))
    return trials


def shareable(trials: Sequence[Trial], context: Context, ledger: Ledger) -> list[Trial]:
    """Make what trials share, each part once; those that lack a part that cannot be made fail, the others are left."""
    store, data, name = context.store, context.shared.parts.validation.digest, context.spec.name
    mining, measuring, left = Attempts(), Attempts(), []
    for trial in trials:
        config, reason = trial.config, None
        if not method_class(config.train.method).supervised:
            reason = mining.failed(config.mine.digest(), functools.partial(pairs_of, config, store))
        if reason is None:
            measure = functools.partial(untrained, [config], store, name, data)
            reason = measuring.failed(config.backbone.digest(), measure)
        if reason is None:
            left.append(trial)
        else:
            logger.warning("sweep: %s failed: %s", trial.name, reason)
            ledger.change(trial.name, began_at=time.time())
            ledger.end(trial.name, "failed", reason)
    context.shared.seconds.update(mine=mining.seconds, untrained=measuring.seconds)
    return left

"""Where a process that Ray Train starts comes in, before anything large is imported.

In: a job and a probe, packed. Out: nothing; the worker trains. Ray Train hands what a worker is given through its
controller, a process of its own for every training, which would import all that the objects are made of, torch's
compiler and the networks too, only to pass them on: four seconds of a processor. Bytes it passes on as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import cloudpickle

if TYPE_CHECKING:
    from wildray.learning.job import Job, Probe


def packed(job: Job, probe: Probe | None) -> dict[str, Any]:
    """What ``enter`` is given."""
    return {"packed": cloudpickle.dumps((job, probe))}


def enter(settings: dict[str, Any]) -> None:
    """What every worker of a ``TorchTrainer`` does."""
    from wildray.learning.worker import work

    job, probe = cloudpickle.loads(settings["packed"])
    work(job, probe)

"""What training writes into its run's folder while it runs, for others to read.

In: the state. Out: ``.progress.json``, which the driver shows; ``.nonfinite.json``, which says at which samples a loss
ceased to be a number.
"""

from __future__ import annotations

import json
from typing import Any

from wildray.errors import StageError
from wildray.learning.batch import Batch
from wildray.learning.checkpoint import State
from wildray.learning.gathering import gathered_facts
from wildray.learning.job import Job, Place

NUM_SHOWN = 6
"""Detection ids that a message shows; the file has all."""


def write_progress(job: Job, state: State, *, num_steps: int, images_per_step: int) -> None:
    """Say how far training is.

    Args:
        job: What is trained.
        state: Where it stands.
        num_steps: Of the whole training.
        images_per_step: Crops that a step sees, over all workers.
    """
    step_s = state.epoch_s / max(1, state.epoch_step)
    content = {
        "epoch": state.epoch + 1,
        "epochs": job.config.train.epochs,
        "step": state.step,
        "num_steps": num_steps,
        "loss": state.epoch_loss / max(1, state.epoch_step),
        "images_per_s": images_per_step / max(step_s, 1e-9),
        "eta_s": step_s * (num_steps - state.step),
    }
    job.store.write_text(json.dumps(content), "models", job.run, ".progress.json")


def lineage(job: Job) -> dict[str, Any]:
    """What a run was trained on, for ``RunLog.input``: the pairs and how they were made, or the labelled images."""
    if job.config.train.labels is not None:
        return {
            "name": "labelled", "digest": job.pairs, "context": "training",
            "uri": str(job.store.path("labelled", job.pairs)), "facts": {},
        }  # fmt: skip
    pairs = job.store.collection("pairs", job.pairs)
    counts = [record.get("num_pairs", 0) for record in pairs.finished().values()]
    return {
        "name": "pairs", "digest": job.pairs, "context": "training", "uri": str(job.store.path("pairs", job.pairs)),
        "facts": {"num_pairs": sum(counts), **pairs.settings()},
    }  # fmt: skip


def nonfinite_error(
    job: Job, place: Place, batch: Batch, *, step: int, loss: float, norm: float, rate: float
) -> StageError:
    """What to tell of a step whose loss or gradient is not finite; every worker calls it, worker 0 writes the file.

    Args:
        job: What is trained.
        place: Which worker this is.
        batch: This worker's part of the step's batch.
        step: Number of the step, from 1.
        loss: Of the whole batch.
        norm: Of its gradient.
        rate: Learning rate of the step.
    """
    ids = gathered_facts(batch.facts.detection_id.T.to(place.device))
    detections = list(dict.fromkeys(ids.flatten().tolist()))
    path = job.run_dir / ".nonfinite.json"
    if place.rank == 0:
        content = {"step": step, "loss": repr(loss), "norm": repr(norm), "rate": rate, "detection_ids": detections}
        job.store.write_text(json.dumps(content), "models", job.run, path.name)
    shown = ", ".join(str(number) for number in detections[:NUM_SHOWN])
    precision = "" if job.config.train.precision == "fp32" else ", or with train.precision fp32"
    return StageError(
        f"The loss became {loss} with a gradient norm of {norm} at step {step} of run {job.run} (learning rate "
        f"{rate:.2g}); the weights were left as they were. The batch holds the detections {shown} ... (all in {path}). "
        f"Begin another --run with a lower train.learning_rate, a longer train.warmup{precision}; where it happens "
        f"again at the same detections, look at their crops."
    )

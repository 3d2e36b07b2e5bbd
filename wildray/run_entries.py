"""What a call to log comes to in MLflow: one entry of a run, applied.

In: entries, as ``runlog`` keeps them (mappings that JSON takes). Out: calls of MLflow's client, for one run. What it
has already is not written again: a parameter that changed becomes a tag, a step stays as it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wildray.tracking import MAX_BATCH, MAX_KEY_CHARS

_log = logging.getLogger(__name__)

MAX_PROFILE_CHARS = 60_000
"""What MLflow takes of a dataset's profile (mlflow 3.17, utils/validation.py: 16 MB), and more than ours need."""


class Entries:
    """The entries of one run.

    Args:
        run_id: MLflow's id.
        known_params: Parameters that the run has.
        new: Whether the run was just made: then no step was logged before, and none need be asked for.
    """

    def __init__(self, run_id: str, *, known_params: Mapping[str, str], new: bool) -> None:
        self.run_id = run_id
        self._known_params = dict(known_params)
        self._known_steps: dict[str, set[int]] | None = None if new else {}

    def apply(self, client: Any, entry: Mapping[str, Any]) -> None:
        """Log one entry; raises what MLflow raises."""
        if entry["do"] == "params":
            self._params(client, entry["values"])
        elif entry["do"] == "metrics":
            self._metrics(client, entry)
        elif entry["do"] == "inputs":
            self._inputs(client, entry["values"])
        elif entry["do"] == "experiment_tag":
            experiment_id = client.get_run(self.run_id).info.experiment_id
            client.set_experiment_tag(experiment_id, entry["name"], entry["value"])
        elif entry["do"] == "close":
            client.set_terminated(self.run_id, status=entry["status"], end_time=entry["time_ms"])
        elif Path(entry["path"]).is_dir():
            client.log_artifacts(self.run_id, entry["path"], entry["folder"] or None)
        elif Path(entry["path"]).exists():
            client.log_artifact(self.run_id, entry["path"], entry["folder"] or None)
        else:
            _log.warning("The artefact %s could not be logged when it was there, and is gone now.", entry["path"])

    def _params(self, client: Any, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        known = self._known_params
        new = [Param(key, value) for key, value in values.items() if key not in known]
        changed = [
            RunTag(f"changed.{key}"[:MAX_KEY_CHARS], value)
            for key, value in values.items()
            if known.get(key, value) != value
        ]
        for start in range(0, max(len(new), len(changed)), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            client.log_batch(self.run_id, params=new[part], tags=changed[part])
        known.update({param.key: param.value for param in new})

    def _metrics(self, client: Any, entry: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        step, metrics = entry["step"], []
        for key, value in entry["values"].items():
            if self._known_steps is not None:
                if key not in self._known_steps:
                    self._known_steps[key] = {item.step for item in client.get_metric_history(self.run_id, key)}
                if step in self._known_steps[key]:
                    continue
            metrics.append(Metric(key, value, entry["time_ms"], step))
        for start in range(0, len(metrics), MAX_BATCH):
            client.log_batch(self.run_id, metrics=metrics[start : start + MAX_BATCH])
        if self._known_steps is not None:
            for metric in metrics:
                self._known_steps[metric.key].add(step)

    def _inputs(self, client: Any, values: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        client.log_inputs(
            self.run_id,
            [
                DatasetInput(
                    Dataset(
                        name=value["name"],
                        digest=value["digest"],
                        source_type="wildray",
                        source=json.dumps({"uri": value["uri"]}),
                        profile=json.dumps(value["facts"])[:MAX_PROFILE_CHARS],
                    ),
                    [InputTag("mlflow.data.context", value["context"])],
                )
                for value in values
            ],
        )


def collided(error: Exception) -> bool:
    """Whether another writer was making what this one was about to make."""
    kind = type(error)
    if kind.__module__.startswith("sqlalchemy"):
        return kind.__name__ in ("IntegrityError", "ProgrammingError")  # out of reach is an OperationalError
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS" or "database schema" in str(error)


def experiment_id(client: Any, name: str, place: str | None) -> str:
    """Of the experiment of a name: found, brought back where it was deleted, or made with artefacts in ``place``."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=place))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)

"""Models in MLflow: a run's backbone logged so that ``mlflow models serve`` embeds images, and the best one registered.

In: the id of a run that ``runlog`` opened, and the weights that training wrote. Out: a logged model of that run
(``wildray.served_model`` with the weights beside it, signature, input example, requirements), and a version of a
registered model under an alias. What is there is found again by a tag, so that a restart makes nothing twice. As in
``runlog``, a tracking server that fails is a warning and not an error; the same call later makes up for it.

The alternative, ``mlflow.pyfunc.log_model``, logs to whatever tracking URI the process has set for all its threads,
writes its configuration among the run's parameters, and makes another model at every call.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wildray.config import DetectConfig
from wildray.errors import ConfigError
from wildray.learning.backbone import Backbone
from wildray.learning.first_backbone import open_backbone
from wildray.packs import encode_jpeg
from wildray.runlog import tracking_client
from wildray.tracking import check_uri, locked, shown

_log = logging.getLogger(__name__)

CODE = Path(__file__).with_name("served_model.py")
"""What MLflow runs to load a model."""
MODEL_TAG = "wildray.model"
"""Tag by which a model is found again: a digest of the backbone and of how images are prepared for it."""
REQUIREMENTS = (
    "mlflow", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow", "pandas", "pyarrow",
    "safetensors",
)  # fmt: skip
"""Libraries that decide what the vectors are, or whether they come at all; pinned to what made the model."""


@dataclass(frozen=True)
class LoggedModel:
    """A model that a run has in MLflow.

    Attributes:
        model_id: MLflow's id; ``models:/<model_id>`` is its URI.
        run_id: The run that it is of.
        key: Value of ``MODEL_TAG``.
    """

    model_id: str
    run_id: str
    key: str


def log_model(uri: str, run_id: str, weights: Path, *, run_name: str, detect: DetectConfig) -> LoggedModel | None:
    """Log a run's backbone as a model that embeds images; the same backbone is logged to a run once.

    Args:
        uri: Tracking URI, as ``check_uri`` takes it.
        run_id: MLflow's id of the run.
        weights: ``backbone.safetensors`` of the run.
        run_name: Its name in the store.
        detect: How crops were made for the run; ``crop_padding`` and ``crop_longest_px`` go with the model.

    Returns:
        The model, or None where the tracking database is out of reach.

    Raises:
        ConfigError: ``check_uri`` refuses the URI.
        WeightsError: The weights cannot be read.
    """
    check_uri(uri)
    backbone = open_backbone(weights)
    crops = {"crop_padding": detect.crop_padding, "crop_longest_px": detect.crop_longest_px}
    digest = backbone.digest()
    facts = {
        "run": run_name,
        "backbone": backbone.name,
        "image_size": backbone.image_size,
        "pooling": backbone.pooling,
        "dim": backbone.dim,
        "digest": digest,
        **crops,
    }
    key = hashlib.blake2b(f"{digest} {sorted(crops.items())}".encode(), digest_size=8).hexdigest()
    try:
        with locked(uri):
            return _find_or_log(tracking_client(uri), run_id, weights, backbone, facts=facts, crops=crops, key=key)
    except Exception as error:  # of MLflow, SQLAlchemy, requests, the file system: none may end a sweep
        _warn(f"The model of {run_name}", "logged", uri, error)
        return None


def register_model(uri: str, model: LoggedModel, name: str, *, alias: str = "best") -> int | None:
    """Register a logged model and point an alias at it; the same backbone gets one version.

    Args:
        uri: Tracking URI that the model was logged to.
        model: What ``log_model`` gave.
        name: Of the registered model, without ``/`` and ``:``; made where there is none.
        alias: Taken from the version that has it.

    Returns:
        The version, or None where the tracking database is out of reach.

    Raises:
        ConfigError: ``check_uri`` refuses the URI, or MLflow the name.
    """
    check_uri(uri)
    if not name.strip() or any(mark in name for mark in "/:'"):
        raise ConfigError(f"A registered model cannot be named {name!r}: expected letters, without / : and quotes.")
    try:
        with locked(uri):
            client = tracking_client(uri)
            version = _find_or_register(client, model, name)
            client.set_registered_model_alias(name, alias, str(version))
            _log.info("%s@%s is version %d, of the run %s.", name, alias, version, model.run_id)
            return version
    except Exception as error:  # as in log_model
        _warn(f"The model {name}", "registered", uri, error)
        return None


def input_example() -> pd.DataFrame:
    """A table of one small image of coloured stripes, as a request to the model would bring it."""
    across, down = np.meshgrid(np.arange(64), np.arange(48))
    stripes = np.stack([across * 4, down * 5, (across + down) % 16 * 16], axis=-1).astype(np.uint8)
    return pd.DataFrame({"image": [encode_jpeg(stripes)]})


def requirements() -> list[str]:
    """Lines of a requirements file: ``REQUIREMENTS`` as they are installed, and wildray."""
    # what follows a plus names a build (2.14.1+cpu), which no package index has
    pinned = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
    return ["wildray", *pinned]


def _find_or_log(
    client: Any,
    run_id: str,
    weights: Path,
    backbone: Backbone,
    *,
    facts: Mapping[str, Any],
    crops: Mapping[str, Any],
    key: str,
) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    found = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}' AND tags.`{MODEL_TAG}` = '{key}'"
    )
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    if ready:
        return LoggedModel(model_id=ready[0].model_id, run_id=run_id, key=key)
    if found:  # killed as it was uploaded
        model = found[0]
    else:
        model = client.create_logged_model(
            run.info.experiment_id,
            name="backbone",
            source_run_id=run_id,
            tags={MODEL_TAG: key},
            params={name: str(value) for name, value in facts.items()},
            model_type="embedder",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        _save(path, weights, backbone, model=model, facts=facts, crops=crops)
        client.log_model_artifacts(model.model_id, str(path))
    linked = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in linked}:  # mlflow fails on a link that is there
        client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return LoggedModel(model_id=model.model_id, run_id=run_id, key=key)


def _save(
    path: Path, weights: Path, backbone: Backbone, *, model: Any, facts: Mapping[str, Any], crops: Mapping[str, Any]
) -> None:
    """Write the model's folder as MLflow wants it: MLmodel, code, weights, requirements, input example."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs = Schema([ColSpec(DataType.binary, "image"), ColSpec(DataType.string, "bbox", required=False)])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, backbone.dim))])
    mlflow.pyfunc.save_model(
        path,
        python_model=CODE,
        artifacts={"backbone": str(weights.absolute())},
        model_config=dict(crops),
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        input_example=input_example(),
        pip_requirements=requirements(),
        metadata=dict(facts),
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
    )


def _find_or_register(client: Any, model: LoggedModel, name: str) -> int:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' AND tags.`{MODEL_TAG}` = '{model.key}'")
    if versions:
        return min(int(version.version) for version in versions)
    made = client.create_model_version(
        name,
        # mlflow 3.17 looks a models:/ URI up in the process's own tracking database, whichever the client is of
        source=client.get_logged_model(model.model_id).artifact_location,
        run_id=model.run_id,
        tags={MODEL_TAG: model.key},
        model_id=model.model_id,
    )
    return int(made.version)


def _warn(what: str, done: str, uri: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    _log.warning("%s was not %s at %s (%s). The same command makes up for it.", what, done, shown(uri), reason)

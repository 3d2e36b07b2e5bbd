"""Experiment logging: the one place that calls MLflow.

In: parameters, metrics and files of a run, from one process (rank 0, or the stage itself). Out: an MLflow run that is
found again by a deterministic tag, so that a restart goes on in the same run. Logging never ends a stage: the first
failure is logged as a warning, and from then on calls go to a JSONL file that is replayed when the run is closed or
opened again. MLflow is imported where it is first needed, since that takes two seconds.

The alternatives: ``mlflow.start_run`` keeps the active run in global state that Ray's workers do not share, and
autologging decides by itself what is written.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wildray.config import TrackingConfig
from wildray.remote import is_remote, local_copy, remote_path
from wildray.run_entries import Entries, collided, experiment_id
from wildray.spool import Spool, spool_file
from wildray.tracking import (
    artifact_place,
    check_uri,
    clean_key,
    default_uri,
    flatten,
    locked,
    prepare_mlflow,
    reason_of,
    serve,
    shown,
    ui_command,
    uri_of,
)

__all__ = [
    "RunLog",
    "check_uri",
    "default_uri",
    "open_in",
    "open_run",
    "prepare",
    "serve_ui",
    "tracking_client",
    "ui_command",
    "uri_of",
]

_log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
COLLISION_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits of writers that met at a database server while one of them made its tables, or the experiment."""
KEY_TAG = "wildray.key"
"""Tag by which a run is found again: a digest of its name, so that no name needs quoting in a search."""


def prepare(uri: str) -> None:
    """Create or migrate a sqlite database once, under a lock; several writers that met a fresh one would crash."""
    check_uri(uri)
    with locked(uri):
        tracking_client(uri).search_experiments(max_results=1)


def open_in(settings: TrackingConfig, store_root: str | os.PathLike[str], name: str, tags: Mapping[str, str]) -> RunLog:
    """``open_run`` where the settings, or else the store, say; ConfigError as from ``tracking.uri_of``."""
    uri = uri_of(settings, store_root)
    root = os.fspath(store_root)
    spool = None if "://" in root else Path(root) / "mlspool"
    place = artifact_place(uri, root)
    return open_run(uri, settings.experiment, name, tags, spool_folder=spool, artifacts=place)


def open_run(
    tracking_uri: str | None,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    *,
    spool_folder: str | os.PathLike[str] | None = None,
    artifacts: str | None = None,
) -> RunLog:
    """Begin a run, or go on with the run of that name; a database out of reach is a warning, not an error.

    Args:
        tracking_uri: As ``check_uri`` takes it, or None: nothing is logged.
        experiment: MLflow experiment; made where there is none.
        name: Name of the run; the same name in the same experiment is the same run.
        tags: Further tags.
        spool_folder: Where calls go that could not be logged; default beside the database, else the cache folder.
        artifacts: URI of the folder for pictures and models of a new experiment; default as ``artifact_place`` says
            for the database's own folder.

    Raises:
        ConfigError: ``check_uri`` refuses the URI.
    """
    if tracking_uri is not None:
        check_uri(tracking_uri)
    spool = Spool(spool_file(tracking_uri, experiment, name, spool_folder))
    run = RunLog(tracking_uri, experiment, name, tags, spool=spool, artifacts=artifacts)
    run.connect()
    return run


class RunLog:
    """One run. Made by ``open_run``; a context manager that closes with the status of how the block ended.

    Attributes:
        run_id: MLflow's id, or None where nothing is logged or the tracking database is out of reach.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        *,
        spool: Spool,
        artifacts: str | None = None,
    ) -> None:
        self.run_id: str | None = None
        self._uri, self._experiment, self._name, self._tags, self._spool = tracking_uri, experiment, name, tags, spool
        self._artifacts = artifacts
        self._experiment_id = ""
        self._healthy, self._closed = False, False
        self._entries: Entries | None = None
        self._dropped: set[str] = set()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")

    @property
    def url(self) -> str | None:
        """Where the run is seen: on the server, or on the one that ``wildray mlflow`` starts; None without a run."""
        return None if self.experiment_url is None else f"{self.experiment_url}/runs/{self.run_id}"

    @property
    def experiment_url(self) -> str | None:
        """Where the run's experiment is seen; None without a run."""
        if self.run_id is None or self._uri is None:
            return None
        server = self._uri.rstrip("/") if self._uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{server}/#/experiments/{self._experiment_id}"

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; nested mappings become dotted names.

        One that a continued run has with another value becomes a tag ``changed.<name>``: MLflow refuses to overwrite.
        """
        self._write({"do": "params", "values": dict(flatten(values))})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step. What is not finite is dropped; a step that a continued run has is not logged twice."""
        finite = {}
        for key, value in values.items():
            if math.isfinite(value):
                finite[clean_key(key)] = float(value)
            elif key not in self._dropped:  # one line per metric, not per step
                self._dropped.add(key)
                _log.warning("The metric %s was %s at step %d and is not logged.", key, value, step)
        if finite:
            self._write({"do": "metrics", "values": finite, "step": step, "time_ms": int(time.time() * 1000)})

    def input(self, name: str, digest: str, *, uri: str, context: str, facts: Mapping[str, object]) -> None:
        """Log what the run was made of, as an MLflow dataset; one that the run has is not logged twice.

        Args:
            name: Such as pairs.
            digest: Of its content, at most 36 characters.
            uri: Where it lies.
            context: What it is for: training or evaluation.
            facts: Counts and settings, shown as the dataset's profile.
        """
        value = {"name": name, "digest": digest, "uri": uri, "context": context, "facts": dict(facts)}
        self._write({"do": "inputs", "values": [json.loads(json.dumps(value, default=str))]})

    def experiment_tag(self, name: str, value: str) -> None:
        """Give the run's experiment a tag; one of that name is overwritten."""
        self._write({"do": "experiment_tag", "name": name, "value": value})

    def artifact(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Copy a file, or a local folder with what is in it, to a folder of the run's artefacts."""
        place = remote_path(str(path)) if is_remote(path) else Path(path)
        if not place.exists():
            _log.warning("The artefact %s does not exist and is not logged.", path)
            return
        self._write({"do": "artifact", "path": str(local_copy(place).absolute()), "folder": folder})

    def close(self, status: Status = "FINISHED", *, at_s: float | None = None) -> None:
        """End the run; what could not be logged before is tried once more. A second call does nothing.

        Args:
            status: How it ended.
            at_s: When, in seconds of Unix time; default now.
        """
        if self._closed or self._uri is None:
            return
        if not self._healthy:
            self.connect()
        if self._healthy:
            self._write({"do": "close", "status": status, "time_ms": int(1000 * (at_s or time.time()))})
        self._closed = True

    def connect(self) -> None:
        """Find or create the run, and log what was kept while the database was out of reach."""
        if self._uri is None:
            return
        for pause_s in (*COLLISION_PAUSES_S, None):
            try:
                self._connect(self._uri)
                return
            except Exception as error:  # of MLflow, SQLAlchemy, requests, the file system: none may end a stage
                if pause_s is None or not collided(error):
                    self._fail(error)
                    return
                time.sleep(pause_s * random.uniform(0.5, 1.0))

    def _connect(self, uri: str) -> None:
        with locked(uri):
            client = tracking_client(uri)
            place = self._artifacts or artifact_place(uri, ".")
            self._experiment_id = experiment_id(client, self._experiment, place)
            self._find_or_create(client)
        self._spool.replay(functools.partial(self._apply, client))
        self._healthy = True

    def _find_or_create(self, client: Any) -> None:
        key = hashlib.blake2b(self._name.encode(), digest_size=16).hexdigest()
        found = client.search_runs(
            [self._experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", order_by=["attributes.start_time ASC"]
        )
        tags = {**self._tags, KEY_TAG: key}
        if not found:
            run = client.create_run(self._experiment_id, tags=tags, run_name=self._name)
            self.run_id = str(run.info.run_id)
            self._entries = Entries(self.run_id, known_params={}, new=True)
            return
        run, *others = found
        for other in others:  # two machines that began at once: the older run is the one that goes on
            if other.info.status == "RUNNING":
                client.set_terminated(other.info.run_id, status="KILLED")
        self.run_id = str(run.info.run_id)
        self._entries = Entries(self.run_id, known_params=run.data.params, new=False)
        client.update_run(self.run_id, status="RUNNING")
        for tag, value in tags.items():
            client.set_tag(self.run_id, tag, value)
        _log.info("Logging goes on in the run %s (%s), which was %s.", self._name, self.run_id, run.info.status)

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._uri is None or self._closed:
            return
        if not self._healthy:
            self._spool.keep([entry])
            return
        try:
            self._apply(tracking_client(self._uri), entry)
        except Exception as error:  # as in connect
            if entry["do"] != "close":
                self._spool.keep([entry])
            self._fail(error)

    def _apply(self, client: Any, entry: Mapping[str, Any]) -> None:
        assert self._entries is not None, "entries are applied to a run that was found or made"
        self._entries.apply(client, entry)

    def _fail(self, error: Exception) -> None:
        self._healthy = False
        _log.warning(
            "Logging to %s failed (%s). The stage goes on; what it logs is kept in %s, and logged when the run %s is "
            "opened again.", shown(self._uri or ""), reason_of(error), self._spool.path, self._name,
        )  # fmt: skip


def serve_ui(store_root: str | os.PathLike[str], host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve a store's runs to a browser until interrupted; status and errors as ``tracking.serve``."""
    prepare(default_uri(store_root))
    return serve(store_root, host, port)


def tracking_client(uri: str) -> Any:
    """MLflow's client of a tracking URI, as ``prepare_mlflow`` wants it."""
    prepare_mlflow()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)

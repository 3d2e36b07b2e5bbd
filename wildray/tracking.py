"""Where experiment logs go: tracking URIs, names that MLflow takes, and the command that serves them.

In: a store's folder or a tracking URI. Out: checked URIs, a lock for databases of one file, clean names, the server's
command. Plain Python: MLflow itself is reached through ``wildray.runlog`` alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import re
import socket
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from wildray.config import TrackingConfig
from wildray.errors import ConfigError

_log = logging.getLogger(__name__)

MAX_KEY_CHARS, MAX_VALUE_CHARS, MAX_BATCH = 250, 6000, 100  # mlflow 3.17, utils/validation.py
_SQLITE = "sqlite:///"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # its migrations are no news to a user
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default of 7 holds training up for minutes when a server is away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar per file, into log files too
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv project in the working directory would be copied into every model
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # evaluation jobs of language models: idle processes
}
"""What MLflow is told through the environment, where the user says nothing else."""
TOLD_HERE = "mlflow.store.db.utils"
"""MLflow's logger that prints a hundred lines for each error of a database, such as a full disk, and raises it too."""


def prepare_mlflow() -> None:
    """Tell MLflow what ``ENVIRONMENT`` says, and have errors of the database told once; comes before its import."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger(TOLD_HERE).setLevel(logging.CRITICAL)


def default_uri(store_root: str | os.PathLike[str]) -> str:
    """Tracking URI of the database in a store: absolute, since every Ray worker has its own working directory.

    Raises:
        ConfigError: The store is no folder of this machine.
    """
    text = os.fspath(store_root)
    if "://" in text:
        raise ConfigError(f"The store {text} is remote and cannot hold a tracking database. {_server_hint('.')}")
    return f"{_SQLITE}{Path(text).absolute() / 'mlflow.db'}"


def uri_of(settings: TrackingConfig, store_root: str | os.PathLike[str]) -> str:
    """Where runs are logged: ``tracking.uri``, else MLFLOW_TRACKING_URI, else the database in the store.

    Raises:
        ConfigError: ``check_uri`` refuses it, or the setting, which is written to records, has a password.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(store_root)
    if settings.uri is not None and shown(uri) != uri:
        raise ConfigError(
            f"tracking.uri: got {shown(uri)} with a password, which the records of the runs would keep. Leave the "
            "password to ~/.pgpass, PGPASSWORD or MLFLOW_TRACKING_PASSWORD, or give the whole as MLFLOW_TRACKING_URI."
        )
    check_uri(uri)
    _check_driver(uri)
    return uri


def _check_driver(uri: str) -> None:
    """Refuse a database whose Python driver is missing: what is kept for later would be kept for ever."""
    scheme = uri.partition("://")[0]
    if scheme in ("sqlite", "http", "https"):
        return
    driver = scheme.partition("+")[2] or {"postgresql": "psycopg"}.get(scheme, "")
    if driver and importlib.util.find_spec(driver) is None:
        wanted = "'wildray[postgres]'" if driver == "psycopg" else driver
        raise ConfigError(f"tracking.uri: {shown(uri)} needs {driver}, which is not installed: pip install {wanted}.")


def shown(uri: str) -> str:
    """A URI without its password, to be printed."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def reason_of(error: BaseException) -> str:
    """The first line of what an error says that says what is wrong: SQLAlchemy may begin with when it noticed."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    telling = [line for line in lines if not line.startswith("(raised as a result of")]
    return (telling or lines or [type(error).__name__])[0][:300]


def artifact_place(uri: str, store_root: str | os.PathLike[str]) -> str | None:
    """Where an experiment's pictures and models go; None: a server decides.

    MLflow would put those of a database that it opens itself into the working directory of the process.
    """
    database = database_file(uri)
    if database is not None:
        return (database.parent / "mlartifacts").as_uri()
    if uri.startswith("http"):
        return None
    root = os.fspath(store_root)
    return f"{root}/mlartifacts" if "://" in root else (Path(root).absolute() / "mlartifacts").as_uri()


def check_uri(uri: str, *, num_nodes: int = 1) -> None:
    """Refuse tracking URIs that MLflow refuses or that would lose writes.

    Args:
        uri: sqlite with an absolute path, http(s), or a database server.
        num_nodes: Machines that write to it.

    Raises:
        ConfigError: A file store, a relative or odd sqlite path, or a sqlite file for several machines.
    """
    if uri.startswith("sqlite:"):
        path = uri.removeprefix(_SQLITE)
        if not path.startswith("/") or "?" in path:
            raise ConfigError(
                f"tracking.uri: got {uri!r}, expected four slashes and an absolute path without a question mark, "
                "such as sqlite:////data/mlflow.db"
            )
        if num_nodes > 1:
            raise ConfigError(
                f"tracking.uri: {uri} is a file of one machine, and {num_nodes} machines would write to it. "
                + _server_hint(str(Path(path).parent))
            )
    elif "://" not in uri or uri.startswith("file:"):
        raise ConfigError(
            f"tracking.uri: got {shown(uri)!r}: MLflow no longer writes to folders. Expected "
            "sqlite:////absolute/mlflow.db, or http://HOST:5000 of a server. " + _server_hint(".")
        )


def database_file(uri: str) -> Path | None:
    """The file of a sqlite URI; None for servers."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


@contextlib.contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold the lock file of a sqlite database for as long as the block runs; servers do their own locking."""
    database = database_file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
        yield


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted, clean names and text values of at most ``MAX_VALUE_CHARS``; lists are written as JSON."""
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{dotted}.")
            continue
        text = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
        if len(text) > MAX_VALUE_CHARS:
            _log.info("The parameter %s is cut to %d of its %d characters.", dotted, MAX_VALUE_CHARS, len(text))
            text = text[: MAX_VALUE_CHARS - 1] + "…"
        yield clean_key(dotted), text


def clean_key(key: str) -> str:
    """A name that MLflow takes: letters, digits, ``_-. :/``, a normal path, at most ``MAX_KEY_CHARS``."""
    allowed = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", key)
    parts = [part for part in allowed.split("/") if part.strip(". ")]
    return "/".join(parts)[:MAX_KEY_CHARS].rstrip("/") or "_"


def ui_command(store_root: str | os.PathLike[str], host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves a store's runs to a browser."""
    root = Path(store_root).absolute()
    names = sorted({host, "127.0.0.1", "localhost"})
    return [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", default_uri(root),
        "--artifacts-destination", str(root / "mlartifacts"),
        "--host", host,
        "--port", str(port),
        "--workers", "1",
        "--allowed-hosts", ",".join(f"{name}:{port}" for name in names),
    ]  # fmt: skip


def serve(store_root: str | os.PathLike[str], host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve a store's runs until interrupted; returns the server's exit status.

    Raises:
        ConfigError: The address cannot be served, as when the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be served ({error.strerror}): choose another --port.") from None
    if host not in ("127.0.0.1", "localhost"):
        _log.warning("MLflow asks for no password: everyone who reaches %s:%d can read and delete runs.", host, port)
    _log.info("Starting MLflow at http://%s:%d (this takes some seconds); Ctrl-C ends it.", host, port)
    command = ui_command(store_root, host, port)
    server = subprocess.Popen(command, env={**ENVIRONMENT, **os.environ})  # nosec B603 # MLflow of this interpreter
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(timeout=10)
        return 0


def _server_hint(folder: str) -> str:
    return (
        "Start one server, on a machine that all reach, with 'python -m mlflow server "
        f"--backend-store-uri {_SQLITE}{Path(folder).absolute()}/mlflow.db --host HOST --port 5000 "
        "--allowed-hosts HOST:5000' and give --tracking.uri http://HOST:5000."
    )

"""Connect to Ray: this machine by default, a cluster where an address is given.

A private Ray on this machine gets a token of its own before ``ray`` is imported, and listens on 127.0.0.1 alone:
without an explicit choice ``ray.init`` writes a world-readable token into the home folder and opens its ports to all.
On a cluster the token is the cluster's, taken from the environment or from a file; without one Ray's clients abort the
process, so it is looked for first.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from wildray.errors import ConfigError, StageError

logger = logging.getLogger(__name__)

NEEDED_ENVIRONMENT = "WILDRAY_NEEDS_ENV"
"""Holds the names of variables that a submitted job must find where it runs, separated by commas; never a value."""


def prepare_environment(address: str | None = None) -> None:
    """Choose Ray's authentication and switches; must come before anything imports ``ray``, which reads them then.

    Args:
        address: Cluster to be joined, or None for this machine (unless RAY_ADDRESS names one).
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    here = (address or os.environ.get("RAY_ADDRESS")) in (None, "", "local")
    if here and os.environ["RAY_AUTH_MODE"] == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if here:
        # Named for the systems where it is the default, and obeyed on all (ray._private.services.get_node_ip_address).
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers without GPU keep what the user set


def check_token() -> None:
    """Look for the token of a cluster, whose value is not read.

    Raises:
        ConfigError: There is none, though authentication is not switched off.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if not path.is_file():
        raise ConfigError(
            f"The cluster's token is not there: RAY_AUTH_TOKEN is not set, and there is no file {path}"
            f"{' (RAY_AUTH_TOKEN_PATH)' if named else ''}. Copy the head's there and 'chmod 600' it, or set "
            f"RAY_AUTH_MODE=disabled for a cluster without authentication."
        )
    if path.stat().st_mode & 0o077:
        logger.warning("Others can read the cluster's token: chmod 600 %s", path)


def check_needed_environment(environment: Mapping[str, str] | None = None) -> None:
    """Whether the variables that the job was submitted with by name are set where it runs.

    Args:
        environment: Default this process's.

    Raises:
        ConfigError: Names those that are not.
    """
    known = os.environ if environment is None else environment
    names = [name for name in known.get(NEEDED_ENVIRONMENT, "").split(",") if name]
    missing = [name for name in names if not known.get(name)]
    if missing:
        raise ConfigError(
            f"The job needs {', '.join(missing)} in its environment, which this node's Ray was started without: set "
            f"each on every node before 'ray start' (on Kubernetes: env with secretKeyRef in every pod template)."
        )


def connect(address: str | None, *, verbose: bool = False, dashboard: bool = False) -> None:
    """Start Ray on this machine, or join the cluster at ``address`` (or RAY_ADDRESS).

    Args:
        address: Of the cluster, or None.
        verbose: Whether Ray's own lines are shown.
        dashboard: Whether a Ray that is started has its dashboard, without which Tune does not get back what the
            training of a trial held that it ended early.

    Raises:
        ConfigError: There is no cluster at the address.
        StageError: Ray does not start here.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    here = address in (None, "", "local")
    if not here:
        check_token()
    import ray

    if ray.is_initialized():
        return
    level = logging.INFO if verbose else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    try:
        if here:
            ray.init(address="local", include_dashboard=dashboard, log_to_driver=verbose, logging_level=level)
        else:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
    except ConnectionError as error:
        raise ConfigError(
            f"No Ray cluster answers at {address!r}, or it has another token ({error}). "
            f"Give ADDRESS:PORT of a head node and its token (RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH "
            f"names), or leave --address and RAY_ADDRESS away to run on this machine."
        ) from None
    except (RuntimeError, OSError, ValueError) as error:
        raise StageError(f"Ray did not start ({error}). 'wildray doctor' shows what this machine lacks.") from error
    if not verbose:
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False  # the stages draw their own
        ray.data.DataContext.get_current().print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler prints its stack; a batch system's signal ends a stage as Ctrl-C does
        signal.signal(signal.SIGTERM, _interrupted)
    resources = ray.cluster_resources()
    logger.info("Ray has %g CPUs and %g GPUs", resources.get("CPU", 0), resources.get("GPU", 0))


def resources() -> list[dict[str, float]]:
    """CPU and GPU of each node that is alive."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def nodes() -> list[dict[str, object]]:
    """The nodes of the cluster that is connected to, as Ray describes them."""
    import ray

    return [dict(node) for node in ray.nodes()]

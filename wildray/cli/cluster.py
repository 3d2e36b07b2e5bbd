"""Connect to Ray: this machine by default, a cluster where an address is given.

A private Ray on this machine gets a token of its own before ``ray`` is imported, and listens on 127.0.0.1 alone:
without an explicit choice ``ray.init`` writes a world-readable token into the home folder and opens its ports to all.
On a cluster the token is the cluster's, taken from the environment.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading

from wildray.errors import ConfigError, StageError

logger = logging.getLogger(__name__)


def prepare_environment(address: str | None = None) -> None:
    """Choose Ray's authentication and switches; must come before anything imports ``ray``, which reads them then.

    Args:
        address: Cluster to be joined, or None for this machine (unless RAY_ADDRESS names one).
    """
    if (address or os.environ.get("RAY_ADDRESS")) in (None, "", "local"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Named for the systems where it is the default, and obeyed on all (ray._private.services.get_node_ip_address).
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # workers without GPU keep what the user set


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
    import ray

    if ray.is_initialized():
        return
    level = logging.INFO if verbose else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    try:
        if address in (None, "", "local"):
            ray.init(address="local", include_dashboard=dashboard, log_to_driver=verbose, logging_level=level)
        else:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
    except ConnectionError as error:
        raise ConfigError(
            f"No Ray cluster answers at {address!r} ({error}). "
            f"Give ADDRESS:PORT of a head node, or leave --address and RAY_ADDRESS away to run on this machine."
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

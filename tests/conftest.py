"""Fixtures shared by all tests: one Ray for the session, one for a module, the folder of real data where it is."""

import os
from pathlib import Path

import pytest

from wildray.cli.cluster import connect, prepare_environment

prepare_environment()  # before any test imports ray
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # what a user has set is no place for what tests log


@pytest.fixture(scope="session")
def ray_session():
    """A Ray on this machine, started once."""
    connect(None)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def ray_connected():
    """A Ray on this machine for a module of tests, connected as the commands are, and stopped after it."""
    import ray

    connect(None)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def ray_here(request):
    """A Ray of two CPUs for a module of tests, whose workers know the module's own functions."""
    import ray

    # workers cannot import test files, which lie on no path of theirs
    ray.cloudpickle.register_pickle_by_value(request.module)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield ray
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that WILDRAY_TEST_DATA names; the test is skipped where there is none."""
    folder = os.environ.get("WILDRAY_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("WILDRAY_TEST_DATA names no folder of real clips")
    return Path(folder)

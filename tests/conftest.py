"""Fixtures shared by all tests: one Ray for the session, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest

from wildray.cli.cluster import connect, prepare_environment

prepare_environment()  # before any test imports ray
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def ray_session():
    """A Ray on this machine, started once."""
    connect(None)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that WILDRAY_TEST_DATA names; the test is skipped where there is none."""
    folder = os.environ.get("WILDRAY_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("WILDRAY_TEST_DATA names no folder of real clips")
    return Path(folder)

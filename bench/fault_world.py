"""Where faults are tried: a cluster of this machine, a reserve, commands on it, and what they come to undisturbed.

In: a working folder. Out: started commands with a log each, stores of three kinds (a folder, object storage, a small
file system), and one undisturbed reference of each kind of command, made once and kept in the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "cluster"), str(ROOT / "tests")]

from local import LocalCluster  # noqa: E402

COMMAND_S = 600.0
"""A command that takes longer hangs."""
REPLACED_AFTER_S = 10.0
NETWORK = {"backbone.name": "test_resnet", "backbone.image_size": 48, "train.precision": "fp32"}
DETECT = {"detect.detector": "motion", "detect.chunk": "20s"}
SETTINGS: dict[str, object] = {
    **DETECT, **NETWORK,
    "mine.interval": "0.5s",
    "train.epochs": 10,
    "train.batch_size": 16,
    "train.checkpoint_steps": 10,
    "train.probe_every": 5,
    "eval.exclude": "encounter",
    "scale.workers": 2,
}  # fmt: skip
ELASTIC = {"train.epochs": 40, "scale.min_workers": 1}
"""Long enough for a notice of half a minute, a node less, and another one."""
SEARCH = {"augment.min_crop": [0.3, 0.5], "augment.color_jitter": [0.2, 0.6]}
BUDGET = {"images": 4_800, "images_per_step": 32, "measurements": 6}
NUM_VIDEOS, NUM_LABELLED = 16, 12


class World:
    """A context manager: cluster, server of object storage where it is asked for.

    Args:
        folder: For everything; kept.
        remote: Whether stores lie in object storage, which can be made to fail.

    Attributes:
        cluster: A head without CPUs and two workers of one.
        proxy: Between everyone and object storage; None without.
    """

    def __init__(self, folder: Path, *, remote: bool = False) -> None:
        self.folder, self.media = folder, folder / "reserve" / "media"
        self.cluster = LocalCluster(workers=2, cpus_per_worker=1)
        self.proxy: Any = None
        self._remote, self._stack = remote, contextlib.ExitStack()
        self._own: dict[str, str] = {}

    def __enter__(self) -> World:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._simulate()
        with contextlib.ExitStack() as stack:
            stack.callback(_restore, dict(os.environ))
            own = {
                "PYTHONPATH": str(ROOT),
                "WILDRAY_CACHE": str(self.folder / "cache"),
                # one database for all: MLflow's migration of a fresh one takes longer than a stage here
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            }
            if self._remote:
                from object_storage import FaultyProxy, Server

                server = Server()
                stack.callback(server.close)
                self.proxy = FaultyProxy(server.url)
                stack.callback(self.proxy.close)
                own |= server.environment | {"AWS_ENDPOINT_URL": self.proxy.url}
                os.environ.update(server.environment)  # of this process, which looks past the proxy
            self._own = own
            self._begin()
            stack.callback(lambda: self.cluster.__exit__())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        """Start the cluster; its nodes have what the environment is then."""
        here = dict(os.environ)
        os.environ.update(self._own)
        try:
            self.cluster.__enter__()
        finally:
            _restore(here)

    def lose_cluster(self) -> None:
        """End all nodes at once."""
        for name in ("head", *self.cluster.worker_names()):
            self.cluster.stop_worker(name)

    def new_cluster(self) -> None:
        """Another cluster, at another address, in place of this one."""
        self.cluster.__exit__()
        self.cluster = LocalCluster(workers=2, cpus_per_worker=1)
        self._begin()

    def words(self, kind: str, root: str, *, run: str) -> list[str]:
        """A command: ``pipeline``, ``elastic`` (a longer one whose workers come and go) or ``sweep``."""
        where = ["--store", root, "--address", self.cluster.address, "--json"]
        if kind == "sweep":
            return ["sweep", str(self._sweep_file(run)), *where]
        settings = SETTINGS | (ELASTIC if kind == "elastic" else {})
        options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        data = ["--data", str(self.folder / "reserve" / "labelled" / "metadata.csv")]
        return ["pipeline", str(self.media), "--run", run, *data, *options, *where]

    def start(self, words: list[str], log: Path, *, tracked_in_store: bool = False) -> Command:
        """Start a command; what it prints and logs goes to a file, experiments to the store or all to one database."""
        environment = self.cluster.environ() | self._own
        if tracked_in_store:
            del environment["MLFLOW_TRACKING_URI"]
        return Command(words, log, environment)

    def mend(self) -> None:
        """Two workers again, and no other."""
        for name in self.cluster.worker_names():
            if not self.cluster.is_running(name):
                self.cluster.stop_worker(name)
        while len(self.cluster.worker_names()) < 2:
            self.cluster.start_worker()
        wanted = {"head", *self.cluster.worker_names()}
        end_s = time.monotonic() + 120
        while self.names() != wanted:
            if time.monotonic() > end_s:
                raise TimeoutError(f"nodes {sorted(self.names())}, expected {sorted(wanted)}")
            time.sleep(0.3)

    def names(self) -> set[str]:
        """Names of the nodes that are alive."""
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            return {str(row["node_name"]) for row in self.cluster.nodes()}
        return set()

    def replace_node(self, name: str) -> None:
        """End a node as a machine that is lost; another comes some seconds later."""
        self.cluster.stop_worker(name)
        time.sleep(REPLACED_AFTER_S)
        self.cluster.start_worker()

    def _simulate(self) -> None:
        out = self.folder / "reserve"
        if (out / "labelled" / "metadata.csv").is_file():
            return
        counts = ["--simulate.num-videos", NUM_VIDEOS, "--simulate.labelled-individuals", NUM_LABELLED]
        command = [sys.executable, "-m", "wildray", "simulate", str(out), *map(str, counts), "--simulate.seed", "3"]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)  # nosec B603 # this package

    def _sweep_file(self, name: str) -> Path:
        base: dict[str, dict[str, object]] = {}
        for dotted, value in {**DETECT, **NETWORK, "mine.interval": "0.5s", "train.checkpoint_steps": 10}.items():
            section, _, field = dotted.partition(".")
            base.setdefault(section, {})[field] = value
        base["train"]["method"] = "simclr"
        base["eval"] = {"exclude": ["encounter"]}
        content = {
            "name": name,
            "media": [str(self.media)],
            "data": str(self.folder / "reserve" / "labelled" / "metadata.csv"),
            "base": base,
            "search": SEARCH,
            "budget": BUDGET,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path


class Command:
    """A command that was started.

    Attributes:
        begun_s: When, of ``time.monotonic``.
        process: It.
    """

    def __init__(self, words: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.fault_driver", *words]
        with log.open("ab") as file:
            self._begin = file.tell()
            self.begun_s = time.monotonic()
            self.process = subprocess.Popen(  # nosec B603 # this module
                command, env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self) -> int | None:
        """Its exit status; None where it took too long, and was killed."""
        try:
            return self.process.wait(max(1.0, self.begun_s + COMMAND_S - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def said(self) -> dict[str, Any]:
        """The JSON object that it printed last; empty where there is none."""
        with self._log.open("rb") as file:
            file.seek(self._begin)
            lines = file.read().decode(errors="replace").splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        return {}


def _restore(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)

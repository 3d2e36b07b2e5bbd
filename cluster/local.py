"""A Ray cluster of several nodes on this machine: every node its own processes, as on several machines.

In: how many workers, and how large. Out: ``ray start --head`` and its workers on ports of their own, below a short
temporary folder, with a fresh token in a file for its owner alone; until the block, or Ctrl-C, ends exactly these
processes. The dashboard listens on 127.0.0.1; Ray's other ports on the machine's address, where the token guards them.
With ``autoscale`` it begins without workers, and Ray's own autoscaler starts and ends them. ``ray.cluster_utils`` would
do the same inside one process, without authentication, and its autoscaling cluster begins by ending every Ray on the
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from doors import HOST, free_ports, write_token
from fake_nodes import HEAD_ENVIRONMENT, autoscaling_settings
from node_counts import NodeCounts

START_S, END_S = 120.0, 20.0
"""A machine with other work takes long to start a node; a node that is asked to end has so long before it is killed."""
NODE_ENVIRONMENT = {
    "RAY_raylet_start_wait_time_s": f"{START_S:.0f}",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",  # the head would wait for half a minute to be rid of its work
}
OBJECT_STORE_BYTES = 120 * 2**20
"""Of each node: shared memory of one machine has to do for all of them."""


class LocalCluster:
    """A context manager: the cluster is there inside the block.

    Args:
        workers: Nodes beside the head; with ``autoscale`` none at first.
        cpus_per_worker: CPUs that each says it has.
        labels: Labels of every worker.
        autoscale: Workers that the autoscaler may start, or None: without autoscaler.
        idle_s: Seconds after which the autoscaler ends a worker without work.
        head_cpus: CPUs of the head, which takes no work by default.

    Attributes:
        address: Of the head, for ``--address`` and ``ray.init``.
        dashboard: URL of dashboard and Jobs API.
        client: URL for Ray Client.
        folder: Everything that it writes lies there; goes with the cluster.
        token_file: The token, mode 0600.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        cpus_per_worker: float = 1,
        labels: Mapping[str, str] | None = None,
        autoscale: int | None = None,
        idle_s: float = 20.0,
        head_cpus: float = 0,
    ) -> None:
        self.workers = 0 if autoscale is not None else workers
        self._cpus, self._labels, self._head_cpus = cpus_per_worker, dict(labels or {}), head_cpus
        self._autoscale, self._idle_s = autoscale, idle_s
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}  # by name, the head first
        self._num_begun = 0
        self._ports = free_ports(7)
        self.address = f"{HOST}:{self._ports[0]}"
        self.dashboard = f"http://{HOST}:{self._ports[1]}"
        self.client = f"ray://{HOST}:{self._ports[2]}"
        self.folder = Path()
        self.token_file = Path()

    def __enter__(self) -> LocalCluster:
        # sockets lie below, and the kernel allows their paths 107 characters: not the user's TMPDIR
        self.folder = Path(tempfile.mkdtemp(prefix="wr-", dir="/tmp"))  # nosec B108 # a fresh one
        self.token_file = write_token(self.folder / "token")
        try:
            self._start_head()
            self.wait_for(1)
            for _ in range(self.workers):
                self.start_worker()
            self.wait_for(1 + self.workers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        processes = descendants(self._nodes.values())  # of fake nodes too, which the head's autoscaler has started
        for node in reversed(self._nodes.values()):
            node.terminate()
        _, alive = psutil.wait_procs(processes, timeout=END_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self._nodes.values():
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to reach the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}

    def environ(self, *, token: bool = True) -> dict[str, str]:
        """The environment of a command that uses the cluster, or of one that has no token for it."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        own |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"}  # 'python' is this one
        own |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        return own | (self.environment if token else {})

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as the dashboard tells of them."""
        request = urllib.request.Request(f"{self.dashboard}/api/v0/nodes?detail=1")
        request.add_header("Authorization", f"Bearer {self.token_file.read_text()}")
        with urllib.request.urlopen(request, timeout=10) as answer:  # nosec B310 # http, of this cluster
            rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        return [row for row in rows if row["state"] == "ALIVE"]

    def num_workers(self) -> int:
        """Nodes beside the head that are alive."""
        return sum(not row["is_head_node"] for row in self.nodes())

    def wait_for(self, num_nodes: int, *, within_s: float = START_S) -> None:
        """Wait until there are so many nodes.

        Raises:
            TimeoutError: They do not come; with the last lines that Ray wrote.
        """
        end_s, found = time.monotonic() + within_s, 0
        while time.monotonic() < end_s and all(node.poll() is None for node in self._nodes.values()):
            with contextlib.suppress(urllib.error.URLError, OSError, KeyError, TypeError, ValueError):
                found = len(self.nodes())
                if found == num_nodes:
                    return
            time.sleep(0.3)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
        raise TimeoutError(f"{found} nodes after {within_s:.0f} s, expected {num_nodes}:\n{logs}")

    def wait(self) -> None:
        """Return when a node has ended, which none does by itself."""
        while all(node.poll() is None for node in self._nodes.values()):
            time.sleep(0.5)

    def start_worker(self) -> str:
        """Start one more worker, and return its name; ``wait_for`` waits until it is there."""
        self._num_begun += 1
        name = f"worker{self._num_begun}"
        options = [f"--address={self.address}", f"--num-cpus={self._cpus:g}"]
        if self._labels:
            options.append(f"--labels={','.join(f'{key}={value}' for key, value in self._labels.items())}")
        self._start(name, options, free_ports(4))
        return name

    def stop_worker(self, name: str) -> None:
        """End a worker at once, with all its processes, as a machine that is lost."""
        node = self._nodes.pop(name)
        for process in descendants([node]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()

    def worker_names(self) -> list[str]:
        """Names of the workers that were started and not stopped, the oldest first."""
        return list(self._nodes)[1:]

    def node_id(self, name: str) -> str:
        """Ray's id of a node that is alive; KeyError where there is none of that name."""
        return {str(row["node_name"]): str(row["node_id"]) for row in self.nodes()}[name]

    def is_running(self, name: str) -> bool:
        """Whether a node was not ended by something else."""
        return self._nodes[name].poll() is None

    def processes(self, name: str) -> list[psutil.Process]:
        """All processes of a node: Ray's own, and those that work."""
        return descendants([self._nodes[name]])

    def _start_head(self) -> None:
        gcs, dashboard, client, *agents = self._ports
        options = [
            "--head", f"--port={gcs}", f"--ray-client-server-port={client}", f"--num-cpus={self._head_cpus:g}",
            "--include-dashboard=true", f"--dashboard-host={HOST}", f"--dashboard-port={dashboard}",
        ]  # fmt: skip
        own: Mapping[str, str] = {}
        if self._autoscale is not None:
            options.append(f"--autoscaling-config={self._autoscaling_file(self._autoscale)}")
            paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))  # the provider lies beside this file
            own = {**HEAD_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        self._start("head", options, agents, own)

    def _start(self, name: str, options: Sequence[str], agents: Sequence[int], own: Mapping[str, str] = {}) -> None:
        listen, grpc, environment, metrics = agents
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-name={name}", *options,
            f"--temp-dir={self.folder / name}",  # in one folder, nodes that start together take each other's sockets
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--min-worker-port=0", "--max-worker-port=0",  # any that is free: several nodes share the machine's
            f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}",
            f"--runtime-env-agent-port={environment}", f"--metrics-export-port={metrics}",
        ]  # fmt: skip
        with (self.folder / f"{name}.log").open("wb") as log:
            self._nodes[name] = subprocess.Popen(  # nosec B603 # Ray, of this interpreter
                command,
                env=self.environ() | NODE_ENVIRONMENT | dict(own),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which then ends its nodes in order
                preexec_fn=_end_with_parent,
            )

    def _autoscaling_file(self, max_workers: int) -> Path:
        settings = autoscaling_settings(
            self.address,
            str(self.folder),
            max_workers=max_workers,
            cpus=self._cpus,
            idle_s=self._idle_s,
            head_cpus=self._head_cpus,
            object_store_bytes=OBJECT_STORE_BYTES,
            labels=self._labels,
        )
        path = self.folder / "autoscaling.yaml"
        path.write_text(json.dumps(settings))  # which is YAML
        return path


def descendants(nodes: Iterable[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Processes and all that they have started."""
    found: list[psutil.Process] = []
    for node in nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(node.pid)
            found += [process, *process.children(recursive=True)]
    return found


def _end_with_parent() -> None:
    """Have the kernel end a node whose parent was killed (Linux alone; elsewhere nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def main(argv: Sequence[str] | None = None) -> None:
    """Run a cluster until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="nodes beside the head [%(default)s]")
    parser.add_argument("--cpus-per-worker", type=float, default=1, metavar="N", help="CPUs of each [%(default)s]")
    parser.add_argument("--labels", default="", metavar="KEY=VALUE,...", help="labels of every worker")
    parser.add_argument("--autoscale", type=int, metavar="MAX", help="begin without workers; Ray starts up to MAX")
    parser.add_argument("--idle", type=float, default=60, metavar="S", help="seconds until an idle one ends [60]")
    arguments = parser.parse_args(argv)
    labels = dict(pair.partition("=")[::2] for pair in arguments.labels.split(",") if pair)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has SIGINT ignored in what it starts in the background
        signal.signal(number, signal.default_int_handler)
    cluster = LocalCluster(
        workers=arguments.workers,
        cpus_per_worker=arguments.cpus_per_worker,
        labels=labels,
        autoscale=arguments.autoscale,
        idle_s=arguments.idle,
    )
    with contextlib.suppress(KeyboardInterrupt), cluster:
        for key, value in {**cluster.environment, "RAY_ADDRESS": cluster.address}.items():
            print(f"export {key}={value}")
        print(f"# wildray submit --address {cluster.dashboard}, the dashboard; Ray Client: {cluster.client}")
        print("# Ctrl-C ends it", flush=True)
        counts = NodeCounts(cluster.num_workers, lambda line: print(line, file=sys.stderr, flush=True))
        counts.start()
        cluster.wait()


if __name__ == "__main__":
    main()

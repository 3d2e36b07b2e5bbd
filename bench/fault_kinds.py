"""The faults: when each comes, what it does, and what is to be mended before the command is run again.

In: a scene, a command at work on a cluster. Out: the scene is disturbed. Each fault waits until the store shows that
its stage is under way, and then a random but seeded while longer.
"""

from __future__ import annotations

import contextlib
import random
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.fault_watch import finished
from bench.fault_world import COMMAND_S, Command, World
from wildray.store import Store

NOTICE_S, OUTAGE_S, FROZEN_S = 30, 20.0, 15.0
LATE_S = 45.0
"""From the end of a node that had a notice to the next one: longer than training waits for it."""
SMALL_MB, LARGE_MB = 64, 256
LONGEST_DELAY_S = {"detect": 2.5, "mine": 1.0, "pretrain": 10.0, "sweep": 15.0}
"""After the first thing of the stage that is finished."""
NEXT = {
    "detect": "pairs/*/collection.json",
    "mine": "models/*/config.yaml",
    "pretrain": "models/*/result.json",
    "sweep": "sweeps/*/sweep.json",
}
"""What is there once a stage is over."""


@dataclass
class Scene:
    """A command at work.

    Attributes:
        world: Where.
        root: Of its store.
        stage: That is disturbed.
        command: It.
        rng: Of this run.
        at_s: When the fault came, of ``time.monotonic``.
        told: What was done, for the record.
        in_stage: Whether the fault came while the stage was at work.
    """

    world: World
    root: str
    stage: str
    command: Command
    rng: random.Random
    at_s: float = 0.0
    told: list[str] = field(default_factory=list)
    in_stage: bool = False

    def now(self, what: str) -> None:
        """Note that the fault comes now, and whether the stage is still at work."""
        folder, _, pattern = NEXT[self.stage].partition("/")
        self.in_stage = not [*Store(self.root).path(folder).glob(pattern)]
        self.at_s = time.monotonic()
        self.told.append(what)


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        title: What is said of it.
        stages: That are disturbed, in turn from run to run.
        act: Disturbs; returns when all that belongs to it has happened.
        kind: Of command, as ``World.words`` knows them.
        place: Where the store lies: folder, s3 or tmpfs.
        mend: Called before the command is run again.
    """

    title: str
    stages: tuple[str, ...]
    act: Callable[[Scene], None]
    kind: str = "pipeline"
    place: str = "folder"
    mend: Callable[[Scene], None] = lambda scene: None


def wait_for_stage(scene: Scene) -> bool:
    """Wait until the stage has finished something, and a random while; whether the command is still at work."""
    store, end_s = Store(scene.root), time.monotonic() + COMMAND_S
    seen = False
    while scene.command.running() and time.monotonic() < end_s and not seen:
        with contextlib.suppress(Exception):  # a file may go while the folder is listed
            seen = finished(store, scene.stage) > 0
        time.sleep(0.1)
    time.sleep(scene.rng.uniform(0, LONGEST_DELAY_S[scene.stage]))
    return scene.command.running()


def workers_of(world: World, title: str) -> list[psutil.Process]:
    """Ray's worker processes of the worker nodes whose title begins with a word."""
    found = []
    for name in world.cluster.worker_names():
        for process in world.cluster.processes(name):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                    found.append(process)
    return found


def kill_worker(scene: Scene, title: str) -> None:
    """SIGKILL of one of Ray's worker processes, by the word in its title."""
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s and scene.command.running():
        found = workers_of(scene.world, title)
        if found:
            process = scene.rng.choice(found)
            scene.now(f"killed {' '.join(process.cmdline()).strip()}")
            process.kill()
            return
        time.sleep(0.02)


def kill_node(scene: Scene) -> None:
    """All processes of a worker node, which is replaced."""
    name = scene.rng.choice(scene.world.cluster.worker_names())
    scene.now(f"node {name}")
    scene.world.replace_node(name)


class TrainWorkers(threading.Thread):
    """Counts the processes that train, once a second, until ``stop``.

    Args:
        world: Whose nodes are looked at.

    Attributes:
        counts: Each count that differs from the one before; none while training is starting.
    """

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self.counts: list[int] = []
        self._world, self._over = world, threading.Event()

    def run(self) -> None:
        """Count."""
        while not self._over.wait(1.0):
            with contextlib.suppress(psutil.Error, KeyError, RuntimeError):  # a node is ended meanwhile
                count = len(workers_of(self._world, "RayTrainWorker"))
                if count and self.counts[-1:] != [count]:
                    self.counts.append(count)

    def stop(self) -> None:
        """Count no more."""
        self._over.set()
        self.join()


def drain_node(scene: Scene) -> None:
    """A notice, the end of the node when it is over, and another node, but late: training goes on without."""
    cluster, counted = scene.world.cluster, TrainWorkers(scene.world)
    counted.start()
    name = scene.rng.choice(cluster.worker_names())
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address,
        "--node-id", cluster.node_id(name), "--reason", "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message", "notice", "--deadline-remaining-seconds", str(NOTICE_S),
    ]  # fmt: skip
    scene.now(f"notice for {name}")
    done = subprocess.run(command, env=cluster.environ(), capture_output=True, text=True, timeout=60, check=False)  # nosec B603 # Ray
    scene.told.append(f"drain-node: {done.returncode}")
    time.sleep(max(0.0, scene.at_s + NOTICE_S - time.monotonic()))
    cluster.stop_worker(name)
    time.sleep(LATE_S)
    scene.told.append(f"{name} ended, {cluster.start_worker()} comes")
    scene.command.wait()
    counted.stop()
    scene.told.append(f"workers that trained: {', '.join(map(str, counted.counts))}")


def kill_driver(scene: Scene) -> None:
    """SIGKILL of the command itself."""
    scene.now("driver")
    scene.command.process.kill()


def lose_head(scene: Scene) -> None:
    """The machine of the head, on which the command runs too; the workers end with it."""
    scene.now("head and command")
    scene.command.process.kill()
    scene.world.lose_cluster()


def fail_storage(scene: Scene) -> None:
    """Every request is answered with 503 for a while."""
    proxy = scene.world.proxy
    before = proxy.num_refused
    scene.now(f"503 for {OUTAGE_S:.0f} s")
    proxy.failing.set()
    time.sleep(OUTAGE_S)
    proxy.failing.clear()
    scene.told.append(f"{proxy.num_refused - before} requests refused")


def fill_disk(scene: Scene) -> None:
    """Not a byte is left on the file system of the store."""
    scene.now("disk full")
    with contextlib.suppress(OSError), (Path(scene.root).parent / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def enlarge_disk(scene: Scene) -> None:
    """The same file system, with room."""
    mount = Path(scene.root).parent
    subprocess.run(["/bin/mount", "-o", f"remount,size={LARGE_MB}m", str(mount)], check=True)  # nosec B603 # our own


def freeze_node(scene: Scene) -> None:
    """SIGSTOP of all processes of a node, SIGCONT some seconds later."""
    name = scene.rng.choice(scene.world.cluster.worker_names())
    frozen = scene.world.cluster.processes(name)
    scene.now(f"node {name} stands for {FROZEN_S:.0f} s")
    for process in frozen:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    time.sleep(FROZEN_S)
    for process in frozen:
        with contextlib.suppress(psutil.Error):
            process.resume()


FAULTS = {
    "data-worker": Fault(
        "a Ray Data worker killed in detect", ("detect",), lambda scene: kill_worker(scene, "MapBatches")
    ),
    "train-worker": Fault(
        "a Ray Train worker killed in pretrain", ("pretrain",), lambda scene: kill_worker(scene, "RayTrainWorker")
    ),
    "node-detect": Fault("a node lost in detect", ("detect",), kill_node),
    "node-mine": Fault("a node lost in mine", ("mine",), kill_node),
    "node-pretrain": Fault("a node lost in pretrain", ("pretrain",), kill_node),
    "node-sweep": Fault("a node lost in the sweep", ("sweep",), kill_node, kind="sweep"),
    "drain": Fault(
        f"a node with a notice of {NOTICE_S} s in pretrain, with scale.min_workers 1",
        ("pretrain",),
        drain_node,
        kind="elastic",
    ),
    "driver": Fault("the driver killed, the same command again", ("detect", "mine", "pretrain"), kill_driver),
    "storage": Fault(
        f"object storage that answers 503 for {OUTAGE_S:.0f} s", ("detect", "pretrain"), fail_storage, place="s3"
    ),
    "disk": Fault(
        "the disk full, then a larger one", ("detect", "mine", "pretrain"), fill_disk, place="tmpfs", mend=enlarge_disk
    ),
    "head": Fault(
        "the head's machine lost, the same command on a new cluster",
        ("pretrain", "detect", "mine"),
        lose_head,
        mend=lambda scene: scene.world.new_cluster(),
    ),
    "slow": Fault(f"a node that stands still for {FROZEN_S:.0f} s", ("detect", "pretrain"), freeze_node),
}
"""By the names that ``--only`` takes."""

"""The fault table: what is lost, done twice and changed by each fault, on a cluster of three nodes on this machine.

    python -m bench.faults [--only NAME,...] [--times 3] [--work FOLDER] [--results FILE] [--out docs/faults.md]

In: nothing. Out: a line of JSON for each run as it ends, in a file from which the study goes on when it was stopped; a
page. A run is a whole pipeline, or a sweep of four trials, that is disturbed once; its store is compared with that of
an undisturbed one, row by row and bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess  # nosec B404 # lists of arguments, never a shell
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.fault_kinds import FAULTS, SMALL_MB, Fault, Scene, wait_for_stage
from bench.fault_page import page
from bench.fault_rows import drifted, history_of, judge, snapshot
from bench.fault_watch import Watch
from bench.fault_world import Command, World
from bench.record import commit, machine

MOST_STARTS = 4
"""Of the command, in all: one that still fails does not come to an end by itself."""

MOST_ATTEMPTS = 3
"""At a run: the fault may come when the stage is over already, which says nothing of it."""


def reference(world: World, kind: str) -> dict[str, Any]:
    """The undisturbed command of a kind: its store and its seconds, made once."""
    folder = world.folder / f"undisturbed-{kind}"
    facts = folder / "facts.json"
    if not facts.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        root, run = str(folder / "store"), f"undisturbed-{kind}"
        watch = Watch(root, world.media)
        watch.start()
        command = world.start(world.words(kind, root, run=run), folder / "log")
        status = command.wait()
        seconds = time.monotonic() - command.begun_s
        watch.stop()
        if status != 0:
            raise RuntimeError(f"the undisturbed {kind} ended with {status}: see {folder / 'log'}")
        found = {"root": root, "run": run, "seconds": seconds, "repeated": watch.repeated(), "said": command.said()}
        facts.write_text(json.dumps(found))
    known: dict[str, Any] = json.loads(facts.read_text())
    return known


def try_once(world: World, name: str, number: int, attempt: int = 0) -> dict[str, Any]:
    """One run with one fault; returns its record. Another attempt has another delay."""
    fault = FAULTS[name]
    known = reference(world, fault.kind)
    world.mend()
    stage = fault.stages[number % len(fault.stages)]
    run = f"{name}-{number}"
    root, log = _place(world, fault, run), world.folder / "logs" / f"{run}.log"
    log.unlink(missing_ok=True)
    watch = Watch(root, world.media)
    watch.start()

    def start() -> Command:
        words = world.words(fault.kind, root, run=run)  # of the cluster that there is
        return world.start(words, log, tracked_in_store=fault.place == "tmpfs")

    scene = Scene(world, root, stage, start(), random.Random(f"{name} {number} {attempt}"))  # nosec B311
    try:
        if wait_for_stage(scene):
            fault.act(scene)
        starts = _to_the_end(scene, fault, start)
        watch.stop()
        record = {
            "fault": name,
            "number": number,
            "stage": stage,
            "told": scene.told,
            "came": scene.in_stage,
            "starts": starts,
            "seconds": round(sum(start["seconds"] for start in starts), 1),
            "undisturbed_s": round(known["seconds"], 1),
            "standstill_s": watch.standstill(stage, scene.at_s),
            "repeated": watch.repeated(),
            "commit": commit(),
            "machine": machine(),
            "load": round(os.getloadavg()[0], 1),
        }
        if starts[-1]["status"] == 0:
            model = {"sweep": run} if fault.kind == "sweep" else {"run": run}
            former = {"sweep": known["run"]} if fault.kind == "sweep" else {"run": known["run"]}
            record |= judge(snapshot(known["root"], **former), snapshot(root, **model))
            if record.get("weights_equal") is False:
                scene.told.append(drifted(history_of(known["root"], known["run"]), history_of(root, run)))
        return record
    finally:
        watch.stop()
        if scene.command.running():
            scene.command.process.kill()
        if fault.place == "tmpfs":
            subprocess.run(["/bin/umount", "-l", str(Path(root).parent)], check=False)  # nosec B603 # our own


def _to_the_end(scene: Scene, fault: Fault, start: Callable[[], Command]) -> list[dict[str, Any]]:
    """Wait for the command, and run it again while it fails; how each start ended."""
    starts: list[dict[str, Any]] = []
    while True:
        status = scene.command.wait()
        said = scene.command.said()
        starts.append(
            {
                "status": status,
                "seconds": round(time.monotonic() - scene.command.begun_s, 1),
                "error": str(said.get("error", ""))[:600] if status else "",
                "kind": said.get("kind", "") if status else "",
            }
        )
        if status == 0 or len(starts) == MOST_STARTS:
            return starts
        fault.mend(scene)
        scene.command = start()


def _place(world: World, fault: Fault, run: str) -> str:
    if fault.place == "s3":
        from object_storage import BUCKET

        return f"s3://{BUCKET}/{run}-{time.time_ns()}"
    folder = world.folder / "runs" / run
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if fault.place == "tmpfs":
        subprocess.run(  # nosec B603 # our own folder
            ["/bin/mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", str(folder)], check=True
        )
    return str(folder / "store")


def study(names: Sequence[str], *, times: int, folder: Path, results: Path) -> None:
    """Do the runs that the results lack, fault by fault, each with a cluster of its own."""
    done = {(record["fault"], record["number"]) for record in read(results)}
    for name in names:
        left = [number for number in range(times) if (name, number) not in done]
        if not left:
            continue
        with World(folder, remote=FAULTS[name].place == "s3") as world:
            for number in left:
                for attempt in range(MOST_ATTEMPTS):
                    record = try_once(world, name, number, attempt)
                    if record["came"]:
                        break
                with results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(json.dumps(record), flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """The records of the runs that have ended; of a run that was done again, the last."""
    lines = results.read_text().splitlines() if results.is_file() else []
    found = {(record["fault"], record["number"]): record for record in map(json.loads, lines)}
    return list(found.values())


def main() -> None:
    """Try, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(FAULTS), help="names of faults, with commas [all]")
    parser.add_argument("--times", type=int, default=3, help="runs of each [%(default)s]")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "wildray-faults", help="folder")
    parser.add_argument("--results", type=Path, help="file of the runs that have ended [results.jsonl in the folder]")
    parser.add_argument("--out", type=Path, help="page to write")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        parser.error(f"no fault is called {unknown[0]!r}; there are {', '.join(FAULTS)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = arguments.results or arguments.work / "results.jsonl"
    study(names, times=arguments.times, folder=arguments.work.absolute(), results=results)
    text = page(read(results))
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

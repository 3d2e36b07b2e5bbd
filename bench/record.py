"""Finished runs as a Markdown table that is read back, so that a bench goes on from it on another machine.

In: results by name. Out: a page with a row for each run, and the same results from such a page. A run takes ten minutes
of a core, and its weights and logs stay where they were made: what a bench's page is made of fits into a line.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess  # nosec B404 # lists of arguments, never a shell
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Result = dict[str, Any]
Results = Mapping[str, Result]

HEADER = ("run", "seed", "commit", "machine", "error", "figures", "mAP of each held-out individual x its queries")
TEXTS = ("commit", "machine", "error")
NESTED = {
    "before": re.compile(r"(\w*mAP|rank)"),
    "after": re.compile(r"(\w*mAP|rank|dims|(chance_)?cmc_[15](_low|_high)?)"),
    "gain": re.compile(r"\w+"),
}
"""Parts of a result, and which of their figures are kept: those that pages show."""
LEFT_OUT = {"name", "seed", "config", "individuals", *TEXTS}


def commit() -> str:
    """Short hash of the checkout, with a plus where the package's code was changed since; ``unknown`` outside one."""
    root = Path(__file__).parent.parent
    ask = ["git", "-C", str(root)]
    try:
        name = _run([*ask, "rev-parse", "--short", "HEAD"], check=True)
        changed = _run([*ask, "diff", "--quiet", "HEAD", "--", "wildray"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changed.returncode else "")


def _run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=check)  # nosec B603 # git, of this checkout


def machine() -> str:
    """The GPU where there is one, else the processor and what torch makes of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.backends.cpu.get_cpu_capability()}"


def read_results(folder: Path) -> dict[str, Result]:
    """What is finished, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("[!.]*.json"))}


def page_of_runs(results: Results, *, bench: str) -> str:
    """The table of all runs as Markdown."""
    rows = [HEADER, ["---"] * len(HEADER), *(_row(name, result) for name, result in sorted(results.items()))]
    return (
        f"# Runs of bench.{bench}\n\nEvery finished run, as `python -m bench.{bench} --table docs/{bench}.md` left it. "
        "That command reads this page and does what is missing in it; take out a row, and its run is done again.\n\n"
        + "\n".join("| " + " | ".join(row) + " |" for row in rows)
        + "\n"
    )


def runs_of_page(text: str) -> dict[str, Result]:
    """The results that a page of runs holds, by name.

    Raises:
        ValueError: A row is not as ``page_of_runs`` writes it.
    """
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[0] not in (HEADER[0], "---"):
            if len(cells) != len(HEADER):
                raise ValueError(f"got {len(cells)} cells in a row of runs, expected {len(HEADER)}: {line[:80]}")
            found[cells[0]] = _result(cells)
    return found


def restore(page: Path, folder: Path) -> int:
    """Put runs of a page into a folder of results that has them not; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    recorded = runs_of_page(page.read_text()) if page.is_file() else {}
    missing = {name: result for name, result in recorded.items() if not (folder / f"{name}.json").is_file()}
    for name, result in missing.items():
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1))
    return len(missing)


def _row(name: str, result: Result) -> list[str]:
    figures = {key: value for key, value in result.items() if key not in {*LEFT_OUT, *NESTED}}
    for part, kept in NESTED.items():
        figures |= {f"{part}.{key}": value for key, value in result.get(part, {}).items() if kept.fullmatch(key)}
    told = " ".join(f"{key}={value if isinstance(value, int) else f'{value:.5g}'}" for key, value in figures.items())
    individuals = " ".join(f"{mean:.4f}x{num}" for mean, num in result.get("individuals", []))
    texts = {key: str(result.get(key) or "").replace("|", "/").replace("\n", " ") for key in TEXTS}
    return [name, str(result["seed"]), *texts.values(), told, individuals]


def _result(cells: list[str]) -> Result:
    name, seed, commit, of_machine, error, told, individuals = cells
    result: Result = {"name": name, "seed": int(seed), "commit": commit, "machine": of_machine, "error": error or None}
    for part in told.split():
        key, _, value = part.partition("=")
        outer, dot, inner = key.partition(".")
        number = float(value) if any(sign in value for sign in ".en") else int(value)
        if dot:
            result.setdefault(outer, {})[inner] = float(number)
        else:
            result[key] = number
    if individuals:
        pairs = (part.split("x") for part in individuals.split())
        result["individuals"] = [[float(mean), int(num)] for mean, num in pairs]
    return result

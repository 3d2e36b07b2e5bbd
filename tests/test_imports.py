"""Imports run one way only, and the heavy libraries stand only behind their doors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"schema", "errors", "units", "remote", "refusals", "nodes", "lease", "progress", "bootstrap"},
    {
        *(
            "store",
            "collection",
            "packs",
            "config",
            "weights",
            "libraries",
            "metadata",
            "photos",
            "labelled",
            "vectors",
            "trials",
            "verdicts",
        ),
        *("runlog", "run_entries", "spool", "tracking"),
    },
    {"mining", "learning", "report", "simulate", "doctor"},
    {"retrieval"},
    {"served_model", "model_log"},
    {"sweep"},
    {"cli"},
    {"__main__"},
    {"jobs", "tuning", "bench", "cluster"},
]
DOORS = {
    "ray": {
        "wildray/mining/detect.py",
        "wildray/mining/mine.py",
        "wildray/mining/scan.py",
        "wildray/learning/attempts.py",
        "wildray/learning/entry.py",
        "wildray/learning/train.py",
        "wildray/learning/worker.py",
        "wildray/learning/ray_ingest.py",
        "wildray/retrieval/embed.py",
        "wildray/sweep/pair_quality/study.py",
        "wildray/sweep/search.py",
        "wildray/sweep/stage.py",
        "wildray/sweep/trial.py",
        "wildray/sweep/tuner.py",
    },
    "mlflow": {"wildray/runlog.py", "wildray/run_entries.py", "wildray/model_log.py", "wildray/served_model.py"},
    "faiss": {"wildray/retrieval/index.py"},
}
FREE_FOLDERS = {"ray": ("wildray/cli/", "jobs/", "cluster/", "bench/")}


def sources() -> list[Path]:
    return [
        path for folder in ("wildray", "jobs", "bench", "cluster") for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def imported(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(relative: str) -> str | None:
    """The part of the project a file or module belongs to; None for wildray itself."""
    pieces = relative.removesuffix(".py").replace("/", ".").split(".")
    if pieces[0] != "wildray":
        return pieces[0]
    return pieces[1] if len(pieces) > 1 and pieces[1] != "__init__" else None


def floor(part: str) -> int:
    for number, parts in enumerate(FLOORS):
        if part in parts:
            return number
    raise AssertionError(f"{part} has no floor: give it one here")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    own = part_of(str(path.relative_to(ROOT)))
    if own is None:
        return
    for module in imported(path):
        if not module.startswith("wildray."):
            continue
        other = part_of(module)
        if other is None or other == own or other == "__version__":
            continue
        assert floor(other) <= floor(own), f"{own} imports {module} from a higher floor"
        if floor(other) == floor(own) and floor(own) >= 2:
            raise AssertionError(f"{own} imports {module}: parts of one floor do not know each other")


@pytest.mark.parametrize("library", sorted(DOORS))
def test_heavy_libraries_stay_behind_their_doors(library):
    for path in sources():
        relative = str(path.relative_to(ROOT))
        if relative in DOORS[library] or relative.startswith(FREE_FOLDERS.get(library, ("\0",))):
            continue
        tops = {name.partition(".")[0] for name in imported(path)}
        assert library not in tops, f"{relative} imports {library}"


def test_the_floor_is_light():
    """The rows and the configuration import in a moment, since every worker does."""
    import subprocess
    import sys

    code = "import sys, wildray.config, wildray.schema, wildray.errors, wildray.store; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'ray'", "'mlflow'", "'matplotlib'", "'cv2'"):
        assert heavy not in loaded, f"{heavy} is imported by the floor"

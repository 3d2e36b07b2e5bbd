"""The libraries that wildray stands on: which are there, and whether they load.

In: nothing. Out: a ``Check`` for each. Each is loaded in a process of its own: one that crashes on loading (a wrong
build, a missing driver) is then a line of a table and not the end of the caller; and nothing heavy is imported here.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PROBE_TIMEOUT_S = 180.0
GIB = 1024**3
CODECS = ("h264", "hevc", "mpeg4", "msmpeg4", "mjpeg", "wmv2")
"""What camera traps write."""


_PROBES = {
    "torch": """
import json, torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)  # fails where the two builds do not go together
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__, "nms": len(kept),
    "cuda": torch.version.cuda, "devices": [[d.name, d.total_memory] for d in devices],
    "mps": torch.backends.mps.is_available()}))""",
    "av": """
import json, av
libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
print(json.dumps({"av": av.__version__, "libraries": libraries,
    "codecs": sorted(av.codecs_available)}))""",
    "cv2": """
import json, cv2
print(json.dumps({"cv2": cv2.__version__}))""",
    "onnxruntime": """
import json, onnxruntime
print(json.dumps({"onnxruntime": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}))""",
    "faiss": """
import json, faiss
gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
print(json.dumps({"faiss": faiss.__version__, "gpus": gpus}))""",
}

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: ok; warn: works, but not as well as it could; missing: a stage will fail.
        found: What was found.
        mend: What to do; empty where nothing needs doing.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def check_libraries() -> list[Check]:
    """Load them all."""
    with ThreadPoolExecutor(2) as pool:
        probed = dict(zip(_PROBES, pool.map(_probe, _PROBES.values()), strict=True))
    return [
        *_torch(probed["torch"]),
        *(check_package(name) for name in ("ray", "timm", "lightly", "mlflow", "pyarrow")),
        _faiss(probed["faiss"]),
        *_media(probed["av"], probed["cv2"]),
        _onnxruntime(probed["onnxruntime"]),
    ]


def version_of(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_command(*packages: str) -> str:
    """The command that installs packages in the versions that wildray asks for."""
    return " ".join([sys.executable, "-m pip install", *(f"'{_required(package)}'" for package in packages)])


def _required(package: str) -> str:
    try:
        declared = importlib.metadata.requires("wildray") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    wanted = (text.partition(";")[0].strip() for text in declared)
    return next((text for text in wanted if re.split(r"[\[<>=!~ ]", text)[0] == package), package)


def check_package(name: str) -> Check:
    """Whether a package is installed, without loading it."""
    version = version_of(name)
    return Check(name, "ok", version) if version else Check(name, "missing", "not installed", pip_command(name))


def _probe(code: str) -> dict[str, Any]:
    """What a piece of Python printed as JSON; ``{"error": ...}`` where it failed."""
    try:
        done = subprocess.run(  # nosec B603 # code of this module, by this interpreter
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not load within {PROBE_TIMEOUT_S:.0f} s"}
    if done.returncode == 0 and done.stdout.strip():
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return {"error": said[-1] if said else f"ended with status {done.returncode} while loading"}


def _torch(probed: Mapping[str, Any]) -> list[Check]:
    mend = pip_command("torch", "torchvision")
    if "error" in probed:
        versions = f"torch {version_of('torch')}, torchvision {version_of('torchvision')}"
        return [Check("torch, torchvision", "missing", f"{versions}: {probed['error']}", f"Install the pair: {mend}")]
    pair = Check("torch, torchvision", "ok", f"{probed['torch']}, {probed['torchvision']}")
    devices = [f"{name} ({memory / GIB:.0f} GiB)" for name, memory in probed["devices"]]
    if devices:
        return [pair, Check("accelerators", "ok", f"{len(devices)}: {', '.join(devices)}, CUDA {probed['cuda']}")]
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        return [
            pair,
            Check(
                "accelerators",
                "warn",
                f"a GPU that torch (CUDA {probed['cuda']}) cannot use",
                f"Run nvidia-smi: its driver must support CUDA {probed['cuda'] or '12 or newer'}; else update it.",
            ),
        ]
    return [pair, Check("accelerators", "ok", "none: everything runs on the CPU")]


def _faiss(probed: Mapping[str, Any]) -> Check:
    kinds = [name for name in ("faiss-cpu", "faiss-gpu") if version_of(name)]
    if len(kinds) == 2:
        mend = (
            f"{sys.executable} -m pip uninstall -y faiss-cpu faiss-gpu; then {pip_command('faiss-cpu')} (or faiss-gpu)"
        )
        return Check("faiss", "warn", "faiss-cpu and faiss-gpu in one folder: one overwrote the other", mend)
    if "error" in probed:
        return Check("faiss", "missing", str(probed["error"]), pip_command("faiss-cpu"))
    kind = kinds[0] if kinds else "of another source"
    return Check("faiss", "ok", f"{probed['faiss']} ({kind}), {probed['gpus']} GPUs")


def _media(av: Mapping[str, Any], cv2: Mapping[str, Any]) -> list[Check]:
    checks = []
    if "error" in av:
        checks.append(Check("video (PyAV)", "missing", str(av["error"]), pip_command("av")))
    else:
        lacking = [codec for codec in CODECS if codec not in av["codecs"]]
        found = f"{av['av']}, libavcodec {av['libraries'].get('libavcodec')}, "
        if lacking:
            mend = f"The wheel has all: {pip_command('av')} --force-reinstall --only-binary av"
            checks.append(Check("video (PyAV)", "warn", f"{found}without {', '.join(lacking)}", mend))
        else:
            checks.append(Check("video (PyAV)", "ok", f"{found}decodes {', '.join(CODECS)}"))
    if "error" in cv2:
        mend = f"{pip_command('opencv-python-headless')} (opencv-python needs libGL, the headless one does not)"
        return [*checks, Check("OpenCV", "missing", str(cv2["error"]), mend)]
    return [*checks, Check("OpenCV", "ok", str(cv2["cv2"]))]


def _onnxruntime(probed: Mapping[str, Any]) -> Check:
    if "error" in probed:
        return Check("onnxruntime", "missing", str(probed["error"]), pip_command("onnxruntime"))
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in probed["providers"])
    return Check("onnxruntime", "ok", f"{probed['onnxruntime']}, runs on {providers}")

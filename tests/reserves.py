"""Small simulated reserves, made through the command."""

import subprocess
import sys
from pathlib import Path


def simulated(out: Path, *, videos: int, labelled: int) -> Path:
    """Footage and labelled images of a few animals; returns their folder."""
    counts = ["--simulate.num-videos", str(videos), "--simulate.labelled-individuals", str(labelled)]
    command = [sys.executable, "-m", "wildray", "simulate", str(out), *counts, "--simulate.seed", "3"]
    subprocess.run(command, check=True)
    return out

"""What a cluster on one machine listens on, and what guards it: free ports, a token for its owner alone.

In: how many ports; where the token goes. Out: numbers, a file. Ray's own default ports are one cluster's.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Above the ports that Ray's workers take by default, below those that Linux gives to outgoing connections."""


def write_token(path: Path) -> Path:
    """A fresh token in a file that nobody else can read at any moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def free_ports(num: int) -> list[int]:
    """Different ports that nobody listens on."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == num:
            return found
    raise OSError(f"{len(found)} of the ports {PORTS.start} to {PORTS.stop - 1} are free, {num} are needed.")

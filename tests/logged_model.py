"""A backbone logged and registered in MLflow beside the vectors of embed, and MLflow's servers, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wildray.config import Config
from wildray.learning.first_backbone import load_backbone
from wildray.model_log import LoggedModel, log_model, register_model
from wildray.retrieval.embed import embed, read_embeddings
from wildray.runlog import default_uri, open_run, prepare
from wildray.store import Store
from wildray.tracking import ENVIRONMENT

NAME = "reserve"
TOLERANCE = 1e-5
CONFIG = Config.load(
    overrides={"backbone.name": "test_resnet", "backbone.image_size": 32, "scale.use_gpu": False}
    | {"detect.crop_longest_px": 90, "detect.crop_padding": 0.2}
)


@dataclass(frozen=True)
class Logged:
    """A registered model, a request to it, and the vectors that embed gave for the same images."""

    store: Store
    uri: str
    run_id: str
    model: LoggedModel
    request: pd.DataFrame
    vectors: np.ndarray

    @property
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self.uri)

    @property
    def weights(self) -> Path:
        return self.store.path("models", "trial", "backbone.safetensors")

    def load(self) -> Any:
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(f"models:/{NAME}@best")

    def log(self, uri: str | None = None, config: Config = CONFIG) -> LoggedModel | None:
        return log_model(uri or self.uri, self.run_id, self.weights, run_name="trial", detect=config.detect)


def labelled_images(folder: Path) -> Path:
    """A metadata CSV of a PNG, a JPEG with a box, a photo of a camera held on its side, one larger than crops are."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image_id,identity,path,bbox"]
    for number, (name, width, height, bbox) in enumerate(
        [("a.png", 50, 40, ""), ("b.jpg", 64, 64, '"[10, 5, 40, 30]"'), ("c.jpg", 80, 30, ""), ("d.png", 301, 205, "")]
    ):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        exif = Image.Exif()
        if name == "c.jpg":
            exif[0x0112] = 6
        image.save(folder / name, exif=exif)
        rows.append(f"i{number},{number},{name},{bbox}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder / "metadata.csv"


def request_of(metadata: Path) -> pd.DataFrame:
    table = pd.read_csv(metadata)
    table["image"] = [(metadata.parent / name).read_bytes() for name in table["path"]]
    return table[["image", "bbox"]]


@contextlib.contextmanager
def logged_model(folder: Path) -> Iterator[Logged]:
    """Makes a store, embeds images, logs and registers; MLflow's tracking URI is that store's for the block."""
    store = Store.open(folder / "store", create=True)
    store.path("models", "trial").mkdir(parents=True)
    weights = store.path("models", "trial", "backbone.safetensors")
    load_backbone(CONFIG.backbone, seed=3).save(weights)
    metadata = labelled_images(folder / "data")
    _, vectors = read_embeddings(store, embed(CONFIG, store, run="trial", data=str(metadata)).digest)
    uri = default_uri(store.root)
    prepare(uri)
    with open_run(uri, "reserve", "trial", {}) as run, pytest.MonkeyPatch.context() as patch:
        assert run.run_id is not None
        patch.chdir(folder)
        model = log_model(uri, run.run_id, weights, run_name="trial", detect=CONFIG.detect)
        assert model is not None
        assert register_model(uri, model, NAME) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["data", "store"]  # no mlflow.db, no mlruns
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield Logged(store, uri, run.run_id, model, request_of(metadata), vectors)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer in {seconds} s")


@contextlib.contextmanager
def mlflow_servers() -> Iterator[Callable[..., str]]:
    """Gives a function that starts ``mlflow ...`` and returns its URL when it answers; all end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, uri: str = "", allowed: bool = False) -> str:
        port = free_port()
        hosts = ["--allowed-hosts", f"127.0.0.1:{port}"] if allowed else []
        environment = {**ENVIRONMENT, **os.environ, "MLFLOW_TRACKING_URI": uri}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        command = [sys.executable, "-m", "mlflow", *words, *hosts, "--host", "127.0.0.1", "--port", str(port)]
        started.append(subprocess.Popen(command, env=environment, start_new_session=True))
        wait_for(f"http://127.0.0.1:{port}/health", started[-1])
        return f"http://127.0.0.1:{port}"

    try:
        yield start
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)

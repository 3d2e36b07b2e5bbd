"""A registered model gives the vectors of embed, whoever asks it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from logged_model import NAME, TOLERANCE, Logged, logged_model, mlflow_servers


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    with logged_model(tmp_path_factory.mktemp("logged")) as made:
        yield made


@pytest.fixture(scope="module")
def loaded(logged: Logged) -> Any:
    return logged.load()


def as_json(request: pd.DataFrame) -> str:
    rows = [
        {"image": base64.b64encode(image).decode(), "bbox": bbox if isinstance(bbox, str) else None}
        for image, bbox in zip(request["image"], request["bbox"], strict=True)
    ]
    return json.dumps({"dataframe_records": rows})


def test_the_registered_model_gives_the_vectors_of_embed(logged: Logged, loaded: Any) -> None:
    vectors = loaded.predict(logged.request)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, logged.vectors, atol=TOLERANCE)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert distances[~np.eye(len(vectors), dtype=bool)].min() > 100 * TOLERANCE  # it sees the images


def test_boxes_may_be_left_out(logged: Logged, loaded: Any) -> None:
    whole = loaded.predict(logged.request[["image"]])
    np.testing.assert_allclose(whole[[0, 2, 3]], logged.vectors[[0, 2, 3]], atol=TOLERANCE)
    assert np.abs(whole[1] - logged.vectors[1]).max() > 100 * TOLERANCE


def test_many_images_are_embedded_in_parts(logged: Logged, loaded: Any) -> None:
    many = pd.concat([logged.request] * 9, ignore_index=True)
    np.testing.assert_allclose(loaded.predict(many), np.tile(logged.vectors, (9, 1)), atol=TOLERANCE)
    assert loaded.predict(many[:0]).shape == (0, logged.vectors.shape[1])


def test_the_scoring_server_gives_the_vectors_of_embed(logged: Logged, loaded: Any) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # it sets that for good
        client = TestClient(init(loaded))
        json_type = {"content-type": "application/json"}
        answer = client.post("/invocations", content=as_json(logged.request), headers=json_type)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["predictions"], logged.vectors, atol=TOLERANCE)
        broken = logged.request.assign(image=b"no image")
        refused = client.post("/invocations", content=as_json(broken), headers=json_type)
        assert refused.status_code == 400
        assert "image 0: the image cannot be read" in refused.json()["message"]


def test_the_input_example_is_what_the_model_takes(loaded: Any) -> None:
    assert list(loaded.input_example) == ["image"]
    assert loaded.predict(loaded.input_example).shape == (1, loaded.metadata.metadata["dim"])
    assert loaded.metadata.get_input_schema().input_names() == ["image", "bbox"]


@pytest.mark.parametrize(
    ("image", "bbox", "message"),
    [
        (b"", None, "image 1: the image cannot be read"),
        (b"\xff\xd8\xff\xe0 cut short", None, "image 1: the image cannot be read"),
        (None, None, "image 1: got NoneType, expected the bytes"),
        ("whole", "[900, 0, 10, 10]", "image 1: bbox: got .* outside the image of 50x40"),
        ("whole", "[1, 2]", "image 1: bbox: got .* expected"),
    ],
)
def test_what_is_no_image_is_named(logged: Logged, loaded: Any, image: object, bbox: str | None, message: str) -> None:
    from mlflow.exceptions import MlflowException

    whole = logged.request["image"][0]
    request = pd.DataFrame({"image": [whole, whole if image == "whole" else image], "bbox": [None, bbox]})
    with pytest.raises(MlflowException, match=message):
        loaded.predict(request)


@pytest.mark.slow
def test_mlflow_serves_the_vectors_of_embed(logged: Logged) -> None:
    words = ("models", "serve", "--model-uri", f"models:/{NAME}@best", "--env-manager", "local")
    with mlflow_servers() as start:
        call = urllib.request.Request(
            f"{start(*words, uri=logged.uri)}/invocations",
            data=as_json(logged.request).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(call, timeout=60) as answer:
            served = np.array(json.load(answer)["predictions"])
    print(f"largest difference: {np.abs(served - logged.vectors).max():.2e}")
    np.testing.assert_allclose(served, logged.vectors, atol=TOLERANCE)


@pytest.mark.slow
def test_it_loads_without_ray(logged: Logged) -> None:
    code = (
        "import sys, mlflow.pyfunc;"
        f"model = mlflow.pyfunc.load_model('models:/{NAME}@best'); model.predict(model.input_example);"
        "sys.exit('ray' in sys.modules)"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": logged.uri}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0

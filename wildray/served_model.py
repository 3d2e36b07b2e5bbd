"""What MLflow runs to load and serve a backbone: a model from code, with safetensors beside it.

In: a table with the column ``image``, the bytes of JPEG or PNG files, and, where only a part of each shows the animal,
``bbox`` as in a metadata CSV; over REST as ``dataframe_records`` or ``dataframe_split``, with the bytes in base64 (that
is decoded in these two alone). Out: (N, D) float32 unit vectors, those of ``wildray embed``, since each image goes
the same way: cut, scaled down and encoded as an import does it, decoded and forwarded as embed does it.
``wildray.model_log`` logs this file with a run. A pickled model would run whatever code stands in its file, and would
load with one version of every library alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from wildray.config import Config
from wildray.errors import WildrayError
from wildray.learning.first_backbone import open_backbone
from wildray.photos import crop_jpeg
from wildray.retrieval.forward import Float32, load_image, unit_vectors
from wildray.retrieval.models import device_of

BATCH_SIZE = 32
"""Images that are decoded and forwarded at once, however many are asked for."""


class Embedder(PythonModel):
    """Embeds images with the backbone in the artefact ``backbone``.

    The model's configuration says ``crop_padding`` and ``crop_longest_px``, what ``detect`` had as the run was made.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the backbone; called once by MLflow as it loads the model."""
        settings = context.model_config
        self._padding, self._longest_px = float(settings["crop_padding"]), int(settings["crop_longest_px"])
        backbone = open_backbone(Path(context.artifacts["backbone"]))
        self._backbone = backbone.eval().requires_grad_(False).to(device_of(Config()))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Float32:
        """Embed images.

        Args:
            context: Of MLflow; not used.
            model_input: A row per image: ``image``, bytes of a JPEG, PNG, BMP, TIFF or WebP file; optionally ``bbox``,
                text of [x, y, width, height] in pixels of the upright image, empty or missing for the whole image.
            params: Of MLflow; none are known.

        Returns:
            (N, D) float32 of unit norm.

        Raises:
            MlflowException: An image or box is none, or the backbone gives values that are not finite.
        """
        images = model_input["image"].tolist()
        boxes = model_input["bbox"].tolist() if "bbox" in model_input else [None] * len(images)
        size = self._backbone.image_size
        parts = [np.empty((0, self._backbone.dim), dtype=np.float32)]
        for start in range(0, len(images), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(images)))
            jpegs = [self._jpeg(row, images[row], boxes[row]) for row in rows]
            batch = np.stack([load_image(jpeg, image_size=size) for jpeg in jpegs])
            try:
                parts.append(unit_vectors(self._backbone, batch, batch_size=BATCH_SIZE))
            except WildrayError as error:
                raise _refusal(str(error)) from None
        return np.concatenate(parts)

    def _jpeg(self, row: int, image: object, bbox: object) -> bytes:
        if not isinstance(image, bytes | bytearray):
            raise _refusal(f"image {row}: got {type(image).__name__}, expected the bytes of a JPEG or PNG file")
        text = bbox if isinstance(bbox, str) else ""  # pandas writes a missing text as None, NaN or NA
        try:
            return crop_jpeg(bytes(image), text, padding=self._padding, longest_px=self._longest_px)
        except WildrayError as error:
            raise _refusal(f"image {row}: {error}") from None


def _refusal(message: str) -> MlflowException:
    # of any other error MLflow's server says that it was unexpected, and prints where
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


set_model(Embedder())

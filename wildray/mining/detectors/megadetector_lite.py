"""MegadetectorLite: the default detector, YOLOX-tiny at 640 px with one class, animal.

In: frames. Out: boxes of the category animal; it fires on people and vehicles too and cannot tell them apart, and on
the odd rock. Weights come from the registry (MIT). The alternative, ONNX Runtime with an exported file, takes 0.78 of
the time at equal input, and needs the package onnx to export: padding the short side to a multiple of 32 px instead
of a square saves more (16:9: 0.62 of the time; scores are 0.01 lower in the mean).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wildray import weights
from wildray.errors import WeightsError
from wildray.mining.boxes import Boxes, nms
from wildray.mining.detectors.base import Image
from wildray.mining.detectors.yolox import YoloX, load_folded

logger = logging.getLogger(__name__)

INPUT_PX = 640
STRIDE_PX = 32
WEIGHTS = "megadetector_lite"


class MegadetectorLite:
    """The default detector.

    Args:
        min_score: Boxes below are left out; the score is objectness times class score.
        nms_iou: Of two boxes that overlap by more than this IoU the lower score goes.
        threads: CPU threads; part of what the last bits of a score depend on.
        path: Checkpoint; default the registry's, downloaded on first use.

    Raises:
        WeightsError: The weights are not there, or not of this network.
    """

    name = WEIGHTS
    needs_clip = False

    def __init__(self, *, min_score: float, nms_iou: float, threads: int = 1, path: Path | None = None) -> None:
        self._min_score, self._nms_iou, self._threads = min_score, nms_iou, threads
        checkpoint = path or weights.fetch(WEIGHTS)
        self._sha256 = weights.known(WEIGHTS).sha256 if path is None else weights.file_sha256(checkpoint)
        self._network = _load(checkpoint)
        logger.info("%s: %s, %d threads", self.name, checkpoint, threads)

    @property
    def digest_facts(self) -> Mapping[str, object]:
        """The weights and the preparation of a frame."""
        return {"detector": self.name, "sha256": self._sha256, "input_px": INPUT_PX, "pad": f"multiple of {STRIDE_PX}"}

    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """The boxes of each frame.

        One frame goes through the network at a time: on a CPU a batch is no faster, and its sums may round otherwise
        than those of a frame alone.
        """
        with _threads(self._threads), torch.inference_mode():
            return [self._one(image) for image in images]

    def _one(self, image: Image) -> Boxes:
        height, width = image.shape[:2]
        batch, scale = prepare(image)
        rows = self._network(torch.from_numpy(batch).permute(0, 3, 1, 2))[0].numpy()
        score = rows[:, 4] * rows[:, 5]
        rows, score = rows[score >= self._min_score], score[score >= self._min_score]
        half = rows[:, 2:4] / 2
        xyxy = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1) / scale
        return nms(Boxes.of_category(xyxy, score, "animal").clipped(width, height), self._nms_iou)


def prepare(image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """A frame as the network wants it: longest side 640 px, black below and to the right up to a multiple of 32.

    Args:
        image: (H, W, 3) u8 RGB.

    Returns:
        (1, h, w, 3) float32 in [0, 255], and the (4,) factors by which corners (x, y, x, y) of the frame were scaled.
    """
    height, width = image.shape[:2]
    ratio = INPUT_PX / max(height, width)
    inner_w, inner_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    # Shrinking by averaging areas: small animals score up to 0.14 higher than with the usual bilinear interpolation.
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    padded = np.zeros((1, _up(inner_h), _up(inner_w), 3), dtype=np.float32)
    padded[0, :inner_h, :inner_w] = cv2.resize(image, (inner_w, inner_h), interpolation=method)
    return padded, np.array([inner_w / width, inner_h / height] * 2)


def _up(size_px: int) -> int:
    return -(-size_px // STRIDE_PX) * STRIDE_PX


def _load(path: Path) -> YoloX:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return load_folded(checkpoint["model"])
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise WeightsError(f"The weights {path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # unpickling foreign bytes raises whatever they happen to spell
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is not a checkpoint of MegadetectorLite (YOLOX-tiny, one class): {first}. "
            f"Remove it and run the command again, so that it is fetched anew."
        ) from None


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch's threads belong to the whole process: give them back as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

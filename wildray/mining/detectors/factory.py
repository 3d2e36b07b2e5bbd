"""From the configuration to a detector.

In: the section ``detect``. Out: a ``Detector``. What a detector needs (torch, ONNX Runtime) is imported when it is
chosen. The alternative, a registry that classes sign themselves into, hides from the reader which detectors there are.
"""

from __future__ import annotations

from pathlib import Path

from wildray.config import DetectConfig
from wildray.errors import ConfigError, nearest
from wildray.mining.detectors.base import Detector
from wildray.mining.detectors.motion import MotionDetector

NAMES = ("megadetector_lite", "motion")


def make_detector(config: DetectConfig) -> Detector:
    """The detector that ``detect.detector`` names.

    Raises:
        ConfigError: There is no such detector, or the ONNX file's classes or outputs are not understood.
        WeightsError: Its weights cannot be had, or the file is no ONNX model.
    """
    name = config.detector
    if name == "motion":
        return MotionDetector(min_score=config.min_score)
    if name == "megadetector_lite":
        from wildray.mining.detectors.megadetector_lite import MegadetectorLite

        return MegadetectorLite(min_score=config.min_score, nms_iou=config.nms_iou, threads=config.threads)
    if name.lower().endswith(".onnx"):
        from wildray.mining.detectors.onnx_file import OnnxDetector

        return OnnxDetector(
            Path(name).expanduser(),
            min_score=config.min_score,
            nms_iou=config.nms_iou,
            threads=config.threads,
            class_names=config.class_names,
        )
    if name.lower().endswith((".pt", ".pth")):
        raise ConfigError(
            f"detect.detector: got {name!r}, expected {', '.join(NAMES)} or an ONNX file. Files of this kind can run "
            "code when they are loaded; export the detector to ONNX with the program that trained it."
        )
    raise ConfigError(
        f"detect.detector: got {name!r}, expected {', '.join(NAMES)} or the path of a file that ends in .onnx. "
        f"{nearest(name, NAMES)}"
    )

"""Detectors: frames in, boxes out (``make_detector``); results computed elsewhere (``results``).

| file | what |
| --- | --- |
| base | what every detector is |
| yolox, megadetector_lite | the default: one class, animal |
| onnx_file, layouts | any YOLO-family or RT-DETR file, such as MegaDetector |
| clip, motion | the background of a clip: the change inside a box, and boxes of what moves |
| results, results_file, results_writer | MegaDetector JSON: boxes that somebody else computed, and ours for others |
| categories | animal, person, vehicle: what other words mean |
"""

from wildray.mining.detectors.base import Detector, Image
from wildray.mining.detectors.factory import make_detector

__all__ = ["Detector", "Image", "make_detector"]

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from wildray import weights
from wildray.config import Config
from wildray.errors import WeightsError
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.megadetector_lite import MegadetectorLite, prepare
from wildray.mining.detectors.yolox import Conv, YoloX, load_folded

LOW = 0.2609
"""Score that about a hundred of the random network's thousands of boxes reach."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the published form with random weights and statistics."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = YoloX()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    torch.save({"start_epoch": 1, "model": network.state_dict(), "optimizer": {}}, path)
    return path


def frame(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def test_the_network_has_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in YoloX().parameters()) == 5_032_866


def test_folding_changes_nothing_but_rounding(untrained: Path) -> None:
    state = torch.load(untrained, weights_only=True)["model"]
    plain = YoloX()
    plain.load_state_dict(state)
    plain.eval()
    folded = load_folded(state)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert all(module.conv.bias is not None for module in folded.modules() if isinstance(module, Conv))
    images = torch.rand(2, 3, 64, 96) * 255
    with torch.inference_mode():
        expected, got = plain(images), folded(images)
    assert got.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 6)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-2)


def test_rows_are_decoded_at_their_place(untrained: Path) -> None:
    """With the last layers at 0 every box is centred on its place, of its stride's size, with scores of 1/2."""
    network = load_folded(torch.load(untrained, weights_only=True)["model"])
    for layers in (network.head.reg_preds, network.head.obj_preds, network.head.cls_preds):
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
    with torch.inference_mode():
        rows = network(torch.zeros(1, 3, 64, 96))[0].numpy()
    expected = [
        [x * stride, y * stride, stride, stride, 0.5, 0.5]
        for stride in (8, 16, 32)
        for y in range(64 // stride)
        for x in range(96 // stride)
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_preparation_keeps_the_aspect_and_pads_with_black_below_and_right() -> None:
    batch, scale = prepare(np.full((1080, 1920, 3), (10, 20, 30), np.uint8))
    assert batch.shape == (1, 384, 640, 3)
    np.testing.assert_allclose(batch[0, :360], np.broadcast_to([10, 20, 30], (360, 640, 3)))
    assert batch[0, 360:].max() == 0
    np.testing.assert_allclose(scale, 1 / 3)
    tall, scale = prepare(np.full((200, 90, 3), 7, np.uint8))
    assert tall.shape == (1, 640, 288, 3)
    np.testing.assert_allclose(scale, [3.2, 3.2, 3.2, 3.2])


def test_boxes_do_not_depend_on_what_stands_beside_the_frame(untrained: Path) -> None:
    detector = MegadetectorLite(min_score=LOW, nms_iou=0.45, path=untrained)
    frames = [frame(0), frame(1, 120, 100), frame(2)]
    together = detector.detect(frames)
    assert together == [detector.detect([one])[0] for one in frames]
    assert detector.detect([]) == []
    for boxes, one in zip(together, frames, strict=True):
        assert len(boxes) > 0
        assert (boxes.xyxy_px[:, 2] <= one.shape[1]).all()
        assert (boxes.xyxy_px[:, 3] <= one.shape[0]).all()
        assert (boxes.xyxy_px >= 0).all()


def test_torchs_threads_are_given_back(untrained: Path) -> None:
    before = torch.get_num_threads()
    MegadetectorLite(min_score=0.5, nms_iou=0.45, threads=before + 1, path=untrained).detect([frame(0)])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("damage", ["text", "cut", "other_network", "no_model"])
def test_checkpoints_of_something_else(untrained: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "toy.pth"
    if damage == "text":
        path.write_text("<html>")
    elif damage == "cut":
        path.write_bytes(untrained.read_bytes()[:5000])
    else:
        torch.save({"model": {"weight": torch.zeros(3)}} if damage == "other_network" else [1, 2], path)
    with pytest.raises(WeightsError, match="not a checkpoint of MegadetectorLite"):
        MegadetectorLite(min_score=0.5, nms_iou=0.45, path=path)


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trap"),)

    torch.save({"model": Trap()}, tmp_path / "toy.pth")
    with pytest.raises(WeightsError):
        MegadetectorLite(min_score=0.5, nms_iou=0.45, path=tmp_path / "toy.pth")
    assert not (tmp_path / "trap").exists()


@pytest.mark.real_data
def test_real_weights_on_camera_trap_stills() -> None:
    folder = os.environ.get("WILDRAY_TEST_DATA")
    if not folder or weights.cached(weights.known("megadetector_lite")) is None:
        pytest.skip("WILDRAY_TEST_DATA is not set, or the weights were not fetched yet")
    from PIL import Image

    stills = Path(folder) / "stills" / "ena24"
    with (stills / "labels.csv").open() as file:
        images = [np.array(Image.open(stills / row["filepath"]).convert("RGB")) for row in csv.DictReader(file)]
    found = make_detector(Config.load(overrides={"detect.min_score": 0.25}).detect).detect(images)
    assert sum(len(boxes) > 0 for boxes in found) >= 19

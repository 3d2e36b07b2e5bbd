"""Every layout of ONNX detector, as a tiny graph that gives known rows whatever it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wildray.config import Config
from wildray.errors import ConfigError, WeightsError
from wildray.mining.detectors import make_detector
from wildray.mining.detectors.layouts import places
from wildray.mining.detectors.onnx_file import OnnxDetector

PX = 64
ONCE, ONCE_P6 = places(PX, PX)
# Two animals and a person in input pixels of a 64 x 64 network: x1 y1 x2 y2, score, class of (animal, person, vehicle).
WANTED = [((8, 20, 24, 36), 0.9, 0), ((30, 24, 46, 44), 0.6, 1), ((40, 20, 60, 30), 0.3, 0)]
NAMES = "{0: 'animal', 1: 'human', 2: 'vehicle'}"


def centred(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def one_hot(score: float, label: int, count: int = 3) -> list[float]:
    return [score if i == label else 0.01 for i in range(count)]


def save(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    shape: Sequence[int | str] = (1, 3, PX, PX),
    dtype: int = TensorProto.FLOAT,
    sizes_input: bool = False,
    open_outputs: bool = False,
) -> Path:
    """A graph whose outputs are these arrays plus 0 times the mean of its input."""
    image = helper.make_tensor_value_info("images", dtype, list(shape))
    inputs = [image]
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)]
    nodes.append(helper.make_node("Cast", ["mean"], ["mean_f"], to=TensorProto.FLOAT))
    constants = [numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    nodes.append(helper.make_node("Mul", ["mean_f", "zero"], ["nothing"]))
    if sizes_input:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    infos = []
    for name, value in outputs.items():
        constants.append(numpy_helper.from_array(value, f"{name}_rows"))
        if value.dtype == np.int64:
            nodes.append(helper.make_node("Identity", [f"{name}_rows"], [name]))
        else:
            nodes.append(helper.make_node("Add", [f"{name}_rows", "nothing"], [name]))
        kind = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT
        dims = [f"d{i}" for i in range(value.ndim)] if open_outputs else list(value.shape)
        infos.append(helper.make_tensor_value_info(name, kind, dims))
    graph = helper.make_graph(nodes, "toy", inputs, infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, str(path))
    return path


def dense(num_rows: int, *, objectness: bool, classes: int = 3, transposed: bool = False) -> np.ndarray:
    width = classes + (5 if objectness else 4)
    rows = np.zeros((num_rows, width), np.float32)
    rows[:, :4] = [2, 2, 1, 1]
    places_of_rows = np.linspace(0, num_rows - 1, len(WANTED)).astype(int)
    for place, (box, score, label) in zip(places_of_rows, WANTED, strict=True):
        label = min(label, classes - 1)
        scores = [1.0, *one_hot(score, label, classes)] if objectness else one_hot(score, label, classes)
        rows[place] = [*centred(box), *scores]
    return np.ascontiguousarray(rows.T if transposed else rows)[None]


def relative(count: int) -> np.ndarray:
    rows = np.zeros((1, count, 4), np.float32)
    for i, (box, _, _) in enumerate(WANTED):
        rows[0, i] = np.array(centred(box)) / PX
    return rows


def logits(count: int) -> np.ndarray:
    scores = np.full((1, count, 3), 1e-4)
    for i, (_, score, label) in enumerate(WANTED):
        scores[0, i] = one_hot(score, label)
    return np.log(scores / (1 - scores)).astype(np.float32)


def detr(count: int) -> np.ndarray:
    classes = 1 / (1 + np.exp(-logits(count)))
    return np.concatenate([relative(count), classes], axis=2).astype(np.float32)


def end_to_end(count: int) -> np.ndarray:
    rows = np.zeros((1, count, 6), np.float32)
    for i, (box, score, label) in enumerate(WANTED):
        rows[0, i] = [*box, score, label]
    return rows


def triple(count: int) -> dict[str, np.ndarray]:
    rows = end_to_end(count)
    return {"labels": rows[:, :, 5].astype(np.int64), "boxes": rows[:, :, :4].copy(), "scores": rows[:, :, 4].copy()}


LAYOUTS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "yolov5": ({"output0": dense(3 * ONCE, objectness=True)}, "anchors"),
    "yolov5_p6": ({"output0": dense(3 * ONCE_P6, objectness=True)}, "anchors"),
    "yolox": ({"output": dense(ONCE, objectness=True)}, "yolox"),
    "yolov8": ({"output0": dense(ONCE, objectness=False, transposed=True)}, "anchor_free"),
    "yolov8_rows": ({"output0": dense(ONCE, objectness=False)}, "anchor_free"),
    "yolov10": ({"output0": end_to_end(30)}, "end_to_end"),
    "rtdetr_ultralytics": ({"output0": detr(30)}, "detr"),
    "rtdetr_hf": ({"logits": logits(30), "pred_boxes": relative(30)}, "detr_pair"),
    "rtdetr": (triple(30), "detr_triple"),
}


def in_frame(kind: str, width: int, height: int) -> list[list[float]]:
    """Where the wanted boxes lie in a frame, worked out box by box."""
    corners = []
    for (x1, y1, x2, y2), _, _ in WANTED:
        if kind.startswith("detr"):
            corners.append([x1 * width / PX, y1 * height / PX, x2 * width / PX, y2 * height / PX])
            continue
        scale = PX / max(width, height)
        left, top = ((PX - width * scale) / 2, (PX - height * scale) / 2) if kind != "yolox" else (0, 0)
        box = [(x1 - left) / scale, (y1 - top) / scale, (x2 - left) / scale, (y2 - top) / scale]
        corners.append([min(max(v, 0), limit) for v, limit in zip(box, (width, height, width, height), strict=True)])
    return corners


@pytest.mark.parametrize("open_outputs", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_boxes_of_every_layout(tmp_path: Path, layout: str, open_outputs: bool) -> None:
    outputs, kind = LAYOUTS[layout]
    path = save(
        tmp_path / "toy.onnx",
        outputs,
        metadata={"names": NAMES},
        sizes_input=layout == "rtdetr",
        open_outputs=open_outputs,
    )
    detector = OnnxDetector(path, min_score=0.25, nms_iou=0.45)
    assert detector.digest_facts["layout"] == kind
    width, height = 128, 80
    (boxes,) = detector.detect([np.full((height, width, 3), 90, np.uint8)])
    np.testing.assert_allclose(boxes.score, [0.9, 0.6, 0.3], atol=1e-5)
    assert boxes.category.tolist() == ["animal", "person", "animal"]
    np.testing.assert_allclose(boxes.xyxy_px, in_frame(kind, width, height), atol=1e-3)


def test_one_class_is_animal_and_three_are_megadetectors(tmp_path: Path) -> None:
    one = save(tmp_path / "one.onnx", {"o": dense(3 * ONCE, objectness=True, classes=1)})
    three = save(tmp_path / "three.onnx", {"o": dense(ONCE, objectness=False, transposed=True)})
    frame = np.zeros((PX, PX, 3), np.uint8)
    found = [OnnxDetector(path, min_score=0.25, nms_iou=0.45).detect([frame])[0] for path in (one, three)]
    assert found[0].category.tolist() == ["animal"] * 3
    assert found[1].category.tolist() == ["animal", "person", "animal"]


def test_yolox_of_one_class_is_told_from_end_to_end_by_its_number_of_rows(tmp_path: Path) -> None:
    path = save(tmp_path / "lite.onnx", {"output": dense(ONCE, objectness=True, classes=1)})
    assert OnnxDetector(path, min_score=0.1, nms_iou=0.45).digest_facts["layout"] == "yolox"
    path = save(tmp_path / "ten.onnx", {"output": end_to_end(300)}, metadata={"names": NAMES})
    assert OnnxDetector(path, min_score=0.1, nms_iou=0.45).digest_facts["layout"] == "end_to_end"


def test_two_classes_of_ultralytics_rtdetr_are_told_by_its_description(tmp_path: Path) -> None:
    rows = detr(30)[:, :, :6]
    metadata = {"names": "['animal', 'person']", "description": "Ultralytics RT-DETR-l model"}
    detector = OnnxDetector(save(tmp_path / "t.onnx", {"o": rows}, metadata=metadata), min_score=0.25, nms_iou=0.45)
    assert detector.digest_facts["layout"] == "detr"


def test_configured_names_come_before_the_files(tmp_path: Path) -> None:
    path = save(tmp_path / "toy.onnx", LAYOUTS["yolov8"][0], metadata={"names": NAMES})
    config = Config.load(
        overrides={"detect.detector": str(path), "detect.class_names": ["Okapi", "Car", "People"]}
    ).detect
    (boxes,) = make_detector(config).detect([np.zeros((PX, PX, 3), np.uint8)])
    assert boxes.category.tolist() == ["okapi", "vehicle", "okapi"]


def test_suppression_is_left_to_networks_that_do_it(tmp_path: Path) -> None:
    rows = end_to_end(30)
    rows[0, 1] = [8, 20, 24, 35, 0.8, 0]  # on top of the first
    frame = np.zeros((PX, PX, 3), np.uint8)
    own = save(tmp_path / "own.onnx", {"o": rows}, metadata={"names": NAMES})
    assert len(OnnxDetector(own, min_score=0.25, nms_iou=0.45).detect([frame])[0]) == 3
    plain = dense(ONCE, objectness=True)
    plain[0, 1] = [*centred((8, 20, 24, 35)), 1, *one_hot(0.8, 0)]
    ours = save(tmp_path / "ours.onnx", {"o": plain}, metadata={"names": NAMES})
    scores = OnnxDetector(ours, min_score=0.25, nms_iou=0.45).detect([frame])[0].score
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.3], atol=1e-5)


@pytest.mark.parametrize(("imgsz", "expected"), [(None, 640), ("[1280, 1280]", 1280), ("320", 320), ("['x']", 640)])
def test_size_of_open_inputs(tmp_path: Path, imgsz: str | None, expected: int) -> None:
    metadata = {"names": NAMES} | ({"imgsz": imgsz} if imgsz else {})
    rows = end_to_end(30)
    path = save(tmp_path / "t.onnx", {"o": rows}, metadata=metadata, shape=("batch", 3, "height", "width"))
    detector = OnnxDetector(path, min_score=0.25, nms_iou=0.45)
    assert detector.digest_facts["input_px"] == [expected, expected]


def test_half_precision_input(tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", LAYOUTS["yolov8"][0], metadata={"names": NAMES}, dtype=TensorProto.FLOAT16)
    assert len(OnnxDetector(path, min_score=0.25, nms_iou=0.45).detect([np.zeros((PX, PX, 3), np.uint8)])[0]) == 3


def test_yolo_sees_rgb_shares_between_grey_bars(tmp_path: Path) -> None:
    detector = OnnxDetector(save(tmp_path / "t.onnx", LAYOUTS["yolov8"][0]), min_score=0.25, nms_iou=0.45)
    batch, scale, offset = detector._prepared(np.full((32, 64, 3), (51, 102, 204), np.uint8))
    np.testing.assert_allclose(batch[0, :, 31, 31], [0.2, 0.4, 0.8], atol=1e-6)
    np.testing.assert_allclose(batch[0, :, 15, 31], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(batch[0, :, 48, 31], 114 / 255, atol=1e-6)
    assert (scale.tolist(), offset.tolist()) == ([1, 1], [0, 16])


def test_yolox_sees_rgb_bytes_above_black(tmp_path: Path) -> None:
    detector = OnnxDetector(save(tmp_path / "t.onnx", LAYOUTS["yolox"][0]), min_score=0.25, nms_iou=0.45)
    batch, _, offset = detector._prepared(np.full((32, 64, 3), (51, 102, 204), np.uint8))
    np.testing.assert_allclose(batch[0, :, 0, 31], [51, 102, 204])
    assert batch[0, :, 32:].max() == 0
    assert offset.tolist() == [0, 0]


def test_detr_sees_the_frame_squashed(tmp_path: Path) -> None:
    detector = OnnxDetector(save(tmp_path / "t.onnx", LAYOUTS["rtdetr_hf"][0]), min_score=0.25, nms_iou=0.45)
    batch, scale, _ = detector._prepared(np.full((32, 128, 3), 51, np.uint8))
    np.testing.assert_allclose(batch, 0.2, atol=1e-6)
    assert scale.tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("outputs", "metadata", "message"),
    [
        ({"o": np.zeros((1, 77, 9, 2), np.float32)}, {}, r"got o \[1, 77, 9, 2\].*64x64.*\[1, 4\+C, N\]"),
        ({"o": np.zeros((1, ONCE * 3, 8), np.float32)}, {"names": "['a']"}, "1 classes"),
        ({"a": np.zeros((1, 30, 4), np.float32), "b": np.zeros((1, 31, 3), np.float32)}, {}, "not understood"),
        ({"o": np.zeros((1, 300, 6), np.float32)}, {}, "detect.class_names"),
        ({"o": dense(ONCE, objectness=True, classes=7)}, {}, r"does not say its classes \(7\)"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, outputs: dict[str, np.ndarray], metadata: dict[str, str], message: str
) -> None:
    path = save(tmp_path / "toy.onnx", outputs, metadata=metadata)
    with pytest.raises(ConfigError, match=message):
        OnnxDetector(path, min_score=0.25, nms_iou=0.45)


def test_raw_yolox_rows_are_refused(tmp_path: Path) -> None:
    rows = dense(ONCE, objectness=True)
    rows[0, :, 2:4] = -0.5
    detector = OnnxDetector(save(tmp_path / "t.onnx", {"o": rows}), min_score=0.25, nms_iou=0.45)
    with pytest.raises(ConfigError, match="decode_in_inference"):
        detector.detect([np.zeros((PX, PX, 3), np.uint8)])


def test_classes_beyond_the_names_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", {"o": end_to_end(30)}, metadata={"names": "['animal']"})
    with pytest.raises(ConfigError, match="class 1, expected 0 to 0"):
        OnnxDetector(path, min_score=0.25, nms_iou=0.45).detect([np.zeros((PX, PX, 3), np.uint8)])


@pytest.mark.parametrize("shape", [(4, 3, PX, PX), (1, PX, PX, 3), (1, PX)])
def test_inputs_that_are_not_understood(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "t.onnx", {"o": end_to_end(30)}, metadata={"names": NAMES}, shape=shape)
    with pytest.raises(ConfigError, match=r"batch of 1|not understood"):
        OnnxDetector(path, min_score=0.25, nms_iou=0.45)


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_files_that_are_no_onnx_models(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path / "toy.onnx", LAYOUTS["yolov5"][0])
    whole = path.read_bytes()
    path.write_bytes({"text": b"<html>not found</html>", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(WeightsError, match=r"toy\.onnx cannot be loaded"):
        OnnxDetector(path, min_score=0.25, nms_iou=0.45)


def test_names_are_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    names = f"__import__('pathlib').Path({str(trap)!r}).touch() or ['animal']"
    path = save(tmp_path / "t.onnx", LAYOUTS["yolov8"][0], metadata={"names": names})
    assert OnnxDetector(path, min_score=0.25, nms_iou=0.45).digest_facts["classes"] == ["animal", "person", "vehicle"]
    assert not trap.exists()


def test_missing_files_and_unknown_names(tmp_path: Path) -> None:
    def make(name: str) -> None:
        make_detector(Config.load(overrides={"detect.detector": name}).detect)

    with pytest.raises(WeightsError, match="no such file"):
        make(str(tmp_path / "gone.onnx"))
    with pytest.raises(ConfigError, match="Did you mean 'megadetector_lite'"):
        make("megadetector_light")
    with pytest.raises(ConfigError, match="export the detector to ONNX"):
        make("md_v5a.0.0.pt")


def test_equal_frames_give_equal_boxes_beside_any_others(tmp_path: Path) -> None:
    detector = OnnxDetector(save(tmp_path / "t.onnx", LAYOUTS["yolov8"][0]), min_score=0.25, nms_iou=0.45)
    frames = [np.random.default_rng(i).integers(0, 255, (48, 80, 3)).astype(np.uint8) for i in range(3)]
    assert detector.detect(frames) == [detector.detect([frame])[0] for frame in frames]
    assert detector.detect([]) == []

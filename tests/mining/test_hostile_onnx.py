"""An ONNX file that somebody prepared is a message, and reads no other file."""

import pickle

import pytest
from hostile import Evil
from onnx import TensorProto, helper

from wildray.errors import WeightsError
from wildray.mining.detectors.onnx_file import OnnxDetector, _names_in


def test_a_pickle_under_the_name_of_an_onnx_file_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(pickle.dumps({"w": Evil(tmp_path / "ran")}))
    with pytest.raises(WeightsError, match="cannot be loaded as an ONNX model"):
        OnnxDetector(tmp_path / "a.onnx", min_score=0.1, nms_iou=0.5)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["../secret", "{folder}/secret", "sub/../../secret"])
def test_weights_that_lie_in_a_file_elsewhere_are_not_read(tmp_path, place):
    (tmp_path / "secret").write_bytes(bytes(256))
    model = tmp_path / "given" / "a.onnx"
    (model.parent / "sub").mkdir(parents=True)
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place.format(folder=tmp_path)), ("offset", "0"), ("length", "256")):
        weights.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.write_bytes(made.SerializeToString())
    with pytest.raises(WeightsError, match="External data path"):
        OnnxDetector(model, min_score=0.1, nms_iou=0.5)


@pytest.mark.parametrize(
    "names", ["__import__('os').system('true')", "[" * 10_000, "9" * 10_000, "{0: [1]}", "x" * 10**7]
)
def test_class_names_are_words_or_nothing(names):
    assert _names_in({"names": names}) == ()

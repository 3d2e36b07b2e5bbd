"""Weights and checkpoints that somebody else made: no code of theirs runs, whatever they are called."""

import io
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from hostile import Evil

from wildray.config import BackboneConfig
from wildray.errors import ConfigError, WeightsError
from wildray.learning.backbone import FORMAT, new_backbone
from wildray.learning.checkpoint import load_newest
from wildray.learning.first_backbone import load_backbone, open_backbone


def as_torch_archive(content):
    """A torch file whose pickle is ours."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as read, zipfile.ZipFile(out, "w") as write:
        for name in read.namelist():
            write.writestr(name, content if name.endswith("data.pkl") else read.read(name))
    return out.getvalue()


def evil_files(path):
    plain = {"w": Evil(path)}
    return {
        "protocol 0": pickle.dumps(plain, protocol=0),
        "protocol 2": pickle.dumps(plain, protocol=2),
        "protocol 5": pickle.dumps(plain, protocol=5),
        "archive": as_torch_archive(pickle.dumps(plain, protocol=2)),
        "eval": b"cbuiltins\neval\n(S'open(%s, \"w\")'\ntR." % repr(str(path)).encode(),
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\nS'open'\ntR.",
        "cut": pickle.dumps(plain, protocol=2)[:-5],
        "stack": b"\x80\x02.",
        "empty": b"",
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_no_code_runs_from_weights_whatever_they_are_called(tmp_path, suffix):
    for name, content in evil_files(tmp_path / "ran").items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises((WeightsError, ConfigError), match=r"cannot be read as|expected none, pypi"):
            load_backbone(BackboneConfig(name="resnet18", weights=str(path)))
        with pytest.raises(WeightsError):
            open_backbone(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_code_runs_from_a_checkpoint_and_the_one_before_is_taken(tmp_path, caplog):
    folder = tmp_path / "models" / "r" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"step": 1}, folder / "step-000000001.pt")
    files = evil_files(tmp_path / "ran")
    for number, content in enumerate(files.values(), start=2):
        (folder / f"step-{number:09d}.pt").write_bytes(content)
    state = load_newest(tmp_path / "models" / "r", torch.device("cpu"))
    assert state is not None
    assert state.step == 1
    assert caplog.text.count("cannot be read") == len(files)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": "1000000"}, "image_size '1000000'"),
        ({"image_size": "-3"}, "image_size '-3'"),
        ({"image_size": "big"}, "image_size 'big'"),
        ({"image_size": None}, "does not say which network"),
        ({"name": None}, "does not say which network"),
        ({"pooling": "<script>"}, "pooling '<script>'"),
        ({"name": "hf-hub:somebody/else"}, "timm has no model 'hf-hub:somebody/else'"),
        ({"name": "local-dir:/tmp"}, "timm has no model 'local-dir:/tmp'"),
        ({"name": "resnet34"}, "does not hold weights of resnet34"),
    ],
)
def test_a_header_that_was_altered_is_refused(tmp_path, changed, message):
    header = {"format": FORMAT, "name": "resnet18", "image_size": "64", "pooling": "default", "dim": "512"}
    header = {key: value for key, value in {**header, **changed}.items() if value is not None}
    tensors = {key: value.contiguous() for key, value in new_backbone("resnet18", 64).net.state_dict().items()}
    path = tmp_path / "backbone.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, metadata=header))
    with pytest.raises((WeightsError, ConfigError), match=message):
        open_backbone(path)

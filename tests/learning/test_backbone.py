import pytest
import safetensors.torch
import timm
import torch

from wildray.config import BackboneConfig
from wildray.errors import ConfigError, WeightsError
from wildray.learning.backbone import load_backbone, load_weights, new_backbone, open_backbone
from wildray.learning.pypi import pypi_weights, timm_names


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [("resnet18", 64, 512), ("tf_efficientnet_lite0", 64, 1280), ("vit_tiny_patch16_224", 96, 192)],
)
def test_any_timm_model_at_any_size(name, size, dim):
    backbone = new_backbone(name, size).eval()
    assert backbone.dim == dim
    assert backbone(torch.rand(2, 3, size, size)).shape == (2, dim)


def test_images_are_normalised_inside():
    backbone = new_backbone("resnet18", 32).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = backbone.net((images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    torch.testing.assert_close(backbone(images), expected)


def test_a_transformer_takes_other_sizes_than_its_own():
    backbone = new_backbone("vit_tiny_patch16_224", 64).eval()
    assert backbone(torch.rand(1, 3, 32, 32)).shape == (1, 192)


def test_random_weights_come_from_the_seed_and_leave_the_callers_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, same, other = (new_backbone("resnet18", 32, seed=seed).digest() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert first == same
    assert first != other


def test_a_saved_backbone_comes_back_and_timm_reads_it(tmp_path):
    backbone = new_backbone("resnet18", 48, seed=3).eval()
    path = tmp_path / "backbone.safetensors"
    backbone.save(path)
    images = torch.rand(2, 3, 48, 48)
    again = open_backbone(path).eval()
    assert (again.name, again.image_size, again.dim) == ("resnet18", 48, 512)
    assert torch.equal(again(images), backbone(images))
    named = load_backbone(BackboneConfig(name="resnet18", image_size=48, weights=str(path)))
    assert named.digest() == backbone.digest()
    plain = timm.create_model("resnet18", num_classes=0)
    plain.load_state_dict(safetensors.torch.load_file(path))


def test_positions_of_another_image_size_are_interpolated(tmp_path):
    path = tmp_path / "vit.safetensors"
    small = new_backbone("vit_tiny_patch16_224", 64, seed=1)
    small.save(path)
    large = open_backbone(path, image_size=96)
    assert large.net.pos_embed.shape == (1, 1 + 36, 192)
    torch.testing.assert_close(large.net.pos_embed[:, 0], small.net.pos_embed[:, 0])
    torch.testing.assert_close(large.net.pos_embed[:, 1:].mean(), small.net.pos_embed[:, 1:].mean(), atol=1e-3, rtol=0)


def test_a_classifier_is_left_out_and_anything_else_is_named_with_its_shape():
    backbone = new_backbone("resnet18", 32)
    tensors = timm.create_model("resnet18", num_classes=7).state_dict()
    load_weights(backbone, tensors, origin="here")
    tensors["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    del tensors["bn1.bias"]
    tensors["extra"] = torch.zeros(4)
    with pytest.raises(WeightsError) as caught:
        load_weights(backbone, tensors, origin="here")
    message = str(caught.value)
    assert "layer1.0.conv1.weight: got (1, 2, 3, 3), expected (64, 64, 3, 3)" in message
    assert "bn1.bias: got nothing, expected (64,)" in message
    assert "extra: got (4,), expected nothing" in message


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    path = tmp_path / "r18.safetensors"
    new_backbone("resnet18", 32).save(path)
    with pytest.raises(WeightsError, match=r"--backbone\.name resnet18"):
        load_backbone(BackboneConfig(name="resnet34", image_size=32, weights=str(path)))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_broken_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="broken"):
        open_backbone(path)
    with pytest.raises(WeightsError, match="missing"):
        open_backbone(tmp_path / "missing.safetensors")


def test_unknown_names_sizes_and_kinds_of_weights_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        new_backbone("resnet_18", 32)
    with pytest.raises(ConfigError, match=r"backbone\.weights"):
        load_backbone(BackboneConfig(name="resnet18", image_size=32, weights="imagenet.pth"))
    with pytest.raises(WeightsError, match="tf_efficientnet_lite0"):
        pypi_weights("resnet18")
    with pytest.raises(ConfigError, match=r"backbone\.image_size"):
        new_backbone("swin_tiny_patch4_window7_224", 50)


def test_the_pypi_packages_names_are_timms():
    wanted = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    given = {}
    stages = (1, 2, 2, 3, 3, 4, 1)
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    for key, value in wanted.items():
        parts = key.split(".")
        if parts[0] != "blocks":
            given[f"{outer[parts[0]]}.{parts[1]}"] = value
            continue
        layers = ["conv_dw", "bn1", "conv_pw", "bn2"] if parts[1] == "0" else None
        names = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        if layers is None:
            layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            names = ["_expand_conv", "_bn0", *names]
        block = sum(stages[: int(parts[1])]) + int(parts[2])
        given[f"_blocks.{block}.{names[layers.index(parts[3])]}.{parts[4]}"] = value
    named = timm_names(given | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)})
    assert named.keys() == wanted.keys()
    assert all(named[key] is wanted[key] for key in wanted)

import math

import pytest
import safetensors.torch
import timm
import torch

from wildray.config import BackboneConfig, Config
from wildray.errors import ConfigError, WeightsError
from wildray.learning.backbone import Backbone, new_backbone
from wildray.learning.first_backbone import (
    FREEZE_RANDOM_PATCHES,
    check_backbone,
    first_backbone,
    load_backbone,
    open_backbone,
)
from wildray.learning.job import make_method
from wildray.learning.networks import plain_attention
from wildray.learning.pypi import pypi_weights, timm_names
from wildray.learning.stored_weights import load_weights

TRANSFORMERS = [
    (f"vit_{size}_patch{patch}_224", 4 * patch, dim)
    for size, dim in (("tiny", 192), ("small", 384), ("base", 768), ("large", 1024))
    for patch in (16, 14, 8)
]


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("resnet18", 64, 512),
        ("tf_efficientnet_lite0", 64, 1280),
        ("convnext_atto", 64, 320),
        ("swin_tiny_patch4_window7_224", 64, 768),
        ("deit_tiny_patch16_224", 48, 192),
        *TRANSFORMERS[:3],
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [*TRANSFORMERS[3:], ("resnet50", 64, 2048), ("vit_small_patch14_dinov2", 56, 384)]
        ),
    ],
)
def test_any_timm_model_at_any_size(name, size, dim):
    backbone = new_backbone(name, size).eval()
    assert backbone.dim == dim
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, size, size)).shape == (2, dim)
    assert backbone.is_transformer is name.startswith(("vit", "deit"))
    if backbone.is_transformer:
        assert f"patch{backbone.patch_px}_" in name


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


def test_a_transformer_at_a_patch_that_timm_has_no_name_for_comes_back(tmp_path):
    path = tmp_path / "vit.safetensors"
    backbone = new_backbone("vit_tiny_patch8_224", 32, seed=1).eval()
    backbone.save(path)
    again = open_backbone(path, image_size=64).eval()
    assert (again.name, again.patch_px, again.net.pos_embed.shape[1]) == ("vit_tiny_patch8_224", 8, 1 + 64)
    with pytest.raises(WeightsError, match="timm has no weights of vit_tiny_patch8_224"):
        new_backbone("vit_tiny_patch8_224", 32, pretrained=True)
    with pytest.raises(ConfigError, match=r"multiple of its patch or window size, such as 28"):
        new_backbone("vit_tiny_patch14_224", 32)


def test_pooling_is_the_class_token_or_the_mean_of_patches_and_comes_back(tmp_path):
    images = torch.rand(2, 3, 32, 32)
    for pooling in ("token", "average"):
        backbone = new_backbone("vit_tiny_patch16_224", 32, seed=2, pooling=pooling).eval()
        net = backbone.net
        with torch.no_grad():
            for norm in (net.norm, net.fc_norm):
                for parameter in norm.parameters():
                    parameter.normal_()
            tokens = net.forward_features((images - backbone.mean) / backbone.std)
            expected = tokens[:, 0] if pooling == "token" else net.fc_norm(tokens[:, 1:].mean(dim=1))
            torch.testing.assert_close(backbone(images), expected)
        path = tmp_path / f"{pooling}.safetensors"
        backbone.save(path)
        again = open_backbone(path).eval()
        assert (again.pooling, again.digest()) == (pooling, backbone.digest())
        assert torch.equal(again(images), backbone(images))


def test_weights_made_for_a_class_token_fit_an_average(tmp_path):
    path = tmp_path / "token.safetensors"
    token = new_backbone("vit_tiny_patch16_224", 32, seed=1)
    torch.nn.init.normal_(token.net.norm.weight)
    token.save(path)
    average = load_backbone(
        BackboneConfig(name="vit_tiny_patch16_224", image_size=32, weights=str(path), pooling="average")
    )
    assert torch.equal(average.net.fc_norm.weight, token.net.norm.weight)
    assert average.digest() != token.digest()
    average.save(path)
    back = load_backbone(BackboneConfig(name="vit_tiny_patch16_224", image_size=32, weights=str(path), pooling="token"))
    assert torch.equal(back.net.norm.weight, token.net.norm.weight)
    kept = load_backbone(BackboneConfig(name="vit_tiny_patch16_224", image_size=32, weights=str(path)))
    assert kept.digest() == average.digest()


def test_pooling_is_for_transformers():
    for name in ("resnet18", "swin_tiny_patch4_window7_224"):
        with pytest.raises(ConfigError, match=r"backbone\.pooling: got 'average' for"):
            check_backbone(BackboneConfig(name=name, pooling="average"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickled_state_dict_is_read_and_code_is_not_run(tmp_path, wrapped):
    backbone = new_backbone("resnet18", 32, seed=4)
    state = {f"module.{key}" if wrapped else key: value for key, value in backbone.net.state_dict().items()}
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": state} if wrapped else state, path)
    again = load_backbone(BackboneConfig(name="resnet18", image_size=32, weights=str(path)))
    assert again.digest() == backbone.digest()
    for content, message in (
        (torch.nn.Linear(1, 1), "cannot be read as tensors alone"),
        ({"epoch": 3}, "holds no state dict"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            load_backbone(BackboneConfig(name="resnet18", image_size=32, weights=str(path)))
    for junk in (b"hello\n", b"", b"\x80\x04}.", bytes(range(256))):
        path.write_bytes(junk)
        with pytest.raises(WeightsError, match=r"weights\.pth"):
            load_backbone(BackboneConfig(name="resnet18", image_size=32, weights=str(path)))


def test_frozen_patches_are_moco_v3s_and_take_no_gradient():
    backbone = new_backbone("vit_tiny_patch16_224", 32)
    backbone.freeze_patches(seed=1)
    projection = backbone.net.patch_embed.proj
    bound = math.sqrt(6 / (3 * 16 * 16 + 192))
    assert 0.99 * bound < projection.weight.abs().max() <= bound
    assert abs(float(projection.weight.std()) - bound / math.sqrt(3)) < 0.01 * bound
    assert not projection.bias.any()
    backbone(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert projection.weight.grad is None
    assert backbone.net.pos_embed.grad is not None
    kept = new_backbone("vit_tiny_patch16_224", 32, seed=3)
    weight = kept.net.patch_embed.proj.weight.clone()
    kept.freeze_patches()
    assert torch.equal(kept.net.patch_embed.proj.weight, weight)
    with pytest.raises(ConfigError, match=r"train\.freeze_patches"):
        new_backbone("resnet18", 32).freeze_patches()


@pytest.mark.parametrize(
    ("name", "given", "frozen"),
    [
        ("vit_tiny_patch16_224", None, FREEZE_RANDOM_PATCHES),
        ("vit_tiny_patch16_224", True, True),
        ("vit_tiny_patch16_224", False, False),
        ("resnet18", None, False),
    ],
)
def test_patches_are_frozen_as_configured(name, given, frozen):
    overrides = {"backbone.name": name, "backbone.image_size": 32, "train.freeze_patches": given, "train.seed": 3}
    first, same = (first_backbone(Config.load(overrides=overrides)) for _ in range(2))
    assert any(not parameter.requires_grad for parameter in first.parameters()) is frozen
    assert first.digest() == same.digest()


def test_frozen_patches_keep_weights_that_were_given(tmp_path):
    path = tmp_path / "vit.safetensors"
    given = new_backbone("vit_tiny_patch16_224", 32, seed=1)
    given.save(path)
    overrides = {"backbone.image_size": 32, "backbone.weights": str(path)}
    assert all(parameter.requires_grad for parameter in first_backbone(Config.load(overrides=overrides)).parameters())
    frozen = first_backbone(Config.load(overrides=overrides | {"train.freeze_patches": True}))
    assert frozen.digest() == given.digest()
    assert not frozen.net.patch_embed.proj.weight.requires_grad


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_recomputing_gives_the_same_gradients(name):
    images, gradients = torch.rand(2, 3, 32, 32), []
    for recompute in (False, True):
        backbone = new_backbone(name, 32)
        if recompute:
            backbone.recompute()
        backbone(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_a_network_that_cannot_recompute_says_so():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ConfigError, match=r"train\.recompute"):
        Backbone("tiny", 8, net=net, mean=(0.5,) * 3, std=(0.5,) * 3).recompute()


def test_a_classifier_is_left_out_and_anything_else_is_named_with_its_shape():
    backbone = new_backbone("resnet18", 32)
    tensors = timm.create_model("resnet18", num_classes=7).state_dict()
    load_weights(backbone.net, tensors, name="resnet18", origin="here")
    tensors["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    del tensors["bn1.bias"]
    tensors["extra"] = torch.zeros(4)
    with pytest.raises(WeightsError) as caught:
        load_weights(backbone.net, tensors, name="resnet18", origin="here")
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
        load_backbone(BackboneConfig(name="resnet18", image_size=32, weights="imagenet.zip"))
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


def test_a_random_transformer_averages_its_patches_through_batch_normalisation(tmp_path):
    config = Config.load(overrides={"backbone.name": "vit_tiny_patch16_224", "backbone.image_size": 32})
    backbone = first_backbone(config)
    assert backbone.pooling == "average_batchnorm"
    images = torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        out = backbone.train()(images)
        tokens = backbone.net.forward_features(backbone.normalised(images))[:, 1:].mean(dim=1)
    expected = (tokens - tokens.mean(dim=0)) / (tokens.var(dim=0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    path = tmp_path / "vit.safetensors"
    backbone.eval().save(path)
    again = open_backbone(path).eval()
    assert again.digest() == backbone.digest()
    # as a start of other training, too, it keeps what it was trained with
    start = load_backbone(BackboneConfig(name="vit_tiny_patch16_224", image_size=32, weights=str(path)))
    assert (start.pooling, start.digest()) == (backbone.pooling, backbone.digest())
    token = Config.load(overrides={"backbone.image_size": 32, "train.method": "dinov2"})
    assert first_backbone(token).pooling == "default"
    with pytest.raises(ConfigError, match=r"average_batchnorm with train\.method dinov2"):
        make_method(Config.load(overrides={"train.method": "dinov2", "backbone.pooling": "average_batchnorm"}))


def test_attention_step_by_step_gives_the_same():
    backbone = new_backbone("vit_tiny_patch16_224", 32).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = backbone(images)
    assert any(getattr(module, "fused_attn", False) for module in backbone.modules())
    plain_attention(backbone)
    assert not any(getattr(module, "fused_attn", False) for module in backbone.modules())
    torch.testing.assert_close(backbone(images), expected, atol=1e-5, rtol=1e-4)

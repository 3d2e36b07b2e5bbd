"""The YOLOX-tiny network of MegadetectorLite: definition, weights, decoding.

In: (B, 3, h, w) float32 RGB in [0, 255], h and w multiples of 32. Out: (B, N, 5 + classes): centre x, centre y, width,
height in pixels of that input, objectness, class scores, sigmoids applied. The network is that of Ge et al., "YOLOX:
Exceeding YOLO Series in 2021" (arXiv 2107.08430); attribute names are those of its published checkpoints, so that a
checkpoint fits without a table of renamings. The alternative, a package that carries all of YOLOX, brings training
code, augmentations and their dependencies for the hundred lines that inference needs.

Shape legend: B images, C channels, N = h*w/64 + h*w/256 + h*w/1024 places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (8, 16, 32)
BATCH_NORM_EPS = 1e-3  # the checkpoint was trained with it; torch's own default is 1e-5


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, stride, padding=(size - 1) // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, channels_out, h / stride, w / stride)."""
        activated: Tensor = self.act(self.bn(self.conv(x)))
        return activated

    def fold(self) -> None:
        """Put the batch normalisation into the convolution's weights; for evaluation only."""
        assert isinstance(self.bn, nn.BatchNorm2d)
        self.conv = fuse_conv_bn_eval(self.conv, self.bn)
        self.bn = nn.Identity()


class Focus(nn.Module):
    """Every second pixel into a channel of its own, then a convolution."""

    def __init__(self, channels_out: int) -> None:
        super().__init__()
        self.conv = Conv(12, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, channels_out, h / 2, w / 2)."""
        quarters = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        focused: Tensor = self.conv(torch.cat(quarters, 1))
        return focused


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with the input added where ``residual``."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 1)
        self.conv2 = Conv(channels, channels, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        changed: Tensor = self.conv2(self.conv1(x))
        return changed + x if self.residual else changed


class Csp(nn.Module):
    """Cross-stage partial layer: bottlenecks on one half of the channels."""

    def __init__(self, channels_in: int, channels_out: int, depth: int, residual: bool) -> None:
        super().__init__()
        half = channels_out // 2
        self.conv1 = Conv(channels_in, half, 1)
        self.conv2 = Conv(channels_in, half, 1)
        self.conv3 = Conv(channels_out, channels_out, 1)
        self.m = nn.Sequential(*(Bottleneck(half, residual) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels_out, h, w)."""
        joined: Tensor = self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))
        return joined


class Spp(nn.Module):
    """Spatial pyramid pooling over 5, 9 and 13 places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels // 2, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in (5, 9, 13))
        self.conv2 = Conv(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        x = self.conv1(x)
        pooled: Tensor = self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))
        return pooled


class Darknet(nn.Module):
    """The trunk; gives its features at strides 8, 16, 32."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.stem = Focus(c)
        self.dark2 = nn.Sequential(Conv(c, c * 2, 3, 2), Csp(c * 2, c * 2, 1, True))
        self.dark3 = nn.Sequential(Conv(c * 2, c * 4, 3, 2), Csp(c * 4, c * 4, 3, True))
        self.dark4 = nn.Sequential(Conv(c * 4, c * 8, 3, 2), Csp(c * 8, c * 8, 3, True))
        self.dark5 = nn.Sequential(Conv(c * 8, c * 16, 3, 2), Spp(c * 16), Csp(c * 16, c * 16, 1, False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, h, w) to features of 4c, 8c and 16c channels."""
        at_8 = self.dark3(self.dark2(self.stem(x)))
        at_16 = self.dark4(at_8)
        return at_8, at_16, self.dark5(at_16)


class Pyramid(nn.Module):
    """Trunk and path-aggregation feature pyramid."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.backbone = Darknet(c)
        self.lateral_conv0 = Conv(c * 16, c * 8, 1)
        self.C3_p4 = Csp(c * 16, c * 8, 1, False)
        self.reduce_conv1 = Conv(c * 8, c * 4, 1)
        self.C3_p3 = Csp(c * 8, c * 4, 1, False)
        self.bu_conv2 = Conv(c * 4, c * 4, 3, 2)
        self.C3_n3 = Csp(c * 8, c * 8, 1, False)
        self.bu_conv1 = Conv(c * 8, c * 8, 3, 2)
        self.C3_n4 = Csp(c * 16, c * 16, 1, False)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, h, w) to features of 4c, 8c and 16c channels at strides 8, 16, 32."""
        at_8, at_16, at_32 = self.backbone(x)
        down_32 = self.lateral_conv0(at_32)
        down_16 = self.reduce_conv1(self.C3_p4(torch.cat([self.upsample(down_32), at_16], 1)))
        out_8 = self.C3_p3(torch.cat([self.upsample(down_16), at_8], 1))
        out_16 = self.C3_n3(torch.cat([self.bu_conv2(out_8), down_16], 1))
        out_32 = self.C3_n4(torch.cat([self.bu_conv1(out_16), down_32], 1))
        return out_8, out_16, out_32


class Head(nn.Module):
    """Decoupled heads: box, objectness and classes at every place of the three strides."""

    def __init__(self, c: int, num_classes: int) -> None:
        super().__init__()
        wide = c * 4
        self.stems = nn.ModuleList(Conv(channels, wide, 1) for channels in (c * 4, c * 8, c * 16))
        self.cls_convs = nn.ModuleList(nn.Sequential(Conv(wide, wide, 3), Conv(wide, wide, 3)) for _ in STRIDES)
        self.reg_convs = nn.ModuleList(nn.Sequential(Conv(wide, wide, 3), Conv(wide, wide, 3)) for _ in STRIDES)
        self.cls_preds = nn.ModuleList(nn.Conv2d(wide, num_classes, 1) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(nn.Conv2d(wide, 4, 1) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(nn.Conv2d(wide, 1, 1) for _ in STRIDES)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features at strides 8, 16, 32 to (B, N, 5 + classes)."""
        levels = []
        for i, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
            x = self.stems[i](feature)
            regression = self.reg_convs[i](x)
            box = self.reg_preds[i](regression)
            scores = torch.cat([self.obj_preds[i](regression), self.cls_preds[i](self.cls_convs[i](x))], 1).sigmoid()
            rows = torch.arange(box.shape[2], dtype=box.dtype, device=box.device)
            columns = torch.arange(box.shape[3], dtype=box.dtype, device=box.device)
            grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
            centre = (box[:, :2] + torch.stack([grid_x, grid_y])) * stride
            levels.append(torch.cat([centre, box[:, 2:].exp() * stride, scores], 1).flatten(2))
        return torch.cat(levels, 2).transpose(1, 2)


class YoloX(nn.Module):
    """The whole network; ``c`` = 24 is YOLOX-tiny (depth 0.33, width 0.375)."""

    def __init__(self, c: int = 24, num_classes: int = 1) -> None:
        super().__init__()
        self.backbone = Pyramid(c)
        self.head = Head(c, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) float32 RGB in [0, 255] to (B, N, 5 + classes)."""
        decoded: Tensor = self.head(self.backbone(images))
        return decoded


def load_folded(state: Mapping[str, Any]) -> YoloX:
    """YOLOX-tiny for inference.

    Args:
        state: A state dict of its published form.

    Returns:
        The network in evaluation mode, batch normalisation folded into the convolutions, laid out channels-last.

    Raises:
        RuntimeError: Keys or shapes are not this network's.
    """
    network = YoloX()
    network.load_state_dict(state)
    network.eval()
    for module in network.modules():
        if isinstance(module, Conv):
            module.fold()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)

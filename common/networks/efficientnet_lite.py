"""EfficientNet-Lite0 as an encoder: the layers, names and values of timm's, without the seconds of importing timm."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

NAME = "tf_efficientnet_lite0"  # in timm
INPUT_STATISTICS = 0.5, 0.5  # mean and standard deviation with which its input in 0..1 is normalized

_STEM = 32  # channels
# (blocks, kernel size, stride of the first block, channels) of each stage; all but the first expand sixfold
_STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
_EXPANSION = 6
_LAST_OF_SIZE = (0, 1, 2, 4, 6)  # stages whose output is the last one of its size


class FeatureInfo:
    """Describes the feature maps, with the methods of timm's class of the same name."""

    def reduction(self) -> list[int]:
        """Side of the input over the side of each map."""
        return [2, 4, 8, 16, 32]

    def channels(self) -> list[int]:
        """Number of channels of each map."""
        return [_STAGES[stage][3] for stage in _LAST_OF_SIZE]

    def module_name(self, index: int) -> str:
        """Name of the module that returns a map."""
        return f"blocks.{_LAST_OF_SIZE[index]}"


class EfficientNetLite0(nn.Module):
    """The convolutional part of EfficientNet-Lite0 (Tan and Le 2019; Lite: ReLU6, no squeeze-and-excitation).

    Input: [N, in_channels, H, W], normalized with `INPUT_STATISTICS`. Output: five feature maps, at 1/2 to 1/32 of the
    size. The state dict, the initial weights for a seed, and the outputs are equal to those of
    `timm.create_model(NAME, features_only=True, in_chans=in_channels)`.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv_stem = _conv(in_channels, _STEM, 3, stride=2)
        self.bn1 = _norm(_STEM)
        for _ in range(2):  # timm builds and discards these, so with the same seed the weights are the same
            nn.Conv2d(8, 8, 1)
        stages, before = [], _STEM
        for i, (count, side, stride, channels) in enumerate(_STAGES):
            block, blocks = _InvertedResidual if i else _SeparableConv, []
            for j in range(count):
                blocks.append(block(before, channels, side, 1 if j else stride))
                before = channels
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.feature_info = FeatureInfo()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, in_channels, H, W] -> five feature maps, the largest first."""
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        maps = []
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in _LAST_OF_SIZE:
                maps.append(x)
        return maps


class _SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, before: int, after: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(before, before, side, stride, groups=before)
        self.bn1 = _norm(before)
        self.conv_pw = _conv(before, after, 1)
        self.bn2 = _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)), inplace=True)))


class _InvertedResidual(nn.Module):
    """A pointwise, a depthwise and a pointwise convolution, and a shortcut where the shape does not change."""

    def __init__(self, before: int, after: int, side: int, stride: int) -> None:
        super().__init__()
        middle = before * _EXPANSION
        self.shortcut = stride == 1 and before == after
        self.conv_pw = _conv(before, middle, 1)
        self.bn1 = _norm(middle)
        self.conv_dw = _conv(middle, middle, side, stride, groups=middle)
        self.bn2 = _norm(middle)
        self.conv_pwl = _conv(middle, after, 1)
        self.bn3 = _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.shortcut else y


class _SameConv(nn.Conv2d):
    """A strided convolution with TensorFlow's padding: an odd pixel of padding is at the lower and right edge."""

    def forward(self, x: Tensor) -> Tensor:
        (side, _), (stride, _) = self.kernel_size, self.stride
        down, right = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[-2:])
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self._conv_forward(x, self.weight, self.bias)


def _conv(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(before, after, side, padding=side // 2, groups=groups, bias=False)
    return _SameConv(before, after, side, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)

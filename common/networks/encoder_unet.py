"""A U-Net on a pretrained timm encoder, with a light decoder: one network for several families."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_from_unit, grey_from_L
from common.networks import efficientnet_lite
from common.networks.timm_features import pretrained_features, timm_features
from common.utils.errors import UserError

Freeze = Literal["all", "stages", "none"]
DEFAULT_ENCODER = efficientnet_lite.NAME

_DECODER = {2: 64, 4: 64, 8: 96}  # reduction of a feature map -> channels of the decoder at this size
_DEEP = 160  # channels of the decoder at all deeper maps
_BRANCH = (32, 48)  # channels of the branch on L, at 1/2 and 1/4 of the size
ENCODER_LR_RATIO = 0.1  # learning rate of encoder layers that are trained, relative to that of the decoder
_FROZEN_REDUCTION = 8  # `freeze: stages` freezes the encoder up to its feature map at 1/8


class EncoderUNet(nn.Module):
    """A U-Net whose encoder is a timm network and whose decoder ends at a quarter of the size.

    The decoder begins with a 1x1 convolution of the deepest feature map. Each step enlarges by bilinear interpolation,
    concatenates the next finer feature map, and applies a 3x3 convolution, batch norm and ReLU, up to the map at 1/4,
    where a small branch on L (two strided 3x3 convolutions) is concatenated as well. A 3x3 and a 1x1 convolution
    follow. There is no activation at the end.

    Input: L [N, 1, H, W] in network range; H and W are multiples of `multiple`. Output: [N, out_channels, H/4, W/4], or
    [N, out_channels, H, W] with `full_size`.

    Args:
        out_channels: number of output channels.
        encoder: a timm network with feature maps.
        pretrained: load its ImageNet weights.
        freeze: `all` freezes the encoder, `stages` its layers up to the map at 1/8, `none` nothing. Frozen layers stay
            in eval mode, and their weights are buffers, so that no optimizer can update them. Other layers of the
            encoder learn at a tenth of the decoder's rate.
        width: factor on the decoder's channels.
        full_size: enlarge the output four times, bilinearly.
        prefix: of the options' names in messages.

    Raises:
        UserError: the network has no feature maps at 1/4 and 1/8, or its weights are missing.
    """

    def __init__(
        self,
        out_channels: int,
        encoder: str = DEFAULT_ENCODER,
        pretrained: bool = False,
        freeze: Freeze = "all",
        width: float = 1.0,
        full_size: bool = False,
        prefix: str = "model",
    ) -> None:
        super().__init__()
        if freeze not in get_args(Freeze):
            raise UserError(f"{prefix}.freeze is {freeze}: expected {', '.join(get_args(Freeze))}")
        if not 0.1 <= width <= 4:
            raise UserError(f"{prefix}.width is {width}: with encoder_unet, expected a factor from 0.1 to 4")
        self.full_size = full_size
        if encoder == DEFAULT_ENCODER:
            self.encoder = efficientnet_lite.EfficientNetLite0(1)
        else:
            take = f"a convolutional one such as {DEFAULT_ENCODER} or resnet18"
            self.encoder = timm_features(f"{prefix}.encoder", encoder, take, 1)
        if pretrained:
            self.encoder = pretrained_features(self.encoder, encoder, f"set {prefix}.pretrained false", 1)
        self.encoder.lr_ratio = ENCODER_LR_RATIO
        self.mean, self.std = input_statistics(encoder)
        reductions = self.encoder.feature_info.reduction()
        if 4 not in reductions or reductions[-1] == 4:
            raise UserError(
                f"{prefix}.encoder is {encoder}: encoder_unet takes networks with feature maps at 1/4 and 1/8"
            )
        self.multiple = reductions[-1]
        self.first = reductions.index(4)  # the decoder uses the feature maps from this one on
        self.frozen = frozen_layers(self.encoder, freeze, prefix)
        for layer in self.frozen:
            to_buffers(layer)
        self.train()

        skips = list(zip(reductions, self.encoder.feature_info.channels(), strict=True))[self.first :]
        half, quarter = (scaled(channels, width) for channels in _BRANCH)
        self.branch = nn.Sequential(conv_norm(1, half, 3, stride=2), conv_norm(half, quarter, 3, stride=2))
        before = scaled(_DEEP, width)
        self.deepest = conv_norm(skips[-1][1], before, 1)
        steps = []
        for reduction, channels in reversed(skips[:-1]):
            after = scaled(_DECODER.get(reduction, _DEEP), width)
            steps.append(conv_norm(before + channels + (quarter if reduction == 4 else 0), after, 3))
            before = after
        self.steps = nn.ModuleList(steps)
        self.refine = conv_norm(before, before, 3)
        self.head = nn.Conv2d(before, out_channels, 1)
        nn.init.normal_(self.head.weight, std=0.01)  # start from a uniform distribution, or from grey
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> EncoderUNet:
        """Set the mode of all layers except frozen ones, which stay in eval mode."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """L [N, 1, H, W] in network range -> [N, out_channels, H/4, W/4], or [..., H, W] with `full_size`."""
        y = self.head(self.features(x))
        if not self.full_size:
            return y
        return F.interpolate(y.float(), scale_factor=4, mode="bilinear", align_corners=False)

    def features(self, x: Tensor) -> Tensor:
        """L [N, 1, H, W] in network range -> the features before the last layer, [N, C, H/4, W/4]."""
        grey = (grey_from_L(L_from_unit(x)) - self.mean) / self.std
        *skips, deepest = self.encoder(grey)[self.first :]
        y = self.deepest(deepest)
        for i, (step, skip) in enumerate(zip(self.steps, reversed(skips), strict=True), start=1):
            parts = [F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False), skip]
            if i == len(self.steps):
                parts.append(self.branch(x))
            y = step(torch.cat([part.to(y.dtype) for part in parts], dim=1))
        return self.refine(y)


def conv_norm(before: int, after: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution with kernel size `side` and same padding, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, padding=side // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8."""
    return max(8, round(channels * width / 8) * 8)


def input_statistics(encoder: str) -> tuple[float, float]:
    """Mean and standard deviation with which a timm network normalizes its input in 0..1, averaged over RGB."""
    if encoder == DEFAULT_ENCODER:
        return efficientnet_lite.INPUT_STATISTICS
    import timm

    config = timm.get_pretrained_cfg(encoder)
    return sum(config.mean) / 3, sum(config.std) / 3


def frozen_layers(encoder: nn.Module, freeze: Freeze, prefix: str = "model") -> list[nn.Module]:
    """The layers of a timm encoder that are frozen.

    With `stages` these are all layers up to the one whose output is the map at 1/8, in the order of registration.
    prefix: of the option's name in messages. Raises UserError if that layer is not found.
    """
    if freeze == "none":
        return []
    if freeze == "all":
        return [encoder]
    info = encoder.feature_info
    name = info.module_name(max(i for i, r in enumerate(info.reduction()) if r <= _FROZEN_REDUCTION))
    named = dict(encoder.named_modules())
    last = named.get(name, named.get(name.replace(".", "_")))
    if last is None:
        raise UserError(f"{prefix}.freeze is stages: with this encoder, expected all or none")
    layers = list(named.values())  # each module comes before its children
    end = next(i for i, layer in enumerate(layers) if layer is last) + len(list(last.modules()))
    return [layer for i, layer in enumerate(layers) if i + len(list(layer.modules())) <= end]


def to_buffers(network: nn.Module) -> int:
    """Turn all parameters of a network into buffers of the same names, so that no optimizer can update them.

    Returns the number of their elements.
    """
    count = 0
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            count += parameter.numel()
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return count


def check_other_network(
    network: str, encoder: str = DEFAULT_ENCODER, pretrained: bool = False, freeze: Freeze = "all", width: float = 1.0
) -> None:
    """Raise UserError if options of `EncoderUNet` are given for another network, which is called `network`."""
    given = {"encoder": (encoder, DEFAULT_ENCODER), "pretrained": (pretrained, False), "freeze": (freeze, "all"),
             "width": (width, 1.0)}  # fmt: skip
    for name, (value, default) in given.items():
        if value != default:
            raise UserError(
                f"model.{name} is {value}, an option of encoder_unet, and model.network is {network}: leave it out"
            )

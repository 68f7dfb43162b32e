"""U-Nets with the encoder of an image classifier: timm networks, or fastai's DynamicUnet."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze
from common.networks.pretrained import fetched
from common.networks.timm_features import pretrained_features, timm_features
from common.utils.errors import UserError
from gan.unet import Norm, norm_layer


class TimmUNet(nn.Module):
    """A U-Net whose encoder is a timm network.

    Each block of the decoder upsamples, concatenates the next finer feature map of the encoder, and applies two
    convolutions. The last block concatenates the input instead of a feature map.

    Input: [N, in_channels, H, W]; H and W are multiples of `multiple`. Output: [N, out_channels, H, W] in -1..1.

    Args:
        encoder: a timm network with feature maps, such as `resnet18` or `convnext_tiny`.
        pretrained: load its ImageNet weights. For one input channel, timm sums the weights of the first convolution.
        up: method of upsampling: `shuffle` (Shi et al. 2016) or `bilinear`.
        attention: apply self-attention to the feature map that is this many times smaller than the picture (0: none).
        width: channels at full size.
        norm: normalization of the decoder.
        in_channels, out_channels: of the network.

    Raises:
        UserError: timm has no such network, or it has no feature maps, or none for `attention`.
    """

    def __init__(
        self,
        encoder: str = "resnet18",
        pretrained: bool = False,
        up: Literal["shuffle", "bilinear"] = "shuffle",
        attention: int = 0,
        width: int = 32,
        norm: Norm = "batch",
        in_channels: int = 1,
        out_channels: int = 2,
    ) -> None:
        super().__init__()
        take = "a convolutional one such as resnet18 or convnext_tiny"
        self.encoder = timm_features("model.generator.encoder", encoder, take, in_channels)
        if pretrained:
            self.encoder = pretrained_features(
                self.encoder, encoder, "set model.generator.pretrained false", in_channels
            )
        scales = [1, *self.encoder.feature_info.reduction()]
        channels = [in_channels, *self.encoder.feature_info.channels()]
        self.multiple = scales[-1]
        if attention and attention not in scales[1:]:
            takes = ", ".join(map(str, scales[1:]))
            raise UserError(f"model.generator.attention is {attention}: with {encoder}, expected 0 or one of {takes}")
        self.up = nn.ModuleList()
        before = channels[-1]
        self.attention = SelfAttention(before) if attention == scales[-1] else nn.Identity()
        for i in reversed(range(len(scales) - 1)):
            after = max(width, min(channels[i], before // 2)) if i else width
            block = [UpBlock(before, channels[i], after, scales[i + 1] // scales[i], up, norm)]
            self.up.append(nn.ModuleList([*block, SelfAttention(after) if attention == scales[i] else nn.Identity()]))
            before = after
        self.last = nn.Conv2d(before, out_channels, 1)
        nn.init.normal_(self.last.weight, 0.0, 0.02)  # start near grey
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        *passed, deepest = [x, *self.encoder(x)]
        y = self.attention(deepest)
        for (block, attention), skip in zip(self.up, reversed(passed), strict=True):
            y = attention(block(y, skip))
        return torch.tanh(self.last(y))


class BoundedEncoderUNet(EncoderUNet):
    """The `EncoderUNet` of the families `baselines` and `classification` with an output of full size, and tanh.

    Its weights are those of the network of `baselines`. Input: L [N, 1, H, W] in network range; H and W are multiples
    of `multiple`. Output: ab [N, 2, H, W] in -1..1, float32. Arguments and errors are those of `EncoderUNet`.
    """

    def __init__(self, encoder: str = DEFAULT_ENCODER, pretrained: bool = False, freeze: Freeze = "all") -> None:
        super().__init__(2, encoder, pretrained, freeze, full_size=True, prefix="model.generator")

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, H, W] -> [N, 2, H, W]."""
        return torch.tanh(super().forward(x))


class UpBlock(nn.Module):
    """Upsample by a factor, concatenate the skip connection, and apply two convolutions."""

    def __init__(self, before: int, skip: int, after: int, factor: int, up: str, norm: Norm) -> None:
        super().__init__()
        self.factor = factor
        bias = norm != "batch"
        if up == "shuffle":
            shuffled = nn.Conv2d(before, after * factor**2, 1)
            init_icnr(shuffled, factor)
            self.enlarge: nn.Module = nn.Sequential(shuffled, nn.PixelShuffle(factor), nn.ReLU(inplace=True))
        else:
            self.enlarge = nn.Sequential(
                nn.Conv2d(before, after, 1),
                nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False),
                nn.ReLU(inplace=True),
            )
        self.body = nn.Sequential(
            nn.Conv2d(after + skip, after, 3, padding=1, bias=bias), norm_layer(norm, after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=bias), norm_layer(norm, after), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[N, before, H, W] and the skip [N, skip, H * factor, W * factor] -> [N, after, H * factor, W * factor]."""
        return self.body(torch.cat([self.enlarge(x), skip], dim=1))


def init_icnr(conv: nn.Conv2d, factor: int) -> None:
    """Initialize a convolution before a pixel shuffle such that both together upsample by nearest neighbor.

    This avoids checkerboard artifacts at the start of training (ICNR, Aitken et al. 2017).
    """
    with torch.no_grad():
        first = torch.empty(conv.out_channels // factor**2, *conv.weight.shape[1:])
        nn.init.kaiming_normal_(first)
        conv.weight.copy_(first.repeat_interleave(factor**2, dim=0))
        if conv.bias is not None:
            conv.bias.zero_()


class SelfAttention(nn.Module):
    """Self-attention over all positions of a feature map (Zhang et al. 2019, section 3). It starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        q, k, v = (m(x).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.query, self.key, self.value))
        found = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # [N, 1, H * W, C]
        return x + self.gain * found.squeeze(1).transpose(1, 2).reshape(x.shape)


class FastaiUNet(nn.Module):
    """fastai's DynamicUnet with a ResNet18 as encoder, followed by tanh.

    Input: [N, in_channels, H, W]; H and W are multiples of 32. Output: [N, out_channels, H, W] in -1..1. size: H and W
    in training.
    """

    multiple = 32

    def __init__(self, size: int, pretrained: bool = False, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        with warnings.catch_warnings():  # of fastai's own dependencies
            warnings.simplefilter("ignore", FutureWarning)
            from fastai.vision.learner import create_body  # takes seconds to import
            from fastai.vision.models.unet import DynamicUnet
        from torchvision.models import ResNet18_Weights, resnet18

        def body() -> nn.Module:
            weights = ResNet18_Weights.DEFAULT if pretrained else None
            return create_body(resnet18(weights=weights), n_in=in_channels, pretrained=pretrained)

        encoder = body() if not pretrained else fetched(
            "pretrained ResNet18 weights", "torchvision", body, "set model.generator.pretrained false"
        )  # fmt: skip
        self.network = DynamicUnet(encoder, out_channels, (size, size))

    @property
    def encoder(self) -> nn.Module:
        """The part that `freeze_encoder` of a stage freezes."""
        return self.network[0]

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        return torch.tanh(self.network(x))

"""U-Nets whose encoder is a network of classification: timm's with feature maps, or fastai's DynamicUnet."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.networks.pretrained import fetched
from common.networks.timm_features import pretrained_features, timm_features
from common.utils.errors import UserError
from gan.unet import Norm, norm_layer


class EncoderUNet(nn.Module):
    """A U-Net on the feature maps of a timm network.

    Each step up enlarges to the next finer map of the encoder, puts that map beside it, and convolves twice; the last
    one puts the input itself beside it. Input [N, in_channels, H, W], output [N, out_channels, H, W] in -1..1, H and W
    multiples of `multiple`.

    encoder: a timm network with feature maps (`resnet18`, `convnext_tiny`, ...). pretrained: from ImageNet; timm sums
    the stem's weights where the input has one channel. up: `shuffle` (Shi et al. 2016) or `bilinear`. attention: adds
    self-attention where the map is this many times smaller than the picture (0: none). width: channels at full size.
    Raises UserError for a network that timm does not know, or one without feature maps.
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
            self.encoder = pretrained_features(encoder, "set model.generator.pretrained false", in_channels)
        scales = [1, *self.encoder.feature_info.reduction()]
        channels = [in_channels, *self.encoder.feature_info.channels()]
        self.multiple = scales[-1]
        if attention and attention not in scales[1:]:
            takes = ", ".join(map(str, scales[1:]))
            raise UserError(f"model.generator.attention is {attention}: with {encoder} it takes 0 or one of {takes}")
        self.up = nn.ModuleList()
        before = channels[-1]
        self.attention = SelfAttention(before) if attention == scales[-1] else nn.Identity()
        for i in reversed(range(len(scales) - 1)):
            after = max(width, min(channels[i], before // 2)) if i else width
            block = [UpBlock(before, channels[i], after, scales[i + 1] // scales[i], up, norm)]
            self.up.append(nn.ModuleList([*block, SelfAttention(after) if attention == scales[i] else nn.Identity()]))
            before = after
        self.last = nn.Conv2d(before, out_channels, 1)
        nn.init.normal_(self.last.weight, 0.0, 0.02)  # begins near grey
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        *passed, deepest = [x, *self.encoder(x)]
        y = self.attention(deepest)
        for (block, attention), skip in zip(self.up, reversed(passed), strict=True):
            y = attention(block(y, skip))
        return torch.tanh(self.last(y))


class UpBlock(nn.Module):
    """Enlarge by a factor, put a skip beside it, convolve twice."""

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
    """Let all channels that a pixel shuffle lays side by side begin alike, so it begins without a checkerboard.

    Aitken et al. 2017: `conv` then enlarges as nearest neighbours do.
    """
    with torch.no_grad():
        first = torch.empty(conv.out_channels // factor**2, *conv.weight.shape[1:])
        nn.init.kaiming_normal_(first)
        conv.weight.copy_(first.repeat_interleave(factor**2, dim=0))
        if conv.bias is not None:
            conv.bias.zero_()


class SelfAttention(nn.Module):
    """Every place looks at every other (Zhang et al. 2019, 3): [N, C, H, W] -> the same, at first the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        q, k, v = (m(x).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.query, self.key, self.value))
        found = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # [N, 1, H * W, C]
        return x + self.gain * found.squeeze(1).transpose(1, 2).reshape(x.shape)


class FastaiUNet(nn.Module):
    """fastai's DynamicUnet on the body of a ResNet18, a tanh at its end.

    Input [N, in_channels, H, W], output [N, out_channels, H, W] in -1..1; H and W are multiples of 32.
    """

    multiple = 32

    def __init__(self, size: int, pretrained: bool = False, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        with warnings.catch_warnings():  # what its own dependencies warn of is no news to those who train
            warnings.simplefilter("ignore", FutureWarning)
            from fastai.vision.learner import create_body  # seconds to import
            from fastai.vision.models.unet import DynamicUnet
        from torchvision.models import ResNet18_Weights, resnet18

        def body() -> nn.Module:
            weights = ResNet18_Weights.DEFAULT if pretrained else None
            return create_body(resnet18(weights=weights), n_in=in_channels, pretrained=pretrained)

        made = body() if not pretrained else fetched(
            "pretrained ResNet18 weights", "torchvision", body, "set model.generator.pretrained false"
        )  # fmt: skip
        self.network = DynamicUnet(made, out_channels, (size, size))

    @property
    def encoder(self) -> nn.Module:
        """The part that `freeze_encoder` of a stage freezes."""
        return self.network[0]

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        return torch.tanh(self.network(x))

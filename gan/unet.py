"""The U-Net generator of pix2pix (Isola et al. 2017, appendix 6.1.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "instance", "none"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """The normalisation of a name; `none` is the identity."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True) if norm == "instance" else nn.Identity()


def init_pix2pix(network: nn.Module) -> nn.Module:
    """Convolutions N(0, 0.02), biases 0; norm scales N(1, 0.02) (pix2pix, section 3.3 of its appendix)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.weight is not None:
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


class UNet(nn.Module):
    """Encoder-decoder with a skip at every scale: 4x4 stride-2 convolutions down, 4x4 stride-2 transposed ones up.

    Widths C64-128-256-512-512-... (times width / 64), LeakyReLU 0.2 down, ReLU up, no normalisation in the first
    and the innermost layer, dropout 0.5 in decoder blocks that follow the innermost (three at depth 7 and more, two at
    6, one at 5), tanh.
    Input [N, in_channels, H, W], output [N, out_channels, H, W] in -1..1; H and W are multiples of 2 ** depth.
    With depth 8, width 64 and 3 channels in and out it has 54.41 M parameters, as published.
    """

    def __init__(
        self,
        depth: int,
        width: int = 64,
        norm: Norm = "batch",
        dropout: float = 0.5,
        in_channels: int = 1,
        out_channels: int = 2,
    ) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(depth)]
        bias = norm != "batch"  # batch norm has its own
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, after in enumerate(widths):
            before = widths[i - 1] if i else in_channels
            normed = 0 < i < depth - 1
            self.down.append(
                nn.Sequential(
                    nn.LeakyReLU(0.2) if i else nn.Identity(),
                    nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias or not normed),
                    norm_layer(norm, after) if normed else nn.Identity(),
                )
            )
        for i in reversed(range(depth)):  # from the innermost outwards
            before = widths[i] * (1 if i == depth - 1 else 2)
            after = widths[i - 1] if i else out_channels
            drops = depth - 4 <= i < depth - 1 and i >= 3
            self.up.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias or i == 0),
                    norm_layer(norm, after) if i else nn.Tanh(),
                    nn.Dropout(dropout) if drops and dropout else nn.Identity(),
                )
            )
        init_pix2pix(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        skips.pop()
        for layer in self.up:
            x = layer(x)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return x

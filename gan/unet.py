"""The U-Net generator of pix2pix (Isola et al. 2017, appendix 6.1.1), and its form without skips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
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


def noise_like(network: nn.Module, x: Tensor, draw: Callable[..., Tensor], channels: int) -> Tensor:
    """Random numbers [N, channels, H, W] for x [N, C, H, W].

    In training from torch's own stream; in use from one seed and alike for every picture, so that a picture stays
    itself, whichever others it comes with.
    """
    if network.training:
        return draw((len(x), channels, *x.shape[2:]), device=x.device)
    fixed = torch.Generator(x.device).manual_seed(0)
    return draw((1, channels, *x.shape[2:]), generator=fixed, device=x.device).expand(len(x), -1, -1, -1)


class TestTimeDropout(nn.Dropout):
    """Dropout that stays on when the network is used, as pix2pix's only source of noise (Isola et al. 2017, 3.1)."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        if self.training:
            return F.dropout(x, self.p)
        return x * (noise_like(self, x, torch.rand, x.shape[1]) >= self.p) / (1 - self.p)


class UNet(nn.Module):
    """Encoder-decoder with a skip at every scale: 4x4 stride-2 convolutions down, 4x4 stride-2 transposed ones up.

    Widths C64-128-256-512-512-... (times width / 64), LeakyReLU 0.2 down, ReLU up, no normalisation in the first
    and the innermost layer, dropout 0.5 in decoder blocks that follow the innermost (three at depth 7 and more, two at
    6, one at 5), tanh.
    Input [N, in_channels, H, W], output [N, out_channels, H, W] in -1..1; H and W are multiples of 2 ** depth.
    With depth 8, width 64 and 3 channels in and out it has 54.41 M parameters, as published.

    skips: off for a plain encoder-decoder, all of whose knowledge of the picture goes through its narrowest layer.
    noise_channels: so many channels of Gaussian noise stand beside the input; the same noise whenever it is used.
    """

    def __init__(
        self,
        depth: int,
        width: int = 64,
        norm: Norm = "batch",
        dropout: float = 0.5,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        skips: bool = True,
        dropout_at_test: bool = False,
        noise_channels: int = 0,
    ) -> None:
        super().__init__()
        self.skips, self.noise_channels = skips, noise_channels
        widths = [width * min(2**i, 8) for i in range(depth)]
        bias = norm != "batch"  # batch norm has its own
        drop = TestTimeDropout if dropout_at_test else nn.Dropout
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, after in enumerate(widths):
            before = widths[i - 1] if i else in_channels + noise_channels
            normed = 0 < i < depth - 1
            self.down.append(
                nn.Sequential(
                    nn.LeakyReLU(0.2) if i else nn.Identity(),
                    nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias or not normed),
                    norm_layer(norm, after) if normed else nn.Identity(),
                )
            )
        for i in reversed(range(depth)):  # from the innermost outwards
            before = widths[i] * (1 if i == depth - 1 or not skips else 2)
            after = widths[i - 1] if i else out_channels
            drops = depth - 4 <= i < depth - 1 and i >= 3
            self.up.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias or i == 0),
                    norm_layer(norm, after) if i else nn.Tanh(),
                    drop(dropout) if drops and dropout else nn.Identity(),
                )
            )
        init_pix2pix(self)

    @property
    def encoder(self) -> nn.Module:
        """The half that a recipe may freeze."""
        return self.down

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        if self.noise_channels:
            x = torch.cat([x, noise_like(self, x, torch.randn, self.noise_channels)], dim=1)
        passed = []
        for layer in self.down:
            x = layer(x)
            passed.append(x)
        passed.pop()
        for layer in self.up:
            x = layer(x)
            if passed and self.skips:
                x = torch.cat([x, passed.pop()], dim=1)
        return x

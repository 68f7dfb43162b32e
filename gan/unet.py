"""The U-Net generator of pix2pix (Isola et al. 2017, appendix 6.1.1), with or without skip connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "instance", "none"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """The normalization layer for a number of channels. `none` is the identity."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True) if norm == "instance" else nn.Identity()


def init_pix2pix(network: nn.Module) -> nn.Module:
    """Initialize convolutions with N(0, 0.02), norm scales with N(1, 0.02), and biases with 0 (pix2pix, 3.3)."""
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

    In training mode they come from torch's global generator. In eval mode their seed is `network.noise_seed`, and they
    are the same for every picture, so that the result does not depend on the rest of the batch. draw: `torch.rand` or
    `torch.randn`.
    """
    if network.training:
        return draw((len(x), channels, *x.shape[2:]), device=x.device)
    fixed = torch.Generator(x.device).manual_seed(network.noise_seed)
    return draw((1, channels, *x.shape[2:]), generator=fixed, device=x.device).expand(len(x), -1, -1, -1)


class TestTimeDropout(nn.Dropout):
    """Dropout that is also active in eval mode. It is the only noise of pix2pix (Isola et al. 2017, section 3.1)."""

    noise_seed = 0

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        if self.training:
            return F.dropout(x, self.p)
        return x * (noise_like(self, x, torch.rand, x.shape[1]) >= self.p) / (1 - self.p)


class UNet(nn.Module):
    """Encoder-decoder with skip connections at every scale.

    The encoder has 4x4 convolutions with stride 2, the decoder 4x4 transposed convolutions with stride 2. Channels are
    64-128-256-512-512-... (times width / 64); LeakyReLU 0.2 in the encoder, ReLU in the decoder, tanh at the end. The
    first and the innermost layer have no normalization. Dropout 0.5 follows the innermost decoder blocks (three blocks
    at depth 7 and more, two at 6, one at 5). With depth 8, width 64 and 3 channels in and out the network has 54.41 M
    parameters, as published.

    Input [N, in_channels, H, W], output [N, out_channels, H, W] in -1..1; H and W are multiples of 2 ** depth.

    skips: without them it is a plain encoder-decoder. noise_channels: number of channels of Gaussian noise that are
    concatenated to the input (see `noise_like`).
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
        if noise_channels:
            self.noise_seed = 0
        widths = [width * min(2**i, 8) for i in range(depth)]
        bias = norm != "batch"  # batch norm has its own bias
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
        for i in reversed(range(depth)):  # from the innermost block
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
        """The part that `freeze_encoder` of a stage freezes."""
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

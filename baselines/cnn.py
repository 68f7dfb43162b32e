"""Convolutional regressors without a pretrained encoder."""

from __future__ import annotations

from torch import Tensor, nn


class CNN(nn.Sequential):
    """Twelve 3x3 convolutions, down to 1/8 of the size and back by nearest-neighbor upsampling.

    The channels are 64 - 64/2 - 128 - 128/2 - 256 - 256/2 - 512 - 256 - 128 - up - 64 - up - 32 - 2 - up, where /2 is a
    stride of 2. ReLU follows each convolution except the last, which tanh follows. The network has
    3,892,194 parameters.

    Input: [N, 1, H, W] in network range; H and W are multiples of 8. Output: [N, out_channels, H, W] in -1..1.
    """

    def __init__(self, out_channels: int = 2) -> None:
        plan: list[tuple[int, int] | str] = [
            (64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (256, 1), (128, 1), "up",
            (64, 1), "up", (32, 1),
        ]  # fmt: skip
        layers: list[nn.Module] = []
        channels = 1
        for item in plan:
            if isinstance(item, str):
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            else:
                width, stride = item
                layers += [nn.Conv2d(channels, width, 3, stride, padding=1), nn.ReLU(inplace=True)]
                channels = width
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1),
            nn.Tanh(),
            nn.Upsample(scale_factor=2, mode="nearest"),
        ]
        super().__init__(*layers)


class Residual(nn.Module):
    """Residual block of two 3x3 convolutions with batch norm (He et al. 2016, basic block)."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return self.relu(x + self.body(x))


class DeepCNN(nn.Module):
    """An improved `CNN`: standardized input, batch norm, residual and dilated blocks, bilinear upsampling.

    The last layer has no tanh and is initialized with zeros, so that training starts from grey.

    Input: [N, 1, H, W] in network range; H and W are multiples of 8. Output: [N, 2, H, W] in network range.
    """

    def __init__(self, width: int = 48, blocks: int = 6) -> None:
        super().__init__()

        def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )

        def up() -> nn.Upsample:
            return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

        w = width
        self.standardise = nn.BatchNorm2d(1, affine=False)
        self.down = nn.Sequential(
            conv(1, w), conv(w, 2 * w, 2), conv(2 * w, 2 * w), conv(2 * w, 4 * w, 2), conv(4 * w, 4 * w),
            conv(4 * w, 6 * w, 2),
        )  # fmt: skip
        self.middle = nn.Sequential(*(Residual(6 * w, dilation=1 + i % 2) for i in range(blocks)))
        self.up = nn.Sequential(
            conv(6 * w, 4 * w),
            up(),
            conv(4 * w, 2 * w),
            up(),
            conv(2 * w, w),
            nn.Conv2d(w, 2, 3, padding=1),
            up(),
        )
        last = self.up[-2]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, L: Tensor) -> Tensor:
        """[N, 1, H, W] in network range -> [N, 2, H, W] in network range."""
        return self.up(self.middle(self.down(self.standardise(L))))

"""Strided 4x4 convolutions: a regressor of the mean color, and a colorizer with transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from common.networks.fixed_size import FixedSize
from common.utils.errors import UserError

CHANNELS = (32, 64, 128, 256, 256, 512)
Activation = Literal["tanh", "sigmoid"]


def downsampling(channels: Sequence[int]) -> nn.Sequential:
    """4x4 convolutions with stride 2 and padding 1, each with batch norm and ReLU, from one channel.

    channels: of the feature maps; each map has half the size of the one before. Raises UserError unless there are 1 to
    8 numbers above 0.
    """
    if not 1 <= len(channels) <= 8 or min(channels) < 1:
        raise UserError(f"model.channels is {list(channels)}: expected 1 to 8 numbers above 0")
    layers: list[nn.Module] = []
    for before, after in pairwise((1, *channels)):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class MeanChroma(FixedSize):
    """Predicts the mean a and the mean b of a picture: strided convolutions, and a linear layer with 2 outputs.

    With the default channels (32-64-128-256-256-512) at 64 px it has 3,837,890 parameters, with 8-16-32-64-128-256 it
    has 700,018. Trained with the mean squared error on pixels it learns the mean color: that error is the squared error
    of the means plus the variance of the pixels, which no prediction changes.

    Input: [N, 1, size, size] in network range; other sizes are resized. Output: [N, 2, size, size], one color.

    size: a multiple of 2 ** len(channels), in pixels. Raises UserError for a smaller one.
    """

    multiple = 1

    def __init__(self, size: int, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__(size)
        self.down = downsampling(channels)
        check_halvings(size, channels)
        self.linear = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, 2)

    def square(self, L: Tensor) -> Tensor:
        """[N, 1, size, size] -> [N, 2, size, size]."""
        means = self.linear(self.down(L).flatten(1))
        return means[:, :, None, None].expand(-1, -1, self.size, self.size)


class Transposed(nn.Module):
    """The downsampling of `MeanChroma`, and transposed 4x4 convolutions with stride 2 and padding 1 back to full size.

    Batch norm and ReLU follow each transposed convolution except the last, which tanh or sigmoid follows. The sigmoid
    predicts ab scaled to 0..1, which is converted to network range: 2 sigmoid(x) - 1 = tanh(x / 2), so that the two
    variants differ by a factor of 2 in the last layer only. With the default channels the network has 7,673,218
    parameters.

    Input: [N, 1, H, W] in network range; H and W are multiples of 2 ** len(channels). Output: [N, 2, H, W] in -1..1.

    size: of the training pictures; it is only checked. Raises UserError where it is too small.
    """

    def __init__(
        self, size: int | None = None, channels: Sequence[int] = CHANNELS, activation: Activation = "tanh"
    ) -> None:
        super().__init__()
        self.down, self.activation = downsampling(channels), activation
        self.multiple = 2 ** len(channels)
        if size is not None:
            check_halvings(size, channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(reversed(channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after),
                       nn.ReLU(inplace=True)]  # fmt: skip
        self.up = nn.Sequential(*layers, nn.ConvTranspose2d(channels[0], 2, 4, 2, 1))

    def forward(self, L: Tensor) -> Tensor:
        """[N, 1, H, W] in network range -> [N, 2, H, W] in network range."""
        x = self.up(self.down(L))
        return x.tanh() if self.activation == "tanh" else 2 * x.sigmoid() - 1


def check_halvings(size: int, channels: Sequence[int]) -> None:
    """Raise UserError unless `size` can be halved once for each of the channels."""
    if size < 1 or size % 2 ** len(channels):
        raise UserError(
            f"model.size (or data.size, where that is not given) is {size}: {len(channels)} strided convolutions"
            f" (model.channels) expect a multiple of {2 ** len(channels)}"
        )

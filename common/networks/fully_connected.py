"""Valid convolutions and one linear layer that predicts all pixels at once."""

from __future__ import annotations

from torch import Tensor, nn

from common.networks.fixed_size import FixedSize
from common.utils.options import check_value

CHANNELS = (8, 16, 32, 64, 128, 16)
SIZES = (32, 64)
_KERNEL = 4
_FEATURES = 32  # per position at a quarter of the size; 32 (S / 4)^2 = 2 S^2, so the linear layer is the same


class FullyConnected(FixedSize):
    """Six valid 4x4 convolutions with ReLU and batch norm, and a linear layer to two numbers per pixel.

    At 64 px the flattened features are 16 x 46 x 46 = 33,856 numbers, from which the linear layer predicts 64 x 64 x 2
    = 8,192: 277,356,544 parameters, or 1.1 GB, and 4.4 GB in training (weights, gradients, two moments of Adam; with
    the temporary values of torch's Adam, the process takes 7.3 GB on a CPU). At 32 px they are 3,136 and 2,048, with
    6,424,576 parameters.

    A linear layer to the logits of a classifier would not be affordable (261 bins at a quarter of 64 px: 9 GB of
    weights). Unless `by_pixel`, the 2 S^2 outputs are therefore taken as 32 features at each position of a quarter of
    the size, and a 1x1 convolution, whose weights all positions share, predicts `out_channels` from them. So the logits
    of a position have rank 32.

    Input: [N, 1, size, size] in network range; other sizes are resized. Output: [N, 2, size, size] in network range,
    or [N, out_channels, size / 4, size / 4].

    size: 32 or 64. dropout: probability, after each batch norm. Raises UserError for values out of range.
    """

    multiple = 4

    def __init__(self, size: int, out_channels: int = 2, dropout: float = 0.0, by_pixel: bool = True) -> None:
        check_value("model.size (or data.size, where that is not given)", size, size in SIZES,
                    "32 or 64, with the network fully_connected")  # fmt: skip
        check_value("model.dropout", dropout, 0 <= dropout < 1, "a share in [0, 1)")
        super().__init__(size)
        layers: list[nn.Module] = []
        for before, after in zip((1, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, _KERNEL), nn.ReLU(inplace=True), nn.BatchNorm2d(after)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        side = size - len(CHANNELS) * (_KERNEL - 1)
        self.linear = nn.Linear(CHANNELS[-1] * side**2, 2 * size**2)
        self.head = None if by_pixel else nn.Conv2d(_FEATURES, out_channels, 1)

    def square(self, L: Tensor) -> Tensor:
        """[N, 1, size, size] -> [N, 2, size, size] or [N, out_channels, size / 4, size / 4]."""
        numbers = self.linear(self.convolutions(L.contiguous()))
        if self.head is None:
            return numbers.view(-1, 2, self.size, self.size)
        return self.head(numbers.view(-1, _FEATURES, self.size // 4, self.size // 4))

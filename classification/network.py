"""Convolutional networks that map L to logits at a quarter of the size."""

from __future__ import annotations

from torch import nn

from common.networks.encoder_unet import scaled
from common.utils.errors import UserError

# Blocks of convolutions: (channels, number of convolutions, stride of the last one, dilation).
ZHANG2016 = (
    (64, 2, 2, 1),
    (128, 2, 2, 1),
    (256, 3, 2, 1),
    (512, 3, 1, 1),
    (512, 3, 1, 2),
    (512, 3, 1, 2),
    (512, 3, 1, 1),
)
SMALL = ((64, 2, 2, 1), (128, 2, 2, 1), (256, 2, 2, 1), (256, 2, 1, 2), (256, 2, 1, 2))
TRUNKS = {"zhang2016": ZHANG2016, "small": SMALL}


class Trunk(nn.Sequential):
    """The convolutional network of Zhang et al. (2016), conv1 to conv8, or a smaller form.

    Each block consists of 3x3 convolutions with ReLU and ends with batch norm. The last convolution of the first three
    blocks has stride 2; some later blocks have dilation 2. The last block doubles the size by a transposed convolution.
    With 313 outputs `zhang2016` has 32,235,385 parameters, or 128.9 MB, as in the paper's table 1.

    Input: [N, 1, H, W] in network range; H and W are multiples of 8. Output: [N, out_channels, H/4, W/4].

    name: a key of `TRUNKS`. width: factor on all channels. Raises UserError if one of them is not valid.
    """

    def __init__(self, name: str, out_channels: int, width: float = 1.0) -> None:
        if name not in TRUNKS:
            raise UserError(f"model.network is {name}: expected {', '.join(TRUNKS)}")
        if not 0.05 <= width <= 4:
            raise UserError(f"model.width is {width}: expected a factor from 0.05 to 4")
        layers: list[nn.Module] = []
        before = 1
        for channels, convolutions, stride, dilation in TRUNKS[name]:
            after = scaled(channels, width)
            for i in range(convolutions):
                step = stride if i == convolutions - 1 else 1
                layers += [nn.Conv2d(before, after, 3, step, dilation, dilation), nn.ReLU(inplace=True)]
                before = after
            layers.append(nn.BatchNorm2d(after))
        after = scaled(before, 0.5)
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU(inplace=True)]
        for _ in range(2 if name == "zhang2016" else 1):
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(after, out_channels, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.weight, std=0.01)  # start from a uniform distribution, or from grey

    @property
    def head(self) -> nn.Conv2d:
        """The last convolution, which predicts the logits."""
        return self[-1]

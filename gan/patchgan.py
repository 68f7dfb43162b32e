"""The PatchGAN discriminator of pix2pix (Isola et al. 2017, appendix 6.1.2)."""

from __future__ import annotations

from torch import Tensor, nn

from common.errors import UserError
from gan.unet import Norm, init_pix2pix, norm_layer

# Receptive field in pixels -> stride-2 layers; two stride-1 layers follow (1: a pixel discriminator of 1x1).
LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


class PatchGAN(nn.Module):
    """Judges overlapping patches of a picture, one logit each.

    Input [N, in_channels, H, W]; output patch logits [N, 1, h, w] (30x30 at 256 px for patches of 70).
    Raises UserError for a receptive field that no number of layers gives.
    """

    def __init__(self, receptive_field: int = 70, width: int = 64, norm: Norm = "batch", in_channels: int = 3) -> None:
        super().__init__()
        if receptive_field not in LAYERS:
            raise UserError(f"model.receptive_field is {receptive_field}: it takes {', '.join(map(str, LAYERS))}")
        layers = LAYERS[receptive_field]
        bias = norm != "batch"
        if layers == 0:
            self.body = nn.Sequential(
                nn.Conv2d(in_channels, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 1, bias=bias),
                norm_layer(norm, 2 * width), nn.LeakyReLU(0.2), nn.Conv2d(2 * width, 1, 1),
            )  # fmt: skip
        else:
            parts: list[nn.Module] = [
                nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            ]
            channels = width
            for i in range(1, layers + 1):
                after = width * min(2**i, 8)
                parts += [
                    nn.Conv2d(channels, after, 4, stride=2 if i < layers else 1, padding=1, bias=bias),
                    norm_layer(norm, after),
                    nn.LeakyReLU(0.2),
                ]
                channels = after
            self.body = nn.Sequential(*parts, nn.Conv2d(channels, 1, 4, stride=1, padding=1))
        init_pix2pix(self)

    def forward(self, lab: Tensor) -> Tensor:
        """L and ab in network range [N, 3, H, W] -> patch logits [N, 1, h, w]."""
        return self.body(lab)

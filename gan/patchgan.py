"""PatchGAN discriminators (Isola et al. 2017, appendix 6.1.2), with one or several scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from common.utils.errors import UserError
from gan.unet import Norm, init_pix2pix, norm_layer

# Receptive field in pixels -> number of stride-2 layers, which two stride-1 layers follow. A receptive field of 1 is a
# discriminator of 1x1 convolutions.
LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator.

    Attributes:
        receptive_field: receptive field of one logit, in pixels: 1, 16, 34, 70, 142 or 286.
        width: channels of the first layer (64 in the paper).
        norm: normalization of the hidden layers.
        spectral_norm: divide every layer's weights by their largest singular value (Miyato et al. 2018).
        scales: number of discriminators, each of which gets the picture at half the size of the previous one (3 in
            pix2pixHD).
        conditional: the discriminator gets L and ab, not only ab.
        updates: updates of the discriminator per update of the generator.
        instance_noise: standard deviation of Gaussian noise on its input, in network range; it falls to 0 over the run.
        pool: size of the image pool (50 in CycleGAN; 0: no pool).
    """

    receptive_field: int = 70
    width: int = 64
    norm: Norm = "batch"
    spectral_norm: bool = False
    scales: int = 1
    conditional: bool = True
    updates: int = 1
    instance_noise: float = 0.0
    pool: int = 0

    def __post_init__(self) -> None:
        if self.receptive_field not in LAYERS:
            takes = ", ".join(map(str, LAYERS))
            raise UserError(f"model.discriminator.receptive_field is {self.receptive_field}: expected {takes}")
        for name in ("width", "scales", "updates"):
            if getattr(self, name) < 1:
                raise UserError(f"model.discriminator.{name} is {getattr(self, name)}: expected 1 or more")
        for name in ("instance_noise", "pool"):
            if getattr(self, name) < 0:
                raise UserError(f"model.discriminator.{name} is {getattr(self, name)}: expected 0 or more")


class PatchGAN(nn.Module):
    """A fully convolutional discriminator: each logit classifies one patch of the picture as real or generated.

    Input [N, in_channels, H, W]; output patch logits [N, 1, h, w] (30x30 at 256 px with a receptive field of 70).
    """

    def __init__(self, receptive_field: int = 70, width: int = 64, norm: Norm = "batch", in_channels: int = 3) -> None:
        super().__init__()
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

    def forward(self, picture: Tensor) -> Tensor:
        """L and ab in network range [N, in_channels, H, W] -> patch logits [N, 1, h, w]."""
        return self.body(picture)


class MultiScale(nn.Module):
    """Several discriminators. Number i gets the picture at 1 / 2 ** i of its size (Wang et al. 2018, section 3.2)."""

    def __init__(self, discriminators: list[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(discriminators)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """[N, in_channels, H, W] -> patch logits of each scale."""
        logits = []
        for i, discriminator in enumerate(self.scales):
            if i:
                picture = F.avg_pool2d(picture, 2)
            logits.append(discriminator(picture))
        return tuple(logits)


def build_discriminator(config: DiscriminatorConfig, size: int, in_channels: int | None = None) -> nn.Module:
    """Build the discriminator for pictures of `size` pixels.

    in_channels: number of input channels (default: 3 for a conditional discriminator, else 2). Raises UserError if the
    receptive field is too large for the size.
    """
    smallest = size // 2 ** (config.scales - 1)
    fits = [field for field, layers in LAYERS.items() if layers == 0 or smallest >= 3 * 2**layers]
    if config.receptive_field not in fits:
        raise UserError(
            f"model.discriminator.receptive_field is {config.receptive_field}: at {smallest} px"
            f"{' (its smallest scale)' if config.scales > 1 else ''}, expected one of {', '.join(map(str, fits))}"
        )
    channels = in_channels or (3 if config.conditional else 2)
    networks = [PatchGAN(config.receptive_field, config.width, config.norm, channels) for _ in range(config.scales)]
    if config.spectral_norm:
        for network in networks:
            for module in list(network.modules()):
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)
    return networks[0] if config.scales == 1 else MultiScale(networks)

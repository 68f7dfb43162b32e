"""Building of generators from their options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from torch import nn

from common.networks.encoder_unet import DEFAULT_ENCODER, Freeze
from common.utils.errors import UserError
from gan.encoder_unet import BoundedEncoderUNet, FastaiUNet, TimmUNet
from gan.unet import Norm, UNet

_PLAIN = ("width", "depth", "norm", "dropout", "dropout_at_test", "noise_channels")
TIMM_ENCODER = "resnet18"  # of the network `timm`; in older configs it is also the value of `encoder` for others
_OPTIONS = {
    "unet": _PLAIN,
    "encoder_decoder": _PLAIN,
    "timm": ("encoder", "pretrained", "up", "attention", "width", "norm"),
    "dynamic_unet": ("pretrained",),
    "encoder_unet": ("encoder", "pretrained", "freeze"),
}


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator.

    Attributes:
        network: `unet` is the U-Net of pix2pix, `encoder_decoder` the same without skip connections, `timm` a U-Net
            with a timm encoder, `dynamic_unet` fastai's DynamicUnet with a ResNet18, `encoder_unet` the U-Net on a timm
            encoder of `baselines` and `classification`, followed by tanh (0.76 M trained parameters).
        width: channels of the first layer of `unet` and `encoder_decoder` (64 in the paper), and of the last layer of
            `timm`.
        depth: number of stride-2 layers of `unet` and `encoder_decoder` (default: as often as the size can be halved,
            at most ten times; powers of two up to 1024 are halved to one pixel).
        norm: normalization of `unet`, `encoder_decoder`, and of the decoder of `timm`.
        dropout: dropout probability in the innermost decoder blocks of `unet` and `encoder_decoder`.
        dropout_at_test: keep the dropout active in eval mode, as in the paper.
        noise_channels: channels of noise that are concatenated to the input of `unet` and `encoder_decoder`.
        encoder: name of the timm network of `timm` (default: resnet18) and `encoder_unet` (default:
            tf_efficientnet_lite0).
        pretrained: start the encoder of `timm`, `dynamic_unet` and `encoder_unet` from ImageNet weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
        up: how the decoder of `timm` upsamples: `shuffle` or `bilinear`.
        attention: `timm` applies self-attention to the feature map that is this many times smaller than the picture (0:
            none).
    """

    network: Literal["unet", "encoder_decoder", "timm", "dynamic_unet", "encoder_unet"] = "unet"
    width: int = 64
    depth: int | None = None
    norm: Norm = "batch"
    dropout: float = 0.5
    dropout_at_test: bool = False
    noise_channels: int = 0
    encoder: str | None = None
    pretrained: bool = False
    freeze: Freeze = "all"
    up: Literal["shuffle", "bilinear"] = "shuffle"
    attention: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.generator.dropout is {self.dropout}: expected a share in [0, 1)")
        if self.width < 1:
            raise UserError(f"model.generator.width is {self.width}: expected 1 or more")
        if self.noise_channels < 0:
            raise UserError(f"model.generator.noise_channels is {self.noise_channels}: expected 0 or more")
        if self.encoder == TIMM_ENCODER and "encoder" not in _OPTIONS[self.network]:
            object.__setattr__(self, "encoder", None)
        for option in fields(self):
            if getattr(self, option.name) != option.default and option.name not in ("network", *_OPTIONS[self.network]):
                raise UserError(
                    f"model.generator.{option.name} is {getattr(self, option.name)}: the network {self.network} does"
                    f" not use it: its options are {', '.join(_OPTIONS[self.network])}"
                )


def build_generator(config: GeneratorConfig, size: int, in_channels: int = 1, out_channels: int = 2) -> nn.Module:
    """Build the generator for pictures of `size` pixels. It has the attributes `multiple` and `encoder`.

    Raises UserError for a size that cannot be halved often enough, and for an unknown encoder.
    """
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    if config.network == "timm":
        encoder = config.encoder or TIMM_ENCODER
        generator: nn.Module = TimmUNet(
            encoder, config.pretrained, config.up, config.attention, config.width, config.norm, **channels
        )
    elif config.network == "encoder_unet":
        generator = BoundedEncoderUNet(config.encoder or DEFAULT_ENCODER, config.pretrained, config.freeze)
    elif config.network == "dynamic_unet":
        generator = FastaiUNet(size, config.pretrained, **channels)
    else:
        depth = halvings(size) if config.depth is None else config.depth
        if not 3 <= depth <= halvings(size):
            raise UserError(
                f"model.generator.depth is {depth}: at {size} px, expected {_range(3, halvings(size))}, so that"
                " the size can be halved as often"
            )
        generator = UNet(
            depth, config.width, config.norm, config.dropout, **channels, skips=config.network == "unet",
            dropout_at_test=config.dropout_at_test, noise_channels=config.noise_channels,
        )  # fmt: skip
        generator.multiple = 2**depth
    if size % generator.multiple:
        raise UserError(
            f"model.size (or data.size, where that is not given) is {size}: this generator halves it until it is"
            f" {generator.multiple} times smaller: expected a multiple of {generator.multiple}"
        )
    return generator


def halvings(size: int) -> int:
    """How often a size can be halved, at most ten times. Raises UserError if it is less than three times."""
    depth = 0
    while depth < 10 and size > 0 and size % 2 ** (depth + 1) == 0:
        depth += 1
    if depth < 3:
        raise UserError(
            f"model.size (or data.size, where that is not given) is {size}: the U-Net halves it three times or more, so"
            " expected a multiple of 8"
        )
    return depth


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"

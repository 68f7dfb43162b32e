"""Regression of ab by one network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from baselines.cnn import CNN, DeepCNN
from baselines.resnet18 import Library, ResNet18Regressor
from common.color.lab import L_to_unit, ab_from_unit
from common.colorizer import Batch, Colorizer, Objective, TrainingHooks
from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze, check_other_network
from common.training.losses import MixedLoss, loss_weights, weighted_sum
from common.training.perceptual import PerceptualConfig
from common.utils.errors import UserError
from common.utils.options import refuse_unused_arguments


class LossHooks(TrainingHooks):
    """Loads the network of the perceptual loss when training begins."""

    def __init__(self, loss: MixedLoss) -> None:
        self.loss = loss

    def load_networks(self, device: torch.device) -> None:
        """Load the network, if the loss has a perceptual term."""
        self.loss.load(device)


class RegressionColorizer(Colorizer):
    """Predicts ab by one network, trained with a weighted sum of losses.

    network: maps [N, 1, H, W] to [N, 2, H, W], both in network range. loss: the losses and their weights.
    """

    multiple = 8

    def __init__(self, network: nn.Module, loss: MixedLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.multiple = getattr(network, "multiple", self.multiple)

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.network(L_to_unit(L)))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one objective."""
        yield Objective("network", *weighted_sum(self.loss.terms(batch.L, self(batch.L), batch.ab)))

    def networks(self) -> dict[str, nn.Module]:
        """The network."""
        return {"network": self.network}

    @cached_property
    def hooks(self) -> TrainingHooks:
        """Hooks that load the network of the perceptual loss."""
        return LossHooks(self.loss)


def build(
    network: Literal["cnn", "cnn_deep", "resnet18", "encoder_unet"] = "cnn",
    loss: dict[str, float] | str = "mse",
    encoder: str | None = None,
    pretrained: bool = False,
    freeze: Freeze = "all",
    width: float = 1.0,
    perceptual: PerceptualConfig = PerceptualConfig(),
) -> RegressionColorizer:
    """Build a regressor.

    Args:
        network: `cnn` is a plain stack of convolutions, `cnn_deep` its improved form, `resnet18` the first half of a
            ResNet18 with an upsampling head, `encoder_unet` a U-Net on a timm encoder (0.76 M trained parameters).
        loss: loss on ab in network range (ab / 110): mse, l1, smooth_l1 or perceptual, or the weights of several, as in
            {l1: 1, mse: 0.5}.
        encoder: with `encoder_unet`, a timm network with feature maps (default: tf_efficientnet_lite0). With
            `resnet18`, the library of the network: `timm` or `torchvision` (default: torchvision).
        pretrained: start the ResNet18, or the encoder of `encoder_unet`, from ImageNet weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
        width: with `encoder_unet`, factor on the channels of the decoder.
        perceptual: options of the perceptual loss.
    """
    mixed = MixedLoss(loss_weights(loss), perceptual)
    if network == "encoder_unet":
        return RegressionColorizer(
            EncoderUNet(2, encoder or DEFAULT_ENCODER, pretrained, freeze, width, full_size=True), mixed
        )
    check_other_network(network, freeze=freeze, width=width)
    if network == "resnet18":
        library = encoder or "torchvision"
        if library not in get_args(Library):
            raise UserError(f"model.encoder is {library}: with resnet18, expected {', '.join(get_args(Library))}")
        return RegressionColorizer(ResNet18Regressor(library, pretrained), mixed)
    unused = {"encoder": encoder, "pretrained": pretrained}
    refuse_unused_arguments("model", build, unused, f"the network {network}")
    return RegressionColorizer(CNN() if network == "cnn" else DeepCNN(), mixed)


def upgrade(model: dict) -> dict:
    """Convert options of old weights, whose losses were given as `l1+mse` with `l1_weight` and `mse_weight`."""
    model = dict(model)
    weights = {name: model.pop(f"{name}_weight", 1.0) for name in ("l1", "mse")}
    return model | {"loss": weights} if model.get("loss") == "l1+mse" else model

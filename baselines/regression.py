"""Regressors: one network, one loss on ab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.cnn import CNN, DeepCNN
from baselines.resnet18 import Library, ResNet18Regressor
from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Objective
from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze, check_other_network
from common.utils.errors import UserError

# Each takes (predicted, true) ab in network range; a loss that is added is a function and an entry.
TERMS = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": lambda predicted, true: F.smooth_l1_loss(predicted, true, beta=0.1),
}


class RegressionColorizer(Colorizer):
    """L -> ab by one network under a weighted sum of losses.

    network: [N, 1, H, W] -> [N, 2, H, W], both in network range. weights: term of TERMS -> its weight.
    """

    multiple = 8

    def __init__(self, network: nn.Module, weights: dict[str, float]) -> None:
        super().__init__()
        self.network = network
        self.multiple = getattr(network, "multiple", self.multiple)
        self.weights = weights

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.network(L_to_unit(L)))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """One objective."""
        predicted, true = ab_to_unit(self(batch.L)), ab_to_unit(batch.ab)
        terms = {name: TERMS[name](predicted, true) for name in self.weights}
        yield Objective("network", sum(weight * terms[name] for name, weight in self.weights.items()), terms)

    def networks(self) -> dict[str, nn.Module]:
        """One."""
        return {"network": self.network}


def build(
    network: Literal["cnn", "cnn_deep", "resnet18", "encoder_unet"] = "cnn",
    loss: Literal["mse", "l1", "smooth_l1", "l1+mse"] = "mse",
    l1_weight: float = 1.0,
    mse_weight: float = 1.0,
    encoder: str | None = None,
    pretrained: bool = False,
    freeze: Freeze = "all",
    width: float = 1.0,
) -> RegressionColorizer:
    """Build a regressor.

    Args:
        network: `cnn` is the plain twelve-convolution network, `cnn_deep` its improved form, `resnet18` the
            ResNet18 trunk with an upsampling head, `encoder_unet` a U-Net on a timm encoder (0.76 M learn beside the
            frozen encoder).
        loss: on ab in network range (ab / 110).
        l1_weight: weight of l1 in `l1+mse`.
        mse_weight: weight of mse in `l1+mse`.
        encoder: of `encoder_unet`: a timm network with feature maps (default: tf_efficientnet_lite0); of `resnet18`:
            the library that it comes from, `timm` or `torchvision` (default: torchvision).
        pretrained: start the ResNet18, or the encoder of `encoder_unet`, from ImageNet weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
        width: of `encoder_unet`: factor on the channels of the decoder.
    """
    if l1_weight < 0 or mse_weight < 0 or l1_weight + mse_weight == 0:
        raise UserError(f"model.l1_weight and model.mse_weight are {l1_weight}, {mse_weight}: one must be above 0")
    if network != "encoder_unet":
        check_other_network(network, freeze=freeze, width=width)
    if network == "cnn":
        net: nn.Module = CNN()
    elif network == "cnn_deep":
        net = DeepCNN()
    elif network == "resnet18":
        library = encoder or "torchvision"
        if library not in get_args(Library):
            raise UserError(f"model.encoder is {library}: with resnet18 it takes {', '.join(get_args(Library))}")
        net = ResNet18Regressor(library, pretrained)
    else:
        net = EncoderUNet(2, encoder or DEFAULT_ENCODER, pretrained, freeze, width, full_size=True)
    weights = {"l1": l1_weight, "mse": mse_weight} if loss == "l1+mse" else {loss: 1.0}
    return RegressionColorizer(net, weights)

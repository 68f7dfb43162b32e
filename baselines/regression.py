"""Regressors: one network, one loss on ab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.cnn import CNN, DeepCNN
from baselines.resnet18 import ResNet18Regressor
from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Objective
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
    network: Literal["cnn", "cnn_deep", "resnet18"] = "cnn",
    loss: Literal["mse", "l1", "smooth_l1", "l1+mse"] = "mse",
    l1_weight: float = 1.0,
    mse_weight: float = 1.0,
    encoder: Literal["timm", "torchvision"] = "torchvision",
    pretrained: bool = False,
) -> RegressionColorizer:
    """Build a regressor.

    Args:
        network: `cnn` is the plain twelve-convolution network, `cnn_deep` its improved form, `resnet18` the
            ResNet18 trunk with an upsampling head.
        loss: on ab in network range (ab / 110).
        l1_weight: weight of l1 in `l1+mse`.
        mse_weight: weight of mse in `l1+mse`.
        encoder: the library that the ResNet18 comes from.
        pretrained: start the ResNet18 from ImageNet weights.
    """
    if l1_weight < 0 or mse_weight < 0 or l1_weight + mse_weight == 0:
        raise UserError(f"model.l1_weight and model.mse_weight are {l1_weight}, {mse_weight}: one must be above 0")
    if network == "cnn":
        net: nn.Module = CNN()
    elif network == "cnn_deep":
        net = DeepCNN()
    else:
        net = ResNet18Regressor(encoder, pretrained)
    weights = {"l1": l1_weight, "mse": mse_weight} if loss == "l1+mse" else {loss: 1.0}
    return RegressionColorizer(net, weights)

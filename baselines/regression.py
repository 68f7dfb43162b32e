"""Regressors: one network, one loss on ab."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.cnn import CNN, DeepCNN
from baselines.resnet18 import ResNet18Regressor
from common.color.lab import L_to_unit, ab_from_unit
from common.colorizer import Batch, Colorizer, Objective, TrainingHooks
from common.training.losses import MixedLoss, loss_weights, weighted_sum
from common.training.perceptual import PerceptualConfig
from common.utils.errors import UserError


class LossHooks(TrainingHooks):
    """Loads the network of the perceptual loss when training begins."""

    def __init__(self, loss: MixedLoss) -> None:
        self.loss = loss

    def load_networks(self, device: torch.device) -> None:
        """Load it, if the loss uses it."""
        self.loss.load(device)


class RegressionColorizer(Colorizer):
    """L -> ab by one network under a weighted sum of losses.

    network: [N, 1, H, W] -> [N, 2, H, W], both in network range.
    """

    multiple = 8

    def __init__(self, network: nn.Module, loss: MixedLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.network(L_to_unit(L)))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """One objective."""
        yield Objective("network", *weighted_sum(self.loss.terms(batch.L, self(batch.L), batch.ab)))

    def networks(self) -> dict[str, nn.Module]:
        """One network."""
        return {"network": self.network}

    @cached_property
    def hooks(self) -> TrainingHooks:
        """Needed for the perceptual loss."""
        return LossHooks(self.loss)


def build(
    network: Literal["cnn", "cnn_deep", "resnet18"] = "cnn",
    loss: dict[str, float] | str = "mse",
    encoder: Literal["timm", "torchvision"] = "torchvision",
    pretrained: bool = False,
    perceptual: PerceptualConfig = PerceptualConfig(),
) -> RegressionColorizer:
    """Build a regressor.

    Args:
        network: `cnn` is the plain network of twelve convolutions, `cnn_deep` its improved form, `resnet18` the
            ResNet18 trunk with an upsampling head.
        loss: on ab in network range (ab / 110): mse, l1, smooth_l1, perceptual, or weights of several, as in
            {l1: 1, mse: 0.5}.
        encoder: the library that the ResNet18 comes from.
        pretrained: start the ResNet18 from ImageNet weights.
        perceptual: options of the perceptual loss.
    """
    if network != "resnet18":
        for name, unused in {"pretrained": pretrained, "encoder": encoder != "torchvision"}.items():
            if unused:
                raise UserError(f"model.{name} is given: the network {network} does not use it, leave it out")
    mixed = MixedLoss(loss_weights(loss), perceptual)
    nets = {"cnn": CNN, "cnn_deep": DeepCNN, "resnet18": lambda: ResNet18Regressor(encoder, pretrained)}
    return RegressionColorizer(nets[network](), mixed)


def upgrade(model: dict) -> dict:
    """Options as they were before losses had weights -> options of `build`."""
    model = dict(model)
    weights = {name: model.pop(f"{name}_weight", 1.0) for name in ("l1", "mse")}
    return model | {"loss": weights} if model.get("loss") == "l1+mse" else model

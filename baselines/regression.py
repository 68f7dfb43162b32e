"""Regression of ab by one network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit
from common.colorizer import Batch, Colorizer, Objective, TrainingHooks
from common.training.losses import MixedLoss, weighted_sum


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

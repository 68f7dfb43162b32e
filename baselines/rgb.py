"""Regression of RGB, to compare with that of ab."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from common.color.lab import L_to_unit, lab_to_rgb, rgb_to_lab
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, TrainingHooks
from common.training.losses import PERCEPTUAL, PIXEL_LOSSES, weighted_sum
from common.utils.errors import UserError


class RGBColorizer(Colorizer):
    """Predicts the three sRGB channels of the whole picture from its L, by one network.

    The prediction is converted to CIELAB. Only its ab is used: the lightness of a colorized photograph is that of the
    input. What the network wastes on predicting a lightness that is known is logged as `lightness/rmse`.

    network: maps [N, 1, H, W] in network range to [N, 3, H, W] in -1..1, which is sRGB in 0..1. weights: name of a
    pixel loss -> its weight; the losses compare RGB in -1..1. Raises UserError for the perceptual loss.
    """

    multiple = 8

    def __init__(self, network: nn.Module, weights: dict[str, float]) -> None:
        super().__init__()
        if PERCEPTUAL in weights:
            raise UserError("model.loss names perceptual and model.target is rgb: expected losses on pixels")
        self.network, self.weights = network, weights

    def lab(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> the predicted picture [N, 3, H, W] in CIELAB, with its own L."""
        return rgb_to_lab((self.network(L_to_unit(L)).float() / 2 + 0.5).clamp(0, 1))

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return self.lab(L)[:, 1:]

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one objective."""
        true = 2 * lab_to_rgb(torch.cat([batch.L, batch.ab], dim=1)) - 1
        predicted = self.network(L_to_unit(batch.L)).float()
        terms = {name: (weight, PIXEL_LOSSES[name](predicted, true)) for name, weight in self.weights.items()}
        yield Objective("network", *weighted_sum(terms))

    @cached_property
    def hooks(self) -> TrainingHooks:
        """Hooks that log the error of the predicted lightness."""
        return LightnessHooks(self)


class LightnessHooks(TrainingHooks):
    """Logs the root mean square error of the predicted L on validation photographs."""

    def __init__(self, colorizer: RGBColorizer) -> None:
        self.colorizer = colorizer

    def diagnose(self, batch: Batch) -> Diagnosis:
        """`lightness/rmse`, in units of L (0..100)."""
        error = self.colorizer.lab(batch.L)[:, :1] - batch.L
        return Diagnosis({"lightness/rmse": float(error.square().mean().sqrt())}, {})

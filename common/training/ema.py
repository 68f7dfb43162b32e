"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from common.colorizer import Colorizer


class MovingAverage(AveragedModel):
    """A copy of a colorizer whose tensors, buffers included, are exponential moving averages.

    Call `update_parameters(colorizer)` after every step; `module` is the averaged colorizer, in eval mode. The first
    update copies the weights; the decay of update n is min(decay, (1 + n) / (10 + n)), so that the average soon forgets
    the initial weights.
    """

    def __init__(self, colorizer: Colorizer, decay: float) -> None:
        super().__init__(colorizer, multi_avg_fn=self._update, use_buffers=True)
        self.decay = decay
        self.module.eval()

    @torch.no_grad()
    def _update(self, averages: list[Tensor], values: list[Tensor], on_device: Tensor | int) -> None:
        n = int(self.n_averaged)  # this one is on the CPU, so reading it does not wait for the device
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(self.decay, (1 + n) / (10 + n)))
        else:  # counters of batch norm
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

"""Base class of networks whose layers fit one picture size only."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class FixedSize(nn.Module, ABC):
    """A network for squares of `size` pixels. Pictures of other sizes are resized to it, and the output back.

    Subclasses write `square`. Where the input is n times larger than `size`, the output is enlarged n times.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def square(self, L: Tensor) -> Tensor:
        """[N, 1, size, size] in network range -> [N, C, s, s]."""

    def forward(self, L: Tensor) -> Tensor:
        """[N, 1, H, W] in network range -> [N, C, H s / size, W s / size]."""
        height, width = L.shape[-2:]
        if (height, width) == (self.size, self.size):
            return self.square(L)
        small = F.interpolate(L, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        out = self.square(small)
        size = (height * out.shape[-2] // self.size, width * out.shape[-1] // self.size)
        return F.interpolate(out.float(), size=size, mode="bilinear", antialias=True, align_corners=False)

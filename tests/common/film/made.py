"""Small networks and films whose colors are known."""

from itertools import pairwise

import cv2
import numpy as np
import torch

from common.colorizer import Colorizer


class ByLightness(Colorizer):
    """Predicts ab as a function of L, plus a flicker that depends on the whole frame, and counts its predictions."""

    def __init__(self, flicker=0.0):
        super().__init__()
        self.flicker, self.calls = flicker, 0
        self.register_buffer("place", torch.zeros(1))

    def forward(self, L):
        self.calls += len(L)
        return by_lightness(L) + self.flicker * torch.sin(1e4 * L.mean(dim=(1, 2, 3), keepdim=True))

    def training_step(self, batch):
        raise NotImplementedError


def by_lightness(L):
    """A color that changes with lightness: L [N, 1, H, W] -> ab [N, 2, H, W]."""
    return torch.cat([0.5 * (L - 50), 20 - 0.4 * L], dim=1)


def texture(seed, height=240, width=320):
    """A grey picture with structures of several sizes, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    parts = [
        cv2.resize(rng.normal(0, 1, (height // s, width // s)), (width, height), interpolation=cv2.INTER_CUBIC)
        for s in (60, 24, 10)
    ]
    values = sum(parts)
    values = (values - values.min()) / np.ptp(values) * 200 + 25
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, axis=2)


def pan(picture, length, step=3, height=96, width=160):
    """A window that moves over a picture by `step` pixels per frame along x, and half of this along y."""
    return [picture[i * step // 2 :][:height, i * step :][:, :width].copy() for i in range(length)]


def flatness(outputs):
    """Mean |ab_t - ab_(t-1)| of a list of tensors."""
    return torch.cat([(a - b).abs() for a, b in pairwise(outputs)]).mean().item()

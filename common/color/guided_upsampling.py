"""Guided upsampling of ab from the network's size to the photograph's, which follows the edges of its lightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WORKING_SIDE = 512  # longer side at which the filter is fitted; its smooth coefficients are then upsampled


def _box_mean(x: Tensor, radius: int) -> Tensor:
    # on a CPU, matrix products are three times as fast as average pooling
    height, width = x.shape[-2:]
    return _band(height, radius, x) @ (x @ _band(width, radius, x).T)


def _band(side: int, radius: int, like: Tensor) -> Tensor:
    """Matrix [side, side] that replaces each position by the mean over those at most `radius` away."""
    positions = torch.arange(side, device=like.device)
    near = ((positions[:, None] - positions).abs() <= radius).to(like.dtype)
    return near / near.sum(dim=1, keepdim=True)


def guided_coefficients(L: Tensor, ab: Tensor, radius: int, epsilon: float = 4.0) -> Tensor:
    """Fit ab = slope * L + offset in every window (guided filter, He et al. 2013, equations 5, 6 and 8).

    Args:
        L: [1, 1, H, W] in 0..100.
        ab: [1, 2, H, W] in CIELAB units.
        radius: half the window's side, in pixels.
        epsilon: variance of L, in squared CIELAB units, below which a window counts as flat and gets one color.

    Returns:
        [1, 4, H, W]: slopes of a and b, then offsets of a and b.
    """
    mean_L, mean_ab = _box_mean(L, radius), _box_mean(ab, radius)
    variance = _box_mean(L * L, radius) - mean_L * mean_L
    slope = (_box_mean(L * ab, radius) - mean_L * mean_ab) / (variance.clamp(min=0) + epsilon)
    return _box_mean(torch.cat([slope, mean_ab - slope * mean_L], dim=1), radius)


class GuidedUpsampling:
    """Upsamples ab strip by strip, so that memory does not grow with the photograph's height.

    Args:
        L_working: lightness of the photograph at `working_size`, [1, 1, h, w] in 0..100.
        ab: prediction resized to the same size, [1, 2, h, w] in CIELAB units.
        spread: width of a predicted pixel, in pixels of the working size. The filter's radius is twice this.
        size: (height, width) of the photograph.
    """

    def __init__(self, L_working: Tensor, ab: Tensor, spread: float, size: tuple[int, int]) -> None:
        self.height, self.width = size
        working = L_working.shape[-2:]
        radius = max(1, min(round(2 * spread), (min(working) - 1) // 2)) if min(working) > 2 else 0
        if radius:
            self.coefficients = guided_coefficients(L_working, ab, radius)
        else:
            self.coefficients = torch.cat([torch.zeros_like(ab), ab], dim=1)

    def strip(self, L: Tensor, top: int) -> Tensor:
        """ab [1, 2, n, W] of n rows of the photograph that begin at row `top`. L: [1, 1, n, W], their lightness."""
        low = self.coefficients
        # bilinear along y; F.interpolate cannot compute a part of its output
        y = (torch.arange(top, top + L.shape[2], device=L.device) + 0.5) * low.shape[2] / self.height - 0.5
        y = y.clamp(0, low.shape[2] - 1)
        above = y.floor().long()
        below = (above + 1).clamp(max=low.shape[2] - 1)
        weight = (y - above)[:, None]
        rows = low[:, :, above] * (1 - weight) + low[:, :, below] * weight
        rows = F.interpolate(rows, size=(L.shape[2], self.width), mode="bilinear", align_corners=False)
        return rows[:, :2] * L + rows[:, 2:]


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size (height, width) at which the filter is fitted: the photograph's, with the longer side at most 512 pixels."""
    scale = min(1.0, WORKING_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))

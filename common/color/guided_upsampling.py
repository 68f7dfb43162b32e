"""Color predicted at a network's size -> color at the photograph's size, guided by its lightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WORKING_SIDE = 512  # the guided filter is fitted at this size; its coefficients are smooth


def _box_mean(x: Tensor, radius: int) -> Tensor:
    # products with band matrices: on a CPU three times as fast as pooling along the axes, and as exact
    height, width = x.shape[-2:]
    return _band(height, radius, x) @ (x @ _band(width, radius, x).T)


def _band(side: int, radius: int, like: Tensor) -> Tensor:
    """[side, side]: row i is the mean over i - radius..i + radius, as far as these lie within the picture."""
    places = torch.arange(side, device=like.device)
    near = ((places[:, None] - places).abs() <= radius).to(like.dtype)
    return near / near.sum(dim=1, keepdim=True)


def guided_coefficients(L: Tensor, ab: Tensor, radius: int, epsilon: float = 4.0) -> Tensor:
    """Fit ab = slope * L + offset in every window (guided filter, He et al. 2013, equations 5, 6 and 8).

    L: [1, 1, H, W] in 0..100, ab: [1, 2, H, W]. epsilon: variance of L, in Lab units squared, below which a window
    counts as flat and gets one color. Returns [1, 4, H, W]: slopes of a and b, offsets of a and b.
    """
    mean_L, mean_ab = _box_mean(L, radius), _box_mean(ab, radius)
    variance = _box_mean(L * L, radius) - mean_L * mean_L
    slope = (_box_mean(L * ab, radius) - mean_L * mean_ab) / (variance.clamp(min=0) + epsilon)
    return _box_mean(torch.cat([slope, mean_ab - slope * mean_L], dim=1), radius)


class GuidedUpsampling:
    """ab at full size in horizontal strips, so memory does not grow with the picture's height.

    L_working: [1, 1, h, w], the photograph's lightness at working size (`working_size`). ab: [1, 2, h, w], enlarged to
    it. spread: working pixels for one pixel of what was predicted. size: (height, width) of the photograph.
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
        """ab [1, 2, n, W] of the n rows of the photograph from `top`, whose lightness [1, 1, n, W] is given."""
        low = self.coefficients
        # bilinear along y by hand: interpolate would need the whole picture at once
        y = (torch.arange(top, top + L.shape[2], device=L.device) + 0.5) * low.shape[2] / self.height - 0.5
        y = y.clamp(0, low.shape[2] - 1)
        above = y.floor().long()
        below = (above + 1).clamp(max=low.shape[2] - 1)
        share = (y - above)[:, None]
        rows = low[:, :, above] * (1 - share) + low[:, :, below] * share
        rows = F.interpolate(rows, size=(L.shape[2], self.width), mode="bilinear", align_corners=False)
        return rows[:, :2] * L + rows[:, 2:]


def working_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the filter is fitted: the photograph's own, or its longer side at 512 pixels."""
    scale = min(1.0, _WORKING_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))

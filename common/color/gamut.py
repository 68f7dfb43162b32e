"""Gamut mapping of colors outside sRGB, at constant lightness and hue."""

from __future__ import annotations

import torch
from torch import Tensor

from common.color.lab import as_float, lab_to_rgb, linear_from_lab


def fit_gamut(L: Tensor, ab: Tensor, iterations: int = 12) -> Tensor:
    """Reduce the chroma of colors outside sRGB, at constant L and hue, until they are inside.

    The largest chroma inside sRGB is found by bisection. The function is not differentiable.

    Args:
        L: [..., 1, H, W] in 0..100.
        ab: [..., 2, H, W] in CIELAB units.
        iterations: of the bisection; each halves the error of the chroma.

    Returns:
        ab of the same shape, unchanged where the color is inside sRGB already. NaN stays NaN.
    """
    with torch.autocast(L.device.type, enabled=False), torch.no_grad():
        L, ab = as_float(L), as_float(ab)
        outside = ~displayable(torch.cat([L, ab], dim=-3))  # [..., H, W]
        if not outside.any():
            return ab
        L_out = L.squeeze(-3)[outside]
        a_out, b_out = (channel[outside] for channel in ab.unbind(-3))
        low, high = torch.zeros_like(L_out), torch.ones_like(L_out)
        for _ in range(iterations):
            middle = (low + high) / 2
            lab = torch.stack([L_out, a_out * middle, b_out * middle])[..., None, None].movedim(0, 1)
            fits = displayable(lab)[..., 0, 0]
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        a, b = (channel.clone() for channel in ab.unbind(-3))
        a[outside], b[outside] = a_out * low, b_out * low
        return torch.stack([a, b], dim=-3)


def displayable(lab: Tensor) -> Tensor:
    """Whether each color is inside sRGB: lab [..., 3, H, W] -> bool [..., H, W]."""
    # White itself is 1 + 2e-5 in float32. The tolerance is less than half an 8-bit step everywhere.
    linear = linear_from_lab(lab)
    return ((linear >= -1e-4) & (linear <= 1 + 1e-4)).all(dim=-3)


def ab_to_rgb(L: Tensor, ab: Tensor) -> Tensor:
    """L and ab -> sRGB. The chroma of colors outside sRGB is reduced (see `fit_gamut`).

    L: [..., 1, H, W] in 0..100, ab: [..., 2, H, W] in CIELAB units. Returns float [..., 3, H, W] in 0..1.
    """
    return lab_to_rgb(torch.cat([as_float(L), fit_gamut(L, ab)], dim=-3))


def ab_to_rgb8(L: Tensor, ab: Tensor) -> Tensor:
    """`ab_to_rgb`, rounded to uint8 [..., 3, H, W]. Its lightness is L up to rounding."""
    return (ab_to_rgb(L, ab) * 255).round().to(torch.uint8)

"""Palette transfer: give a prediction the color statistics of a reference photograph, at constant lightness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.data.packing import GREY_MAX_AB
from common.utils.errors import UserError

_MAX_GAIN = 1.6  # limit on the amplification of color contrast, which also amplifies errors of hue
_MIN_VARIANCE = 0.25  # lower bound on the eigenvalues of a covariance, in squared CIELAB units
_FULL_WEIGHT = 10.0  # distance in L from black and white beyond which color has full weight
_SAMPLED_SIDE = 512


def transfer_palette(ab: Tensor, L: Tensor, reference: np.ndarray) -> Tensor:
    """Give a prediction the mean and the covariance of a reference's colors.

    The Monge-Kantorovich linear transfer in the ab plane (Pitie and Kokaram 2007): of all linear maps that match mean
    and covariance, it changes colors least. Its gain is limited, so that the noise of a nearly grey prediction is
    not amplified; the covariance is then matched only as far as the limit allows.

    Args:
        ab: prediction [1, 2, h, w] in CIELAB units.
        L: [1, 1, h, w] in 0..100.
        reference: uint8 [H, W, 3] sRGB of any size.

    Returns:
        ab of the same shape, unchanged at black and white.

    Raises:
        UserError: the reference is grey.
    """
    lab = rgb8_to_lab(torch.from_numpy(_subsample(reference)).permute(2, 0, 1)[None])
    if torch.quantile(lab[:, 1:].norm(dim=1), 0.99) < GREY_MAX_AB:
        raise UserError("the palette's reference is grey, so it has no color to transfer: choose a photograph in color")
    mean, covariance = _moments(ab, L)
    target_mean, target_covariance = _moments(lab[:, 1:], lab[:, :1])
    gain = _gain(covariance, target_covariance).to(ab)
    mapped = torch.einsum("ij,njhw->nihw", gain, ab - mean.to(ab).view(1, 2, 1, 1))
    mapped = mapped + target_mean.to(ab).view(1, 2, 1, 1)
    return ab + _weight(L) * (mapped - ab)


def _subsample(rgb: np.ndarray) -> np.ndarray:
    """Every n-th pixel of [H, W, 3], which is enough for statistics."""
    step = -(-max(rgb.shape[:2]) // _SAMPLED_SIDE)
    return np.ascontiguousarray(rgb[::step, ::step])


def _weight(L: Tensor) -> Tensor:
    """Weight of a color by its lightness, 0..1: 0 at black and white, near which sRGB has little chroma."""
    return (torch.minimum(L, 100 - L) / _FULL_WEIGHT).clamp(0, 1)


def _moments(ab: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean [2] and covariance [2, 2] of ab [1, 2, h, w], float64 on the CPU."""
    colors = ab.detach()[0].flatten(1).double().cpu()
    weights = _weight(L.detach())[0].flatten().double().cpu() + 1e-9
    weights = weights / weights.sum()
    mean = colors @ weights
    centered = colors - mean[:, None]
    return mean, (centered * weights) @ centered.T


def _gain(covariance: Tensor, target: Tensor) -> Tensor:
    """Map [2, 2] from covariance C to T: C^-1/2 (C^1/2 T C^1/2)^1/2 C^-1/2, with eigenvalues limited to `_MAX_GAIN`."""
    covariance, target = (_power(c, 1.0, _MIN_VARIANCE) for c in (covariance, target))
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    gain = inverse @ _power(root @ target @ root, 0.5) @ inverse
    values, axes = torch.linalg.eigh(gain)
    return axes * values.clamp(max=_MAX_GAIN) @ axes.T


def _power(matrix: Tensor, exponent: float, min_eigenvalue: float = 1e-12) -> Tensor:
    """Power of a symmetric matrix whose eigenvalues are first clamped from below."""
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return axes * values.clamp(min=min_eigenvalue) ** exponent @ axes.T

"""The color mood of one photograph given to another, at constant lightness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.data.packing import GREY_MAX_AB
from common.utils.errors import UserError

_MOST_GAIN = 1.6  # contrasts of color are not made larger than so many times: small errors of hue would glare
_LEAST_VARIANCE = 0.25  # Lab units squared: color that varies less is flat
_ROOM = 10.0  # from this far of black and white on, color counts in full: nearer there is little that sRGB can show
_SAMPLED_SIDE = 512


def transfer_palette(ab: Tensor, L: Tensor, reference: np.ndarray) -> Tensor:
    """Give a prediction the mean and the covariance of a reference's colors.

    ab: [1, 2, h, w] as predicted, L: [1, 1, h, w] in 0..100, reference: uint8 [H, W, 3] sRGB of any size. Returns ab
    of the same shape; black and white stay as they are. Raises UserError, with one sentence, for a grey reference.

    The Monge-Kantorovich linear transfer (Pitie and Kokaram 2007) of the ab plane: of all linear maps that do this, the
    one that changes colors least. Beside Reinhard et al. 2001, who stretch a and b each for itself, it
    gave calmer colors on the photographs that were looked at. Its gain is bounded, so a grey prediction becomes the
    reference's mean color and its noise is not blown up; the covariance is then matched as far as the bound allows.
    """
    lab = rgb8_to_lab(torch.from_numpy(_sample(reference)).permute(2, 0, 1)[None])
    if torch.quantile(lab[:, 1:].norm(dim=1), 0.99) < GREY_MAX_AB:
        raise UserError("the palette's reference is grey, so it has no color to give: choose a photograph in color")
    mean, covariance = _moments(ab, L)
    wanted_mean, wanted_covariance = _moments(lab[:, 1:], lab[:, :1])
    gain = _gain(covariance, wanted_covariance).to(ab)
    mapped = torch.einsum("ij,njhw->nihw", gain, ab - mean.to(ab).view(1, 2, 1, 1))
    mapped = mapped + wanted_mean.to(ab).view(1, 2, 1, 1)
    return ab + _room(L) * (mapped - ab)


def _sample(rgb: np.ndarray) -> np.ndarray:
    """Every n-th pixel: enough of them for statistics."""
    step = -(-max(rgb.shape[:2]) // _SAMPLED_SIDE)
    return np.ascontiguousarray(rgb[::step, ::step])


def _room(L: Tensor) -> Tensor:
    """How much color a lightness has room for: 0 at black and white, 1 in between."""
    return (torch.minimum(L, 100 - L) / _ROOM).clamp(0, 1)


def _moments(ab: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [2] and covariance [2, 2] of the colors of a picture, float64, each weighing by its room."""
    colors = ab.detach()[0].flatten(1).double().cpu()
    weights = _room(L.detach())[0].flatten().double().cpu() + 1e-9
    weights = weights / weights.sum()
    mean = colors @ weights
    centred = colors - mean[:, None]
    return mean, (centred * weights) @ centred.T


def _gain(covariance: Tensor, wanted: Tensor) -> Tensor:
    """Their map [2, 2] of one covariance C into another W: C^-1/2 (C^1/2 W C^1/2)^1/2 C^-1/2, its gain bounded."""
    covariance, wanted = (_power(c, 1.0, _LEAST_VARIANCE) for c in (covariance, wanted))
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    gain = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    values, axes = torch.linalg.eigh(gain)
    return axes * values.clamp(max=_MOST_GAIN) @ axes.T


def _power(matrix: Tensor, exponent: float, least: float = 1e-12) -> Tensor:
    """A power of a symmetric matrix, whose eigenvalues are first raised to `least`."""
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return axes * values.clamp(min=least) ** exponent @ axes.T

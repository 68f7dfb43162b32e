"""Frechet distances between sets of feature vectors of photographs, with confidence intervals.

A Gaussian is fitted to each set; the distance is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982),
as in FID (Heusel et al. 2017), with covariances that divide by n - 1. With A and B the centered vectors divided by
sqrt(n - 1), tr (C1 C2)^(1/2) is the sum of the singular values of A B'. No matrix square root is computed, and the
result is exact for sets smaller than the dimension, too.

Bias: the distance between finite samples is too large. It is positive between two samples of one distribution, and
grows with fewer photographs and more dimensions. Compare distances only for the same number of photographs.

Intervals: a bootstrap resample repeats photographs, so its distance is biased even more, and percentiles of such
distances can exclude the estimate. Instead, the influence of each photograph (the derivative of the distance by the
photograph's weight; the infinitesimal jackknife, Efron 1982) is resampled and added to the estimate. If both sets are
the same, influence and interval are 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from common.color.ab_bins import ABBins
from common.evaluation.pictures import Pictures

GRID = 20
_CELL, _REACH = 2.0, 60  # histogram cells: 2 ab units wide, 60 on each side of 0


class _Fit(NamedTuple):
    mean: np.ndarray  # [D]
    centered: np.ndarray  # [n, D], over sqrt(n - 1)
    rotation: np.ndarray | None  # [n, D]: centered = rotation @ small; None if small is centered itself
    small: np.ndarray  # [min(n, D), D]


def _fit(vectors: np.ndarray) -> _Fit:
    mean = vectors.mean(axis=0)
    centered = (vectors - mean) / np.sqrt(max(1, len(vectors) - 1))
    if len(vectors) <= vectors.shape[1]:
        return _Fit(mean, centered, None, centered)
    rotation, small = scipy.linalg.qr(centered, mode="economic")
    return _Fit(mean, centered, rotation, small)


def frechet_distance(values: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of Gaussians fitted to values [n, D] and reference [m, D]: at least 0; NaN for an empty set."""
    if not len(values) or not len(reference):
        return float("nan")
    x, y = _fit(values), _fit(reference)
    overlap = scipy.linalg.svdvals(x.small @ y.small.T).sum()
    distance = np.square(x.mean - y.mean).sum() + np.square(x.small).sum() + np.square(y.small).sum() - 2 * overlap
    return max(0.0, float(distance))


def _influences(values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the distance by the weight of each vector of both sets, [n] and [m], each of mean 0.

    With A B' = U S V', the transport map T from the first Gaussian to the second satisfies c' T c = n (U S U')_ii for
    the i-th centered vector c, for covariances of any rank.
    """
    x, y = _fit(values), _fit(reference)
    left, singular, right = scipy.linalg.svd(x.small @ y.small.T, full_matrices=False)
    away, out = x.mean - y.mean, []
    for fit, turned, towards in ((x, left, 2 * away), (y, right.T, -2 * away)):
        n = len(fit.centered)
        turned = turned if fit.rotation is None else fit.rotation @ turned
        each = np.sqrt(max(1, n - 1)) * (fit.centered @ towards) + n * np.square(fit.centered).sum(axis=1)
        each -= n * (np.square(turned) @ singular)
        out.append(each - each.mean())
    return out[0], out[1]


def frechet_influence(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Derivative of n times `frechet_distance` by the weight of each photograph, prediction and truth together: [n]."""
    return np.add(*_influences(values, reference))


def frechet_disjoint(values: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of predictions to the truth of other photographs. values, reference: [n, D].

    Photographs with even and with odd positions form two halves. The result is the mean of two distances: predictions
    of the first half to the truth of the second, and the reverse, so that no photograph is compared with itself. For
    `original` it is the distance between two sets of photographs, and not 0. (Squares of one photograph, as in `demo`,
    are in both halves.) NaN for fewer than two photographs.
    """
    return (frechet_distance(values[::2], reference[1::2]) + frechet_distance(values[1::2], reference[::2])) / 2


def frechet_disjoint_influence(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Derivative of n times `frechet_disjoint` by the weight of each photograph: [n]."""
    count = len(values)
    each = np.zeros(count)
    if count < 2:
        return each
    for half, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        of_prediction, of_truth = _influences(values[half], reference[other])
        each[half] += of_prediction * count / len(of_prediction) / 2
        each[other] += of_truth * count / len(of_truth) / 2
    return each


@lru_cache(maxsize=1)
def _cells_to_bins() -> Tensor:
    """Share of each histogram cell that is assigned to each ab bin: float32 [cells, Q]."""
    bins = ABBins(GRID)
    line = torch.arange(-_REACH, _REACH + 1) * _CELL
    cells = torch.cartesian_prod(line, line) / GRID
    shares = torch.zeros(len(cells), bins.num_bins)
    corner = cells.floor()
    for corner_a in (0, 1):
        for corner_b in (0, 1):
            node = corner + torch.tensor([corner_a, corner_b])
            weight = (1 - (cells - node).abs()).prod(dim=1, keepdim=True)
            shares.scatter_add_(1, bins.nearest((node * GRID).T[None, :, None])[0, 0, :, None], weight)
    return shares


def color_histogram(ab: Tensor) -> Tensor:
    """Soft histogram of colors: ab [N, 2, H, W] in CIELAB units -> shares float32 [N, 77], of sum 1.

    Each color is rounded to 2 units and distributed over the four nearest nodes of a grid of spacing 20 in the ab plane
    by bilinear interpolation. The share of a node outside of sRGB goes to the nearest of the 77 bins within it.
    """
    side = 2 * _REACH + 1
    at = (ab / _CELL).round().clamp(-_REACH, _REACH).long() + _REACH
    which = at[:, 0] * side + at[:, 1] + torch.arange(len(ab), device=ab.device)[:, None, None] * side**2
    counts = torch.bincount(which.flatten(), minlength=len(ab) * side**2).view(len(ab), side**2)
    return (counts.float() @ _cells_to_bins().to(ab.device)) / ab[0, 0].numel()


def color_embedding(predicted: Pictures, true: Pictures) -> Tensor:
    """Square roots of the `color_histogram` of the predicted ab: [N, 77], each of length 1.

    Their distances are Hellinger distances times sqrt(2), which give rare colors more weight than their pixels have.
    `frechet_color` is the Frechet distance between these vectors of predictions and of originals: whether a model
    predicts the palette of photographs, regardless of which photograph gets which colors. It is 0 for `shuffled`. For
    `grey` it is the squared distance of the mean palette from grey plus the total variance of the originals. Two sets
    of 500 photographs of one distribution have about 0.009, two of 100 about 0.037 (imagenette160-val at 64 px).
    """
    return color_histogram(predicted.ab).sqrt()


def true_color_embedding(true: Pictures) -> Tensor:
    """`color_embedding` of the originals: [N, 77]."""
    return color_histogram(true.ab).sqrt()

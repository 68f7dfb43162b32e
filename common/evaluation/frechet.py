"""Frechet distances between sets of vectors that stand for photographs: exact, with intervals, for any dimension.

A Gaussian is fitted to the vectors of each set; the distance is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))
(Dowson and Landau 1982), as in FID (Heusel et al. 2017), with covariances that divide by n - 1. With A and B the
centred vectors over sqrt(n - 1), tr (C1 C2)^(1/2) is the sum of the singular values of A B', so no root of a matrix
is taken, and sets smaller than the dimension are exact, too.

Bias. The distance of finite samples is too large: two samples of one distribution are apart by more than 0, the more so
the fewer photographs and the more dimensions. Distances compare between rows of one table, not between numbers of
photographs. Intervals: a resample repeats photographs, is a yet smaller sample, and so would be biased once more; its
percentiles can miss the very estimate. So an interval resamples each photograph's influence on the distance (its first
derivative by that photograph's weight; Efron 1982, the infinitesimal jackknife) around the estimate: centred, the same
resamples as in other columns, and a thousand cost one decomposition. Where both sets are the same vectors, influence
and interval are 0.
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
_CELL, _REACH = 2.0, 60  # colors are counted in cells of 2 ab units, up to 120


class _Fit(NamedTuple):
    mean: np.ndarray  # [D]
    centred: np.ndarray  # [n, D], over sqrt(n - 1)
    rotation: np.ndarray | None  # [n, D]: centred = rotation @ small, where that is smaller
    small: np.ndarray  # [min(n, D), D]


def _fit(vectors: np.ndarray) -> _Fit:
    mean = vectors.mean(axis=0)
    centred = (vectors - mean) / np.sqrt(max(1, len(vectors) - 1))
    if len(vectors) <= vectors.shape[1]:
        return _Fit(mean, centred, None, centred)
    rotation, small = scipy.linalg.qr(centred, mode="economic")
    return _Fit(mean, centred, rotation, small)


def frechet_distance(values: np.ndarray, reference: np.ndarray) -> float:
    """Between Gaussians fitted to [n, D] and [m, D]. At least 0; NaN where a set is empty."""
    if not len(values) or not len(reference):
        return float("nan")
    x, y = _fit(values), _fit(reference)
    overlap = scipy.linalg.svdvals(x.small @ y.small.T).sum()
    distance = np.square(x.mean - y.mean).sum() + np.square(x.small).sum() + np.square(y.small).sum() - 2 * overlap
    return max(0.0, float(distance))


def _influences(values: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of the distance by the weight of each vector of the one set, [n], and of the other, [m]; of mean 0.

    With A B' = U S V', the transport map T of the first Gaussian onto the second has c' T c = n (U S U')_ii for the
    i-th centred vector c, of full rank or not.
    """
    x, y = _fit(values), _fit(reference)
    left, singular, right = scipy.linalg.svd(x.small @ y.small.T, full_matrices=False)
    away, out = x.mean - y.mean, []
    for fit, turned, towards in ((x, left, 2 * away), (y, right.T, -2 * away)):
        n = len(fit.centred)
        turned = turned if fit.rotation is None else fit.rotation @ turned
        each = np.sqrt(max(1, n - 1)) * (fit.centred @ towards) + n * np.square(fit.centred).sum(axis=1)
        each -= n * (np.square(turned) @ singular)
        out.append(each - each.mean())
    return out[0], out[1]


def frechet_influence(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What each photograph, drawn once more, adds to n times `frechet_distance`: its prediction and its truth. [n]."""
    return np.add(*_influences(values, reference))


def frechet_disjoint(values: np.ndarray, reference: np.ndarray) -> float:
    """Distance of predictions to the truth of other photographs.

    Photographs alternate, in the order they were measured in, between two halves. The distance is the mean of that of
    the first half's predictions to the second half's truth, and of the second's to the first's: no photograph is
    compared with itself. Of the truth itself it is not 0 but what two sets of photographs differ by. (Squares cut from
    one photograph, as in `demo`, fall into both halves.) NaN of fewer than two photographs.
    """
    return (frechet_distance(values[::2], reference[1::2]) + frechet_distance(values[1::2], reference[::2])) / 2


def frechet_disjoint_influence(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What each photograph, drawn once more, adds to n times `frechet_disjoint`: [n]."""
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
    """Share of each cell's color that each bin gets: float32 [cells, Q]."""
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
    """Soft histogram of color: ab [N, 2, H, W] in CIELAB units -> shares float32 [N, 77], of sum 1.

    A color, rounded to 2 units, is shared between the four nearest points of a grid of 20 in the ab plane by linear
    interpolation; a point that sRGB does not reach hands its share to the nearest of the 77 that it does.
    """
    side = 2 * _REACH + 1
    at = (ab / _CELL).round().clamp(-_REACH, _REACH).long() + _REACH
    which = at[:, 0] * side + at[:, 1] + torch.arange(len(ab), device=ab.device)[:, None, None] * side**2
    counts = torch.bincount(which.flatten(), minlength=len(ab) * side**2).view(len(ab), side**2)
    return (counts.float() @ _cells_to_bins().to(ab.device)) / ab[0, 0].numel()


def color_embedding(predicted: Pictures, true: Pictures) -> Tensor:
    """Roots of the shares of `color_histogram` of the ab as predicted: [N, 77], each of length 1.

    Distances of such vectors are Hellinger's (times root 2), in which a rare color counts for more than its pixels.
    `frechet_color` is the Frechet distance of the set of these vectors to that of the originals: whether a model paints
    the palette of photographs, whichever photograph gets which. So `shuffled` has 0; `grey` has the squared distance
    of the mean palette from grey plus all the variance of the originals, since its own palettes do not vary. Two sets
    of 500 photographs of one distribution are about 0.009 apart, two of 100 about 0.037 (imagenette160-val at 64 px).
    """
    return color_histogram(predicted.ab).sqrt()


def true_color_embedding(true: Pictures) -> Tensor:
    """The same of the originals."""
    return color_histogram(true.ab).sqrt()

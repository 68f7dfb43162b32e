"""Diffuse values from single pixels over a photograph, along the edges of its lightness.

The multigrid preconditioner is the project's own because the libraries are slower. Seconds at 512 x 512 pixels on one
thread, for one hint and for three:

    this module                              0.25   0.56
    scipy.sparse.linalg.splu, float32        0.92   0.95   (and about 130 MB for the factors)
    pyamg 5.4, ruge_stuben_solver with CG    0.95   2.9
    pyamg 5.4, smoothed_aggregation_solver   1.7    5.0
    pyamg 5.4, pairwise_solver               1.2    3.0
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import LinearOperator, cg, splu

_EDGE = 1.5  # sigma of equation 2 in Levin et al., in multiples of the photograph's median contrast
_SIGMA_RANGE = (1.0, 4.0)  # bounds of sigma, in L
_MIN_AFFINITY = 1e-4  # affinity across the sharpest edge; keeps the system well conditioned
_REACH = 0.3  # length over which a value decays in a flat region, as a fraction of the longer side
_TOLERANCE, _MAX_ITERATIONS = 3e-4, 100  # relative residual; results are shown in 8 bits


def diffuse(L: np.ndarray, pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Minimize sum_rs w_rs (d_r - d_s)^2 + reach^-2 sum_r d_r^2 over d, with d fixed at some pixels.

    w_rs = exp(-(L_r - L_s)^2 / 2 sigma^2) is the affinity of neighbors (Levin, Lischinski and Weiss 2004, equation 2).

    Args:
        L: lightness [h, w] in 0..100.
        pixels: flat indices [k] of the fixed pixels, each once.
        values: their values [k, c].

    Returns:
        float64 [h * w, c].
    """
    count = L.size
    matrix = energy_matrix(L)
    free = np.ones(count, dtype=bool)
    free[pixels] = False
    rows = matrix[np.flatnonzero(free)]
    out = np.empty((count, values.shape[1]))
    out[pixels] = values
    if free.any():
        inflow = -(rows[:, pixels] @ values.astype(np.float32))
        out[free] = _solve(rows[:, np.flatnonzero(free)].tocsr(), inflow)
    return out


def energy_matrix(L: np.ndarray) -> sparse.csr_matrix:
    """float32 matrix [h * w, h * w] of the energy of `diffuse`: off the diagonal, minus the affinity of 4-neighbors."""
    index = np.arange(L.size).reshape(L.shape)
    contrast = np.concatenate([_contrast(L, axis).ravel() for axis in (0, 1)])
    if len(contrast) and _EDGE * np.median(contrast) > _SIGMA_RANGE[1]:  # grain would isolate every pixel
        L = ndimage.median_filter(L, size=3)
        contrast = np.concatenate([_contrast(L, axis).ravel() for axis in (0, 1)])
    sigma = np.clip(_EDGE * np.median(contrast), *_SIGMA_RANGE) if len(contrast) else _SIGMA_RANGE[0]
    affinity = np.maximum(np.exp(-0.5 * np.square(contrast / sigma)), _MIN_AFFINITY)
    one = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
    other = np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])
    affinities = sparse.csr_matrix((affinity.astype(np.float32), (one, other)), shape=(L.size, L.size))
    affinities = affinities + affinities.T
    locality = (_REACH * max(L.shape)) ** -2
    diagonal = np.asarray(affinities.sum(axis=1)).ravel() + locality
    return (sparse.diags(diagonal.astype(np.float32)) - affinities).tocsr()


def _contrast(L: np.ndarray, axis: int) -> np.ndarray:
    """Contrast between each pixel and the next along an axis, in L.

    A blurred edge consists of many small steps, and color would leak through each of them. So each step is weighted
    with the change of L over the five steps around it: sqrt(step * change), but at least the step itself.
    """
    step = np.abs(np.diff(L, axis=axis))
    padding = [(0, 0), (0, 0)]
    padding[axis] = (2, 2)
    around = np.moveaxis(np.pad(L, padding, mode="edge"), axis, 0)
    rise = np.moveaxis(np.abs(around[5:] - around[:-5]), 0, axis)
    return np.maximum(step, np.sqrt(step * rise))


def _solve(matrix: sparse.csr_matrix, right: np.ndarray) -> np.ndarray:
    """Solve for each column of `right`, float32 [n, c], by preconditioned conjugate gradients."""
    multigrid = _Multigrid(matrix)
    preconditioner = LinearOperator(matrix.shape, multigrid, dtype=np.float32)
    columns = [cg(matrix, b, rtol=_TOLERANCE, maxiter=_MAX_ITERATIONS, M=preconditioner)[0] for b in right.T]
    return np.stack(columns, axis=1)


class _Multigrid:
    """Preconditioner: one W-cycle over levels on which similar pixels are merged (Koutis et al. 2011, CMG).

    Each pixel is merged with its most similar neighbor, so regions do not cross edges. Each level is smoothed by one
    damped Jacobi step before and one after; the coarsest level is solved directly.
    """

    def __init__(self, matrix: sparse.csr_matrix, coarsest: int = 2500) -> None:
        self.levels: list[tuple] = []
        rng = np.random.default_rng(0)
        while matrix.shape[0] > coarsest:
            count = matrix.shape[0]
            # noise breaks the ties of flat regions, which a fixed order would merge into lines
            similarity = -matrix.data * (1 + 0.3 * rng.random(len(matrix.data), dtype=np.float32))  # diagonal: < 0
            lengths = np.diff(matrix.indptr)
            best = np.repeat(np.maximum.reduceat(similarity, matrix.indptr[:-1]), lengths)
            chosen = np.flatnonzero((similarity == best) & (similarity > 0))
            rows = np.repeat(np.arange(count), lengths)[chosen]
            pairs = sparse.csr_matrix((np.ones(len(chosen), np.int8), (rows, matrix.indices[chosen])), matrix.shape)
            merged, region = csgraph.connected_components(pairs, directed=False)
            if merged > 0.9 * count:
                break
            prolong = sparse.csr_matrix(
                (np.ones(count, np.float32), region, np.arange(count + 1)), shape=(count, merged)
            )
            restrict = prolong.T.tocsr()
            self.levels.append((matrix, 0.7 / matrix.diagonal(), prolong, restrict))
            matrix = (restrict @ matrix @ prolong).tocsr()
        self.direct = splu(matrix.tocsc().astype(np.float64))

    def __call__(self, right: np.ndarray, level: int = 0) -> np.ndarray:
        if level == len(self.levels):
            return self.direct.solve(right.astype(np.float64)).astype(np.float32)
        matrix, jacobi, prolong, restrict = self.levels[level]
        x = jacobi * right
        coarse = restrict @ (right - matrix @ x)
        correction = self(coarse, level + 1)
        if level + 1 < len(self.levels):
            correction += self(coarse - self.levels[level + 1][0] @ correction, level + 1)
        x += 1.3 * (prolong @ correction)  # piecewise constant prolongation underestimates the correction
        x += jacobi * (right - matrix @ x)
        return x

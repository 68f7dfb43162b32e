"""Hints: a person says what color a place has, and it spreads along the edges of L over what a model predicted."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

_MOST_DOTS = 1000
_OPAQUE, _COLORED = 128, 48  # of 255: alpha of a dot on transparency, max - min of the channels of one on grey

_EDGE = 1.5  # contrasts of so many times the picture's median begin to be edges
_EDGE_RANGE = (1.0, 4.0)  # and in L they are at least, at most so large
_LEAK = 1e-4  # what passes the sharpest edge, so that the equations stay solvable
_REACH = 0.3  # where nothing bars its way, a hint fades out over this share of the longer side
_DOUBT = 0.05  # the strength below which the prediction is believed rather than the hint


class Hint(NamedTuple):
    """The color of one place."""

    x: float  # share of the width, 0..1
    y: float  # share of the height, 0..1
    ab: tuple[float, float]  # CIELAB units


def parse_hint(text: str, size: tuple[int, int]) -> Hint:
    """`x,y,#rrggbb`, in pixels from 0,0 of a photograph of that (height, width) -> Hint.

    Of the color only a and b count: lightness is the photograph's. Raises UserError, with one sentence, for text of
    another form and for a pixel outside of the photograph.
    """
    match = re.fullmatch(r"\s*(-?\d{1,9})\s*,\s*(-?\d{1,9})\s*,\s*#([0-9a-fA-F]{6})\s*", text)
    if not match:
        raise UserError(f"hint '{text}' is not of the form x,y,#rrggbb: write for example 120,80,#c03020")
    x, y = int(match[1]), int(match[2])
    height, width = size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"hint '{text}' lies outside of the photograph, which is {width} x {height}: count from 0,0 at its upper"
            " left"
        )
    color = np.frombuffer(bytes.fromhex(match[3]), dtype=np.uint8)
    return Hint((x + 0.5) / width, (y + 0.5) / height, _mean_ab(color[None], np.ones(1)))


def hints_of_dots(dots: np.ndarray, size: tuple[int, int]) -> list[Hint]:
    """Colored dots painted on transparency -> a hint for each, at its centre and of its mean color.

    dots: uint8 [H, W, 4], of the shape of the photograph but of any scale, or [H, W, 3]: then whatever is colored on
    a grey, white or black ground is a dot (and a grey hint cannot be given). size: (height, width) of the photograph.
    A dot is what hangs together, also by corners; where its centre is not on it, as with a ring, its nearest pixel is
    the place. Raises UserError, with one sentence, where there is no dot, where there are more than a thousand or they
    cover most of the picture, and where the shape is another.
    """
    height, width = dots.shape[:2]
    if abs(width - height * size[1] / size[0]) > max(1.5, 0.02 * width):
        raise UserError(
            f"the picture of hints is {width} x {height} and the photograph {size[1]} x {size[0]}: paint the dots on a"
            " layer over the whole photograph"
        )
    on_transparency = dots.shape[2] == 4 and dots[..., 3].min() < _OPAQUE
    rgb = dots[..., :3]
    strength = dots[..., 3] if on_transparency else rgb.max(axis=2) - rgb.min(axis=2)
    label, count = ndimage.label(strength >= (_OPAQUE if on_transparency else _COLORED), np.ones((3, 3)))
    if count == 0:
        raise UserError("the picture of hints has no colored dots: paint some on a transparent layer, and save a PNG")
    if count > _MOST_DOTS or np.count_nonzero(label) > 0.5 * label.size:
        raise UserError(
            f"the picture of hints is colored in {count} places over {np.count_nonzero(label) / label.size:.0%} of it:"
            " give single dots on a transparent layer, not the photograph"
        )
    hints = []
    for i, box in enumerate(ndimage.find_objects(label), 1):
        rows, columns = np.nonzero(label[box] == i)
        rows, columns = rows + box[0].start, columns + box[1].start
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        ab = _mean_ab(rgb[rows, columns], strength[rows, columns])
        hints.append(Hint((columns[nearest] + 0.5) / width, (rows[nearest] + 0.5) / height, ab))
    return hints


def _mean_ab(colors: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean a and b of colors, uint8 [n, 3]."""
    ab = rgb8_to_lab(torch.from_numpy(colors.T.copy())[:, None])[1:, 0].double().numpy()
    a, b = np.average(ab, axis=1, weights=weights)
    return float(a), float(b)


def spread_hints(L: Tensor, ab: Tensor, hints: list[Hint]) -> Tensor:
    """Lay hints over a prediction: each recolors the region around it, up to the edges of L.

    L: [1, 1, h, w] in 0..100 at `common.color.guided_upsampling.working_size`; ab: [1, 2, h, w] as predicted.
    Returns ab of the same shape: the hint's own color at its pixel, the prediction far away and beyond edges; of two
    hints on one pixel the later counts.

    Colorization by optimization (Levin, Lischinski and Weiss 2004) of the *difference* d between hinted and predicted
    color, with their affinity (equation 2) w_rs = exp(-(L_r - L_s)^2 / 2 sigma^2) between neighbours, under
    sum_rs w_rs (d_r - d_s)^2 + reach^-2 sum_r d_r^2, which differs from their equation 1 by obeying a maximum
    principle and by fading with distance. Such a d has a spike at a single pixel. So a second field u is diffused
    alike, with 1 at every hint: d / u is the hints' mean, weighted by how strongly each arrives, and is flat about a
    single one; u weighs it against the prediction, by u^2 / (u^2 + doubt^2).
    """
    if not hints:
        return ab
    height, width = L.shape[-2:]
    lightness = L[0, 0].detach().cpu().double().numpy().copy()
    predicted = ab[0].detach().cpu().double().numpy().reshape(2, -1).T
    places = {min(int(h.y * height), height - 1) * width + min(int(h.x * width), width - 1): h.ab for h in hints}
    pixels = np.array(list(places))
    difference = np.array(list(places.values())) - predicted[pixels]
    typical = [_typical(lightness, *divmod(pixel, width)) for pixel in places]
    lightness.flat[pixels] = typical
    if len(pixels) == 1:
        u = _diffuse(lightness, pixels, np.ones((1, 1)))
        diffused = u * difference
    else:
        field = _diffuse(lightness, pixels, np.hstack([np.ones((len(pixels), 1)), difference]))
        u, diffused = field[:, :1], field[:, 1:]
    u = u.clip(0, 1)
    added = diffused * u * (1 + _DOUBT**2) / (u * u + _DOUBT**2)
    # the maximum principle, also where u is so small that the solver's tolerance shows
    added = added.clip(difference.min(axis=0, initial=0), difference.max(axis=0, initial=0))
    added[pixels] = difference
    out = (predicted + added).T.reshape(1, 2, height, width)
    return torch.from_numpy(out).to(device=ab.device, dtype=ab.dtype)


def _typical(L: np.ndarray, y: int, x: int) -> float:
    """The median lightness around a pixel: who points at a speck of dust means what lies under it.

    Of two middle values, as there are at borders, the one that is more like the pixel.
    """
    around = np.sort(L[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2], axis=None)
    return float(min(around[(len(around) - 1) // 2], around[len(around) // 2], key=lambda value: abs(value - L[y, x])))


def _diffuse(L: np.ndarray, pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The minimum of the energy of `spread_hints` with given values [k, c] at k pixels: [h * w, c]."""
    count = L.size
    matrix = _energy(L)
    free = np.ones(count, dtype=bool)
    free[pixels] = False
    rows = matrix[np.flatnonzero(free)]
    out = np.empty((count, values.shape[1]))
    out[pixels] = values
    if free.any():
        inflow = -(rows[:, pixels] @ values.astype(np.float32))
        out[free] = _solve(rows[:, np.flatnonzero(free)].tocsr(), inflow)
    return out


def _energy(L: np.ndarray) -> sparse.csr_matrix:
    """The matrix of the energy: affinities of each pixel and its four neighbours, and locality on the diagonal."""
    index = np.arange(L.size).reshape(L.shape)
    contrast = np.concatenate([_contrast(L, axis).ravel() for axis in (0, 1)])
    if len(contrast) and _EDGE * np.median(contrast) > _EDGE_RANGE[1]:  # grain, in which every pixel is an island
        L = ndimage.median_filter(L, size=3)
        contrast = np.concatenate([_contrast(L, axis).ravel() for axis in (0, 1)])
    sigma = np.clip(_EDGE * np.median(contrast), *_EDGE_RANGE) if len(contrast) else _EDGE_RANGE[0]
    affinity = np.maximum(np.exp(-0.5 * np.square(contrast / sigma)), _LEAK)
    one = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
    other = np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])
    affinities = sparse.csr_matrix((affinity.astype(np.float32), (one, other)), shape=(L.size, L.size))
    affinities = affinities + affinities.T
    locality = (_REACH * max(L.shape)) ** -2
    diagonal = np.asarray(affinities.sum(axis=1)).ravel() + locality
    return (sparse.diags(diagonal.astype(np.float32)) - affinities).tocsr()


def _contrast(L: np.ndarray, axis: int) -> np.ndarray:
    """Contrast between each pixel and the next along an axis, in L.

    A blurred edge is many small steps, through each of which color would leak: a step counts for the more, the more
    L changes in all over the five steps about it.
    """
    step = np.abs(np.diff(L, axis=axis))
    padding = [(0, 0), (0, 0)]
    padding[axis] = (2, 2)
    around = np.moveaxis(np.pad(L, padding, mode="edge"), axis, 0)
    rise = np.moveaxis(np.abs(around[5:] - around[:-5]), 0, axis)
    return np.maximum(step, np.sqrt(step * rise))


def _solve(matrix: sparse.csr_matrix, right: np.ndarray, tolerance: float = 3e-4) -> np.ndarray:
    """Solve for all columns of `right` [n, c] at once, by preconditioned conjugate gradients, to a relative residual.

    float32: what is solved for is shown in 8 bits.
    """
    precondition = _Multilevel(matrix)
    residual = right.astype(np.float32)
    x = np.zeros_like(residual)
    scale = np.maximum(np.linalg.norm(residual, axis=0), 1e-20)
    direction, slope = np.zeros_like(residual), np.ones(residual.shape[1], dtype=np.float32)
    for _ in range(100):
        if (np.linalg.norm(residual, axis=0) <= tolerance * scale).all():
            break
        z = precondition(residual)
        before, slope = slope, np.einsum("nc,nc->c", residual, z)
        direction = z + slope / np.maximum(before, 1e-30) * direction
        image = matrix @ direction
        length = slope / np.maximum(np.einsum("nc,nc->c", direction, image), 1e-30)
        x += length * direction
        residual -= length * image
    return x


class _Multilevel:
    """An approximate inverse: what is most alike is merged, level after level, until a direct solve is cheap.

    Each pixel joins the neighbour to which it is most alike, so merged regions do not cross edges (after Koutis,
    Miller and Tolliver 2011, combinatorial multigrid). One W-cycle with one damped Jacobi step before and after.
    """

    def __init__(self, matrix: sparse.csr_matrix, smallest: int = 2500) -> None:
        self.levels: list[tuple] = []
        rng = np.random.default_rng(0)
        while matrix.shape[0] > smallest:
            count = matrix.shape[0]
            # the diagonal is negative here; flat regions are all ties, which a fixed order would merge into lines
            alike = -matrix.data * (1 + 0.3 * rng.random(len(matrix.data), dtype=np.float32))
            lengths = np.diff(matrix.indptr)
            best = np.repeat(np.maximum.reduceat(alike, matrix.indptr[:-1]), lengths)
            chosen = np.flatnonzero((alike == best) & (alike > 0))
            rows = np.repeat(np.arange(count), lengths)[chosen]
            pairs = sparse.csr_matrix((np.ones(len(chosen), np.int8), (rows, matrix.indices[chosen])), matrix.shape)
            merged, region = csgraph.connected_components(pairs, directed=False)
            if merged > 0.9 * count:
                break
            spread = sparse.csr_matrix(
                (np.ones(count, np.float32), region, np.arange(count + 1)), shape=(count, merged)
            )
            gather = spread.T.tocsr()
            self.levels.append((matrix, (0.7 / matrix.diagonal())[:, None], spread, gather))
            matrix = (gather @ matrix @ spread).tocsr()
        self.bottom = splu(matrix.tocsc().astype(np.float64))

    def __call__(self, right: np.ndarray, level: int = 0) -> np.ndarray:
        if level == len(self.levels):
            return self.bottom.solve(right.astype(np.float64)).astype(np.float32)
        matrix, damped, spread, gather = self.levels[level]
        x = damped * right
        coarse = gather @ (right - matrix @ x)
        correction = self(coarse, level + 1)
        if level + 1 < len(self.levels):
            correction += self(coarse - self.levels[level + 1][0] @ correction, level + 1)
        x += 1.3 * (spread @ correction)  # regions of one value each underestimate the correction
        x += damped * (right - matrix @ x)
        return x

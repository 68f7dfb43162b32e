"""Color hints: colors of single pixels, set by a user and propagated through the prediction up to the edges of L."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

_MAX_DOTS = 1000
_MIN_ALPHA = 128  # of 255: alpha from which a pixel on transparency belongs to a dot
_MIN_COLORFULNESS = 48  # of 255: max - min of the channels from which a pixel on grey belongs to a dot
_HALF_STRENGTH = 0.05  # diffused strength at which hint and prediction have equal weight


class Hint(NamedTuple):
    """The color of one pixel."""

    x: float  # fraction of the width, 0..1
    y: float  # fraction of the height, 0..1
    ab: tuple[float, float]  # CIELAB units


def parse_hint(text: str, size: tuple[int, int]) -> Hint:
    """Parse `x,y,#rrggbb`: pixel coordinates in a photograph of size (height, width), and a color in sRGB.

    Only a and b of the color are used. Raises UserError if the text has another form or the pixel is outside.
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
    """Convert painted dots to hints, one per 8-connected component, with the component's mean color.

    The hint is placed at the dot's pixel nearest to its centroid.

    Args:
        dots: uint8 [H, W, 4] sRGB with alpha, of the photograph's aspect ratio. Without transparency, or as [H, W, 3],
            every colored region on a grey, white or black ground is a dot; grey hints are then not possible.
        size: (height, width) of the photograph.

    Raises:
        UserError: the aspect ratio differs, there is no dot, or there are too many or they cover too much.
    """
    from scipy import ndimage  # takes 0.2 s to import

    height, width = dots.shape[:2]
    if abs(width - height * size[1] / size[0]) > max(1.5, 0.02 * width):
        raise UserError(
            f"the picture of hints is {width} x {height} and the photograph {size[1]} x {size[0]}: paint the dots on a"
            " layer over the whole photograph"
        )
    on_transparency = dots.shape[2] == 4 and dots[..., 3].min() < _MIN_ALPHA
    rgb = dots[..., :3]
    strength = dots[..., 3] if on_transparency else rgb.max(axis=2) - rgb.min(axis=2)
    label, count = ndimage.label(strength >= (_MIN_ALPHA if on_transparency else _MIN_COLORFULNESS), np.ones((3, 3)))
    if count == 0:
        raise UserError("the picture of hints has no colored dots: paint some on a transparent layer, and save a PNG")
    if count > _MAX_DOTS or np.count_nonzero(label) > 0.5 * label.size:
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
    """Weighted mean of a and b over sRGB colors, uint8 [n, 3]."""
    ab = rgb8_to_lab(torch.from_numpy(colors.T.copy())[:, None])[1:, 0].double().numpy()
    a, b = np.average(ab, axis=1, weights=weights)
    return float(a), float(b)


def spread_hints(L: Tensor, ab: Tensor, hints: list[Hint]) -> Tensor:
    """Recolor the region around each hint, up to the edges of L.

    Colorization by optimization (Levin, Lischinski and Weiss 2004), applied to the difference d between hinted and
    predicted color, with an additional term sum_r d_r^2 that makes d decay with distance (see `diffuse`). Its solution
    peaks sharply at a single pixel. So a second field u, which is 1 at every hint, is diffused in the same way. d / u
    is the mean of the hints, weighted by how strongly each one reaches a pixel, and u^2 / (u^2 + c^2) is its weight
    against the prediction.

    Args:
        L: [1, 1, h, w] in 0..100, at `common.color.guided_upsampling.working_size`.
        ab: prediction [1, 2, h, w] in CIELAB units.
        hints: if two hints are on one pixel, the later one is used.

    Returns:
        ab [1, 2, h, w]: exactly the hint's color at its pixel, the prediction far away and beyond edges. Changes stay
        within the range of the hints' differences and 0 (maximum principle).
    """
    if not hints:
        return ab
    from common.photo.diffusion import diffuse  # imports scipy

    height, width = L.shape[-2:]
    lightness = L[0, 0].detach().cpu().double().numpy().copy()
    predicted = ab[0].detach().cpu().double().numpy().reshape(2, -1).T
    colors = {min(int(h.y * height), height - 1) * width + min(int(h.x * width), width - 1): h.ab for h in hints}
    pixels = np.array(list(colors))
    difference = np.array(list(colors.values())) - predicted[pixels]
    lightness.flat[pixels] = [_local_median(lightness, *divmod(pixel, width)) for pixel in colors]
    if len(pixels) == 1:
        u = diffuse(lightness, pixels, np.ones((1, 1)))
        diffused = u * difference
    else:
        field = diffuse(lightness, pixels, np.hstack([np.ones((len(pixels), 1)), difference]))
        u, diffused = field[:, :1], field[:, 1:]
    u = u.clip(0, 1)
    added = diffused * u * (1 + _HALF_STRENGTH**2) / (u * u + _HALF_STRENGTH**2)
    # where u is small, the solver's tolerance would violate the maximum principle
    added = added.clip(difference.min(axis=0, initial=0), difference.max(axis=0, initial=0))
    added[pixels] = difference
    out = (predicted + added).T.reshape(1, 2, height, width)
    return torch.from_numpy(out).to(device=ab.device, dtype=ab.dtype)


def _local_median(L: np.ndarray, y: int, x: int) -> float:
    """Median of L [h, w] in the 3 x 3 window around a pixel, so that a speck of dust does not isolate a hint.

    If the window has an even number of pixels, the middle value closer to the pixel's own is returned.
    """
    around = np.sort(L[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2], axis=None)
    return float(min(around[(len(around) - 1) // 2], around[len(around) // 2], key=lambda value: abs(value - L[y, x])))

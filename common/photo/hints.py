"""Color hints: colors of dots and strokes, set by a user and propagated through the prediction.

They keep to the edges of L and to places that look alike to the network.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

_MAX_DOTS = 1000
_MIN_ALPHA = 128  # of 255: alpha from which a pixel on transparency belongs to a dot
_MIN_COLORFULNESS = 48  # of 255: max - min of the channels from which a pixel on grey belongs to a dot
_MAX_POINTS = 64  # of a stroke
_MAX_RADIUS = 200  # pixels
_HALF_STRENGTH = 0.05  # diffused strength at which hint and prediction have equal weight
# chosen on photographs of the training shards, see experiments/README.md
_ALIKE = 0.6  # distance between features, in multiples of their spread, at which a hint has 0.6 of its strength
_MAX_ALIKE = 16  # hints for which features are used: each of them takes another solution


class Hint(NamedTuple):
    """The color of one place."""

    x: float  # fraction of the width, 0..1
    y: float  # fraction of the height, 0..1
    ab: tuple[float, float]  # CIELAB units
    radius: float = 0.0  # of a disc that has this color, as a fraction of the width
    points: tuple[tuple[float, float], ...] = ()  # further places (x, y) of the same color: a stroke

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Flat indices of its pixels in a picture of this size, its center first."""
        places = np.array([(self.x, self.y), *self.points])
        columns = np.minimum((places[:, 0] * width).astype(int), width - 1)
        rows = np.minimum((places[:, 1] * height).astype(int), height - 1)
        radius = self.radius * width
        if radius >= 1:
            y, x = np.mgrid[:height, :width]
            disc = np.flatnonzero((y - rows[0]) ** 2 + (x - columns[0]) ** 2 <= radius**2)
            return np.concatenate([rows * width + columns, disc])
        return rows * width + columns


def parse_hint(text: str, size: tuple[int, int]) -> Hint:
    """Parse `x,y,color` or `x,y,color,radius`, in pixels of a photograph of size (height, width).

    The color is #rgb, #rrggbb or a name of CSS, such as navy. Only its a and b are used. Raises UserError if the text
    has another form or the pixel is outside.
    """
    match = re.fullmatch(r"\s*(-?\d{1,9})\s*,\s*(-?\d{1,9})\s*,\s*([#\w]+)\s*(?:,\s*(\d{1,9})\s*)?", text)
    if not match:
        raise UserError(f"hint '{text}' is not of the form x,y,color: write for example 120,80,#c03020 or 120,80,red")
    x, y, radius = int(match[1]), int(match[2]), int(match[4] or 0)
    height, width = size
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"hint '{text}' lies outside of the photograph, which is {width} x {height}: count from 0,0 at its upper"
            " left"
        )
    if radius > _MAX_RADIUS:
        raise UserError(f"the radius of hint '{text}' is {radius}: expected 0 to {_MAX_RADIUS} pixels")
    return Hint((x + 0.5) / width, (y + 0.5) / height, color_ab(match[3]), radius / width)


def color_ab(name: str) -> tuple[float, float]:
    """ab of a color: #rgb, #rrggbb or a name of CSS. Raises UserError if it is none of these."""
    try:
        if name.startswith("#") and len(name) not in (4, 7):
            raise ValueError
        color = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise UserError(f"'{name}' is not a color: expected a name such as navy, or #rrggbb") from None
    return _mean_ab(np.array([color], dtype=np.uint8), np.ones(1))


def hints_of_dots(dots: np.ndarray, size: tuple[int, int]) -> list[Hint]:
    """Convert painted dots to hints, one per 8-connected component, with the component's mean color.

    The hint is placed at the dot's pixel nearest to its centroid, and at up to 64 others, so that a stroke is followed.

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
        x, y = (columns + 0.5) / width, (rows + 0.5) / height
        every = -(-len(x) // _MAX_POINTS)
        points = tuple(zip(x[::every].tolist(), y[::every].tolist(), strict=True))
        hints.append(Hint(float(x[nearest]), float(y[nearest]), ab, points=points))
    return hints


def _mean_ab(colors: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean of a and b over sRGB colors, uint8 [n, 3]."""
    ab = rgb8_to_lab(torch.from_numpy(colors.T.copy())[:, None])[1:, 0].double().numpy()
    a, b = np.average(ab, axis=1, weights=weights)
    return float(a), float(b)


def spread_hints(L: Tensor, ab: Tensor, hints: list[Hint], features: Tensor | None = None) -> Tensor:
    """Recolor the region around each hint, up to the edges of L, where the network sees the same.

    Colorization by optimization (Levin, Lischinski and Weiss 2004), applied to the difference d between hinted and
    predicted color: a strength u_i, which is 1 at hint i and 0 at the others, is diffused with an additional term
    sum_r u_r^2 that makes it decay with distance (see `diffuse`). Its solution peaks sharply at a single pixel. With
    u = sum_i u_i, sum_i u_i d_i / u is the mean of the hints, weighted by how strongly each one reaches a pixel, and
    u^2 / (u^2 + c^2) is its weight against the prediction. With `features`, u_i is first multiplied by
    exp(-distance^2 / 2 s^2) of the features of pixel and hint: color flows through gaps in the edges of L, and
    features tell the objects on both sides apart.

    Args:
        L: [1, 1, h, w] in 0..100, at `common.color.guided_upsampling.working_size`.
        ab: prediction [1, 2, h, w] in CIELAB units.
        hints: if two hints are on one pixel, the later one is used.
        features: [1, c, s, t] of any size, from `Colorizer.embed`; not used with more than 16 hints.

    Returns:
        ab [1, 2, h, w]: exactly the hint's color at its pixels, the prediction far away and beyond edges. Changes of
        single pixels stay within the range of the hints' differences and 0 (maximum principle).
    """
    if not hints:
        return ab
    from common.photo.diffusion import diffuse  # imports scipy

    height, width = L.shape[-2:]
    lightness = L[0, 0].detach().cpu().double().numpy().copy()
    predicted = ab[0].detach().cpu().double().numpy().reshape(2, -1).T
    owner = {int(pixel): i for i, hint in enumerate(hints) for pixel in hint.pixels(height, width)}
    owners, group = np.unique(list(owner.values()), return_inverse=True)
    pixels, colors = np.array(list(owner)), np.array([hints[i].ab for i in owners])
    member = np.eye(len(owners))[group]  # [number of pixels, number of hints]
    difference = colors - (member / member.sum(axis=0)).T @ predicted[pixels]
    for i in np.flatnonzero(np.bincount(group)[group] == 1):
        lightness.flat[pixels[i]] = _local_median(lightness, *divmod(int(pixels[i]), width))
    if features is not None and len(owners) <= _MAX_ALIKE:
        strengths = diffuse(lightness, pixels, member).clip(0, 1) * _alike(features, (height, width), pixels, member)
        u, diffused = strengths.sum(axis=1, keepdims=True), strengths @ difference
    elif len(owners) == 1:
        u = diffuse(lightness, pixels, np.ones((len(pixels), 1)))
        diffused = u * difference
    else:
        field = diffuse(lightness, pixels, np.hstack([np.ones((len(pixels), 1)), difference[group]]))
        u, diffused = field[:, :1], field[:, 1:]
    u = u.clip(0, 1)
    added = diffused * u * (1 + _HALF_STRENGTH**2) / (u * u + _HALF_STRENGTH**2)
    # where u is small, the solver's tolerance would violate the maximum principle
    added = added.clip(difference.min(axis=0, initial=0), difference.max(axis=0, initial=0))
    added[pixels] = colors[group] - predicted[pixels]
    out = (predicted + added).T.reshape(1, 2, height, width)
    return torch.from_numpy(out).to(device=ab.device, dtype=ab.dtype)


def _alike(features: Tensor, size: tuple[int, int], pixels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """How much each pixel looks like each hint, 0..1: [h * w, number of hints].

    features: [1, c, s, t]. size: (h, w). pixels: flat indices of the hints. member: [number of pixels, number of
    hints], 1 where a pixel belongs to a hint.
    """
    centered = features.detach().float().cpu() - features.mean(dim=(2, 3), keepdim=True).float().cpu()
    centered = centered / centered.square().sum(dim=1).mean().sqrt().clamp(min=1e-6)
    full = F.interpolate(centered, size=size, mode="bilinear", align_corners=False)[0].flatten(1).T.numpy()
    hinted = (member / member.sum(axis=0)).T.astype(np.float32) @ full[pixels]
    squares = (full**2).sum(axis=1, keepdims=True) + (hinted**2).sum(axis=1) - 2 * full @ hinted.T
    return np.exp(-0.5 / _ALIKE**2 * squares.clip(min=0))


def _local_median(L: np.ndarray, y: int, x: int) -> float:
    """Median of L [h, w] in the 3 x 3 window around a pixel, so that a speck of dust does not isolate a hint.

    If the window has an even number of pixels, the middle value closer to the pixel's own is returned.
    """
    around = np.sort(L[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2], axis=None)
    return float(min(around[(len(around) - 1) // 2], around[len(around) // 2], key=lambda value: abs(value - L[y, x])))

"""Scans of old photographs before they are colorized: the tint of age taken off, fading undone.

Unevenly faded prints are left uneven: from one picture, a corner that faded cannot be told from a bright corner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from common.color.lab import rgb8_to_lab, rgb_to_lab
from common.imaging.read import eight_bits

_SAMPLED_SIDE = 512  # statistics come from every n-th pixel of the picture
_BORDER = 0.06  # share of each side that is not looked at: paper, frame, scanner lid
_MARGIN, _FLAT = 0.15, 2.5  # and so much more of it, while its lines are flat: they vary by less, in L
_TAILS = (0.5, 99.5)  # percentiles of L that are taken for black and white
_BLACK, _WHITE = 4.0, 95.0  # L of black and white in a restored photograph
_LIFTED = 8.0  # black that is lifted by so much more proves fading: then what is greyer than white is no dark scene
_LEAST_RANGE = 20.0  # of L: with less between black and white, a stretch would show grain and little else
_TINT_SPREAD = 5.0  # how far ab may lie from what lightness and place explain, in a toned photograph
_NEUTRAL = 1.0  # ab that are this close to 0 on average need no correction
_STRIP_PIXELS = 1_000_000
_STEPS = 65533  # of luminance: three rounded parts of it add up to 65535 at most
_LUMINANCE = (0.212671, 0.715160, 0.072169)  # of linear sRGB, as in common.lab


class Repair(NamedTuple):
    """What is wrong with a scan."""

    toned: bool  # grey once, and of one tint now
    black: float  # L of what is black in it
    white: float  # L of what is white in it


def restore(rgb: np.ndarray) -> np.ndarray:
    """Take the tint off a toned or yellowed grey photograph, and stretch what has faded.

    rgb: uint8 or uint16 [H, W, 3] sRGB. Returns the same shape and depth. Black (the half percent that is darkest,
    borders apart) is brought down to L 4 and, where black was lifted or the photograph toned, white (the half percent
    that is lightest) up to L 95, unless less than 20 is between them. So a photograph of black under L 4 that is
    neutral or in color is fine, and comes back bit for bit; and doing it again changes next to nothing. Lightness is
    stretched by one table for all three channels: a photograph in color stays in color. Beside the picture and the
    result it needs less than 60 MB, whatever the size.
    """
    return apply_repair(rgb, find_repair(rgb))


def find_repair(rgb: np.ndarray) -> Repair:
    """Look at a scan, uint8 or uint16 [H, W, 3], borders apart."""
    height, width = rgb.shape[:2]
    step = max(1, -(-max(height, width) // _SAMPLED_SIDE))
    top, left = round(height * _BORDER), round(width * _BORDER)
    inner = eight_bits(rgb[top : height - top : step, left : width - left : step])
    lab = rgb8_to_lab(torch.from_numpy(np.ascontiguousarray(inner)).permute(2, 0, 1)).double().numpy()
    black, white = np.percentile(_without_margins(lab[0]), _TAILS)
    return Repair(_is_toned(lab), float(black), float(white))


def _without_margins(L: np.ndarray) -> np.ndarray:
    """Lightness [h, w] without the flat lines at its four sides."""
    for _ in range(2):
        most = int(_MARGIN * len(L))
        flat = L.std(axis=1) < _FLAT
        first, last = (int(np.argmin(np.append(side[:most], False))) for side in (flat, flat[::-1]))
        L = L[first : len(L) - last].T
    return L


def _is_toned(lab: np.ndarray) -> bool:
    """Whether a picture, [3, h, w], is of one tint: its ab a smooth function of L, and of the place, as it yellows.

    The hundredth part of the pixels, which lies farthest off, is not looked at: stamps, stains, handwriting.
    """
    _, height, width = lab.shape
    ab = lab[1:].reshape(2, -1).T
    if np.abs(ab).mean() < _NEUTRAL:
        return False
    L = lab[0].ravel() / 100
    y, x = (c.ravel() for c in np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))
    explained = np.stack([np.ones_like(L), L, L**2, L**3, x, y, x * L, y * L], axis=1)
    fitted, *_ = np.linalg.lstsq(explained, ab, rcond=None)
    off = np.linalg.norm(ab - explained @ fitted, axis=1)
    return bool(np.percentile(off, 99) < _TINT_SPREAD)


def _grey_levels(count: int) -> np.ndarray:
    """L of the greys of a depth: of 256 or 65536 of them."""
    return rgb_to_lab(torch.linspace(0, 1, count, dtype=torch.float64).expand(3, 1, count))[0, 0].numpy()


def _stretched(L: np.ndarray, repair: Repair) -> np.ndarray:
    """Lightness after the levels of a repair, in 0..100."""
    black, white = repair.black, repair.white
    if white - black < _LEAST_RANGE:
        return L
    low = min(black, _BLACK)
    proof = 1.0 if repair.toned else min(1.0, (black - low) / _LIFTED)
    high = max(white, white + proof * (_WHITE - white))
    return np.clip(low + (high - low) / (white - black) * (L - black), 0, 100)


def apply_repair(rgb: np.ndarray, repair: Repair) -> np.ndarray:
    """Do to a picture, uint8 or uint16 [H, W, 3], what a repair says. Works in strips, by tables."""
    levels = _grey_levels(np.iinfo(rgb.dtype).max + 1)
    halfway = (levels[1:] + levels[:-1]) / 2
    table = np.searchsorted(halfway, _stretched(levels, repair)).astype(rgb.dtype)
    if not repair.toned and np.array_equal(table, np.arange(len(levels))):
        return rgb.copy()
    out = np.empty_like(rgb)
    rows = max(1, _STRIP_PIXELS // rgb.shape[1])
    if repair.toned:
        linear = np.where(levels > 8, ((levels + 16) / 116) ** 3, levels / 903.3)
        parts = [np.round(_STEPS * weight * linear).astype(np.uint16) for weight in _LUMINANCE]
        # luminance -> L -> what becomes of it, without a rounding in between
        Y = np.arange(_STEPS + 3) / _STEPS
        L = np.where(Y > 0.008856, 116 * np.cbrt(Y) - 16, 903.3 * Y)
        table = np.searchsorted(halfway, _stretched(L, repair)).astype(rgb.dtype)
    for top in range(0, len(rgb), rows):
        strip = rgb[top : top + rows]
        if repair.toned:
            Y = parts[0][strip[..., 0]]
            Y += parts[1][strip[..., 1]]
            Y += parts[2][strip[..., 2]]
            out[top : top + rows] = table[Y][..., None]
        else:
            np.take(table, strip, out=out[top : top + rows])
    return out

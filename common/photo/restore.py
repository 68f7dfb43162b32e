"""Restore scans of old photographs before they are colorized: remove tints and undo fading.

`assess` also tells toned prints from photographs in color.

Uneven fading is not corrected: in a single picture, a faded corner cannot be distinguished from a bright one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.lab import rgb8_to_lab, rgb_to_lab
from common.imaging.read import eight_bits

_SAMPLED_SIDE = 512  # statistics are computed on every n-th pixel
_BORDER = 0.06  # fraction of each side that is ignored: paper, frame, scanner lid
_MARGIN = 0.15  # further fraction of each side that is ignored as long as its lines are flat
_FLAT = 2.5  # standard deviation of L below which a line is flat
_PERCENTILES = (0.5, 99.5)  # of L, taken as black and white
_BLACK, _WHITE = 4.0, 95.0  # L of black and white after restoration
_LIFTED = 8.0  # rise of black, in L, from which white is stretched fully; without it, the scene may just be dark
_MIN_RANGE = 20.0  # smallest range of L that is stretched; below it, mostly grain would be amplified
_TINT_SPREAD = 5.0  # largest residual of ab, after a fit on lightness and position, of a toned photograph
_COLOR_SPREAD = 6.0  # residual of ab that 5 % of the pixels of a photograph in color exceed, without pixel noise
_NEUTRAL = 1.0  # mean |ab| below which a photograph needs no correction
_OFFERED = 6.0  # change of black or white, in L, from which a restoration is worth a sentence
_STRIP_PIXELS = 1_000_000
_STEPS = 65533  # steps of luminance; three rounded parts of it add up to 65535 at most
_LUMINANCE = (0.212671, 0.715160, 0.072169)  # of linear sRGB, as in common.color.lab


class ScanCondition(NamedTuple):
    """What `assess` found in a scan."""

    toned: bool  # a grey photograph with a single tint
    black: float  # L of its black
    white: float  # L of its white
    colored: bool = False  # a photograph in color, or a grey one that was colored

    def fading(self) -> str:
        """What `restore` would change in the lightness, as "black is at L 24 and white at L 71"; "" if not much."""
        stretched = _stretch(np.array([self.black, self.white]), self)
        if self.colored or np.abs(stretched - (self.black, self.white)).max() < _OFFERED:
            return ""
        return f"black is at L {self.black:.0f} and white at L {self.white:.0f}"


def restore(rgb: np.ndarray) -> np.ndarray:
    """Remove the tint of a toned or yellowed grey photograph, and stretch a faded tonal range.

    Black (percentile 0.5 of L, without borders) is mapped to L 4. White (percentile 99.5) is mapped to L 95 if the
    photograph is toned, and to the extent that black is lifted. Nothing is stretched if the range is below 20. The
    tone curve is the same for all three channels, so photographs in color keep their color. A photograph that is not
    toned and whose black is below L 4 is returned unchanged, bit for bit. It needs less than 60 MB beyond input and
    output, whatever the size.

    Args:
        rgb: uint8 or uint16 [H, W, 3] sRGB.

    Returns:
        A new array of the same shape and dtype.
    """
    return correct(rgb, assess(rgb))


def assess(rgb: np.ndarray) -> ScanCondition:
    """Measure color, tint and tonal range of a scan, uint8 or uint16 [H, W, 3] sRGB, without its borders.

    Of 600 photographs in color, 570 are recognized as such, and none of their 600 toned and 600 grey copies with noise
    in their colors (128 px, JPEG). The threshold was chosen on other photographs.
    """
    height, width = rgb.shape[:2]
    step = max(1, -(-max(height, width) // _SAMPLED_SIDE))
    top, left = round(height * _BORDER), round(width * _BORDER)
    inner = eight_bits(rgb[top : height - top : step, left : width - left : step])
    lab = rgb8_to_lab(torch.from_numpy(np.ascontiguousarray(inner)).permute(2, 0, 1)).double()
    black, white = np.percentile(_crop_margins(lab[0].numpy()), _PERCENTILES)
    toned, colored = _is_toned(lab.numpy()), False
    if not toned and min(lab.shape[1:]) >= 3:
        without_noise = F.avg_pool2d(lab, 3, stride=1).numpy()
        colored = bool(np.percentile(_tint_residual(without_noise), 95) > _COLOR_SPREAD)
    return ScanCondition(toned, float(black), float(white), colored)


def _crop_margins(L: np.ndarray) -> np.ndarray:
    """Lightness [h, w] without flat lines at its four sides."""
    for _ in range(2):
        most = int(_MARGIN * len(L))
        flat = L.std(axis=1) < _FLAT
        first, last = (int(np.argmin(np.append(side[:most], False))) for side in (flat, flat[::-1]))
        L = L[first : len(L) - last].T
    return L


def _is_toned(lab: np.ndarray) -> bool:
    """Whether a picture [3, h, w] has a single tint. The 1 % of pixels that differ most are ignored: stamps, stains."""
    if np.abs(lab[1:]).mean() < _NEUTRAL:
        return False
    return bool(np.percentile(_tint_residual(lab), 99) < _TINT_SPREAD)


def _tint_residual(lab: np.ndarray) -> np.ndarray:
    """Distance [h * w] of the ab of a picture [3, h, w] from the tint that fits it best.

    A tint is a smooth function of L and, because prints yellow unevenly, of position.
    """
    _, height, width = lab.shape
    ab = lab[1:].reshape(2, -1).T
    L = lab[0].ravel() / 100
    y, x = (c.ravel() for c in np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))
    predictors = np.stack([np.ones_like(L), L, L**2, L**3, x, y, x * L, y * L], axis=1)
    coefficients, *_ = np.linalg.lstsq(predictors, ab, rcond=None)
    return np.linalg.norm(ab - predictors @ coefficients, axis=1)


def _grey_levels(count: int) -> np.ndarray:
    """L of the greys of a bit depth: [256] or [65536]."""
    return rgb_to_lab(torch.linspace(0, 1, count, dtype=torch.float64).expand(3, 1, count))[0, 0].numpy()


def _stretch(L: np.ndarray, condition: ScanCondition) -> np.ndarray:
    """Stretch lightness linearly, clipped to 0..100."""
    black, white = condition.black, condition.white
    if white - black < _MIN_RANGE:
        return L
    low = min(black, _BLACK)
    fading = 1.0 if condition.toned else min(1.0, (black - low) / _LIFTED)
    high = max(white, white + fading * (_WHITE - white))
    return np.clip(low + (high - low) / (white - black) * (L - black), 0, 100)


def stretch_lightness(L: Tensor, condition: ScanCondition) -> Tensor:
    """What `correct` does to lightness, for a tensor of any shape in 0..100. Only approximate for pictures in color."""
    return torch.from_numpy(_stretch(L.detach().cpu().numpy(), condition)).to(L)


def correct(rgb: np.ndarray, condition: ScanCondition) -> np.ndarray:
    """Correct what was found in a scan, uint8 or uint16 [H, W, 3] sRGB, by lookup tables, in strips."""
    levels = _grey_levels(np.iinfo(rgb.dtype).max + 1)
    halfway = (levels[1:] + levels[:-1]) / 2
    table = np.searchsorted(halfway, _stretch(levels, condition)).astype(rgb.dtype)
    if not condition.toned and np.array_equal(table, np.arange(len(levels))):
        return rgb.copy()
    out = np.empty_like(rgb)
    rows = max(1, _STRIP_PIXELS // rgb.shape[1])
    if condition.toned:
        linear = np.where(levels > 8, ((levels + 16) / 116) ** 3, levels / 903.3)
        parts = [np.round(_STEPS * weight * linear).astype(np.uint16) for weight in _LUMINANCE]
        # luminance -> L -> stretched L -> level in one table, so that only the result is rounded
        Y = np.arange(_STEPS + 3) / _STEPS
        L = np.where(Y > 0.008856, 116 * np.cbrt(Y) - 16, 903.3 * Y)
        table = np.searchsorted(halfway, _stretch(L, condition)).astype(rgb.dtype)
    for top in range(0, len(rgb), rows):
        strip = rgb[top : top + rows]
        if condition.toned:
            Y = parts[0][strip[..., 0]]
            Y += parts[1][strip[..., 1]]
            Y += parts[2][strip[..., 2]]
            out[top : top + rows] = table[Y][..., None]
        else:
            np.take(table, strip, out=out[top : top + rows])
    return out

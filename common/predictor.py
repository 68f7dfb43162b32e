"""Colorize one photograph of any size: predict ab at the network's size, then upsample it along the edges of L.

The working size (longer side at most 512 pixels) is where edits are applied and the guided filter is fitted; the
network gets a smaller square of it.

Stages, each usable on its own: `working_lightness` -> `predict_within_memory` -> `apply_ab`; `colorize_photo` runs all
three. Colors are in CIELAB units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.color.gamut import ab_to_rgb, ab_to_rgb8
from common.color.guided_upsampling import GuidedUpsampling, working_size
from common.color.lab import grey_from_L, rgb8_to_L, rgb_to_lab
from common.colorizer import Colorizer, predict_ab
from common.imaging.read import eight_bits
from common.utils.device import out_of_memory
from common.utils.errors import UserError

# (L [1, 1, h, w] in 0..100, ab [1, 2, h, w]) -> changed ab of the same shape
AbTransform = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[str], None]

_BORDER = 0.06  # fraction of each side that is ignored: paper, frame, scanner lid
_PERCENTILES = (0.005, 0.995)  # of L, taken as black and white
_LIFTED = (8.0, 16.0)  # L of black from which a photograph counts as faded in part, and fully
_BLACK, _WHITE = 4.0, 95.0  # L of black and white after stretching
_MIN_RANGE = 10.0  # smallest range of L that is stretched: a flat picture has no black and white


@dataclass(frozen=True)
class PredictorConfig:
    """How a photograph is passed through a network."""

    size: int  # side of the square that the network sees, in pixels
    min_size: int = 32  # smallest side that is tried when memory runs out, in pixels
    strip_pixels: int = 500_000  # pixels converted at once at full size; this many fit in a CPU's cache


def working_lightness(rgb: np.ndarray, device: torch.device) -> Tensor:
    """L float32 [1, 1, h, w] in 0..100 at `working_size`, of a photograph uint8 or uint16 [H, W, 3] sRGB."""
    height, width = working_size(*rgb.shape[:2])
    # Pillow keeps borders in place where it downscales
    small = Image.fromarray(eight_bits(rgb)).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return _lightness(np.array(small), device)


def network_input(working: Tensor, size: int) -> Tensor:
    """Resize L [n, 1, h, w] to [n, 1, size, size] and undo its fading.

    Nothing is cropped: networks are trained on squares.
    """
    return unfade(F.interpolate(working, size=(size, size), mode="bilinear", antialias=True, align_corners=False))


def unfade(L: Tensor) -> Tensor:
    """Stretch the lightness of faded photographs to the range of the photographs that networks are trained on.

    Black and white are percentiles 0.5 and 99.5 without the borders. A photograph whose black is below L 8 is not
    changed: without lifted black, it may be a dark scene. From L 16, black is mapped to L 4 and white to L 95, and
    between 8 and 16 in part, so that nothing jumps from one frame of a film to the next. On 300 training photographs,
    this changes `rmse_ab` of the model `photo` by less than 0.01, and on faded ones from 11.63 to 10.61.

    Args:
        L: [n, 1, h, w] in 0..100.

    Returns:
        L of the same shape, in 0..100.
    """
    top, left = (round(_BORDER * side) for side in L.shape[-2:])
    inner = L[..., top : L.shape[-2] - top, left : L.shape[-1] - left].flatten(1).float()
    black, white = torch.quantile(inner, torch.tensor(_PERCENTILES, device=L.device), dim=1).view(2, -1, 1, 1, 1)
    fading = ((black - _LIFTED[0]) / (_LIFTED[1] - _LIFTED[0])).clamp(0, 1)
    low, high = black + fading * (_BLACK - black), white + fading * (_WHITE - white).clamp(min=0)
    stretched = (low + (high - low) / (white - black).clamp(min=1) * (L - black)).clamp(0, 100)
    return torch.where((fading > 0) & (white - black >= _MIN_RANGE), stretched, L)


@torch.no_grad()
def predict_within_memory(
    colorizer: Colorizer, working: Tensor, config: PredictorConfig, report: Report = lambda message: None
) -> Tensor:
    """Predict the ab of a photograph, at a smaller size or on the CPU if memory runs out.

    The size is halved down to `config.min_size`, first on the colorizer's device, then on the CPU. The colorizer stays
    on the device that succeeded.

    Args:
        working: L [1, 1, h, w] in 0..100, from `working_lightness`.
        report: called with one sentence if the prediction fell back to another size or device.

    Returns:
        ab [1, 2, s, s] on the device of `working`; s is `config.size` unless memory ran out.

    Raises:
        UserError: no size fits in memory.
    """
    home = colorizer.device
    for device in dict.fromkeys((home, torch.device("cpu"))):
        size = config.size
        while size >= min(config.size, config.min_size):
            try:
                L = network_input(working.to(device), size)
                ab = predict_ab(colorizer.to(device), L).float().to(working.device)
                if (size, device) != (config.size, home):
                    report(f"out of memory: predicted at {size} px on {device} instead of {config.size} px on {home}")
                return ab
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                size //= 2
    raise UserError(f"the network does not fit in memory, not even at {config.min_size} px: use a smaller model")


@torch.no_grad()
def embed_photograph(colorizer: Colorizer, working: Tensor, config: PredictorConfig) -> Tensor | None:
    """Features of a photograph, [1, C, h, w] as `Colorizer.embed`. working: L [1, 1, h, w] in 0..100."""
    size = -(-config.size // colorizer.multiple) * colorizer.multiple
    return colorizer.embed(network_input(working.to(colorizer.device), size))


def fit_upsampling(
    working: Tensor, ab: Tensor, size: tuple[int, int], transform: AbTransform | None = None
) -> GuidedUpsampling:
    """Build a guided upsampling of predicted ab, with L as the guide. Returns a GuidedUpsampling that evaluates strips
    of the result at `size`. ab: [1, 2, s, t] in CIELAB units.

    Args:
        working: L [1, 1, h, w] in 0..100, from `working_lightness`.
        ab: prediction [1, 2, s, t], not larger than `working`.
        size: (height, width) of the upsampled result.
        transform: applied to ab at the size of `working`, before the fit.
    """
    spread = max(working.shape[-2:]) / max(ab.shape[-2:])
    ab = F.interpolate(ab, size=working.shape[-2:], mode="bilinear", align_corners=False)
    return GuidedUpsampling(working, transform(working, ab) if transform else ab, spread, size)


@torch.no_grad()
def predict_photographs(colorizer: Colorizer, L: Tensor, size: int) -> Tensor:
    """Predict the ab of photographs as `colorize_photo` does: at the network's size, upsampled along the edges of L.

    Args:
        colorizer: the network.
        L: [N, 1, H, W] in 0..100.
        size: side of the square that the network sees, in pixels.

    Returns:
        ab [N, 2, H, W] in CIELAB units, float32, before gamut mapping.
    """
    height, width = L.shape[-2:]
    working = L
    if working_size(height, width) != (height, width):
        greys = (grey_from_L(L) * 255).round().to(torch.uint8)[:, 0].cpu().numpy()
        working = torch.cat([working_lightness(np.dstack([grey] * 3), L.device) for grey in greys])
    ab = predict_ab(colorizer, network_input(working, size)).float()
    photographs = zip(L.split(1), working.split(1), ab.split(1), strict=True)
    return torch.cat([fit_upsampling(w, a, (height, width)).strip(one, 0) for one, w, a in photographs])


@torch.no_grad()
def apply_ab(
    rgb: np.ndarray, working: Tensor, ab: Tensor, config: PredictorConfig, transform: AbTransform | None = None
) -> np.ndarray:
    """Give a photograph predicted colors and keep its lightness.

    The conversion runs in strips, so memory beyond the input and the output does not grow with the photograph.

    Args:
        rgb: uint8 or uint16 [H, W, 3] sRGB. Only its lightness is used.
        working: L [1, 1, h, w] of the same photograph, from `working_lightness`.
        ab: prediction [1, 2, s, t], not larger than `working`.
        transform: applied to ab before upsampling.

    Returns:
        Array of the shape and dtype of `rgb`, with the same lightness up to rounding.
    """
    height, width = rgb.shape[:2]
    upsampling = fit_upsampling(working, ab, (height, width), transform)
    out = np.empty_like(rgb)
    rows = max(1, config.strip_pixels // width)
    for top in range(0, height, rows):
        L = _lightness(rgb[top : top + rows], working.device)
        strip = upsampling.strip(L, top)
        if rgb.dtype == np.uint16:
            converted = (ab_to_rgb(L, strip) * 65535).round()[0].permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        else:
            converted = ab_to_rgb8(L, strip)[0].permute(1, 2, 0).cpu().numpy()
        out[top : top + rows] = converted
    return out


@torch.no_grad()
def colorize_photo(
    colorizer: Colorizer,
    rgb: np.ndarray,
    config: PredictorConfig,
    transform: AbTransform | None = None,
    report: Report = lambda message: None,
) -> np.ndarray:
    """Colorize one photograph.

    It needs about 100 MB beyond the input, its 8-bit copy and the output, whatever the size.

    Args:
        rgb: uint8 or uint16 [H, W, 3] sRGB, grey or in color. Only its lightness is used.
        transform: applied to the predicted ab, for example a `common.photo.edit.Edit`.
        report: called with one sentence if memory ran out at the requested size.

    Returns:
        Array of the shape and dtype of `rgb`, with the same lightness up to rounding.

    Raises:
        UserError: the network does not fit in memory.
    """
    working = working_lightness(rgb, colorizer.device)
    ab = predict_within_memory(colorizer, working, config, report)
    return apply_ab(rgb, working, ab, config, transform)


def _lightness(rgb: np.ndarray, device: torch.device) -> Tensor:
    """L float32 [1, 1, H, W] of uint8 or uint16 [H, W, 3] sRGB."""
    if rgb.dtype == np.uint16:
        values = torch.from_numpy(rgb.astype(np.float32) / 65535).to(device)
        return rgb_to_lab(values.permute(2, 0, 1)[None])[:, :1]
    rgb = np.require(rgb, requirements=["C", "W"])  # torch warns of read-only arrays
    return rgb8_to_L(torch.from_numpy(rgb).to(device).permute(2, 0, 1)[None])

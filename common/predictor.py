"""Colorize one photograph of any size: its luminance stays, only color is added."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.color.gamut import ab_to_rgb, ab_to_rgb8
from common.color.guided_upsampling import GuidedUpsampling, working_size
from common.color.lab import rgb8_to_L, rgb_to_lab
from common.colorizer import Colorizer, predict_ab
from common.imaging.read import eight_bits
from common.utils.device import out_of_memory
from common.utils.errors import UserError

# (L [1, 1, h, w], predicted ab [1, 2, h, w]) -> changed ab, both in CIELAB units
ChangeAb = Callable[[Tensor, Tensor], Tensor]
_STRIP_PIXELS = 500_000  # small enough to stay in the processor's cache
_SMALLEST = 32  # side below which a network that runs out of memory is not tried any more


def _lightness(rgb: np.ndarray, device: torch.device) -> Tensor:
    if rgb.dtype == np.uint16:
        values = torch.from_numpy(rgb.astype(np.float32) / 65535).to(device)
        return rgb_to_lab(values.permute(2, 0, 1)[None])[:, :1]
    rgb = np.require(rgb, requirements=["C", "W"])  # torch warns of arrays that it must not write
    return rgb8_to_L(torch.from_numpy(rgb).to(device).permute(2, 0, 1)[None])


def _strips(height: int, width: int) -> list[slice]:
    rows = max(1, _STRIP_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def working_lightness(rgb: np.ndarray, device: torch.device) -> Tensor:
    """Lightness [1, 1, h, w] of a photograph [H, W, 3] at `working_size`.

    It is made smaller by Pillow, which keeps borders where they are.
    """
    height, width = working_size(*rgb.shape[:2])
    small = Image.fromarray(eight_bits(rgb)).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return _lightness(np.array(small), device)


def squeezed(working: Tensor, size: int) -> Tensor:
    """[1, 1, h, w] -> [1, 1, size, size]: the whole picture in a square, as the network was trained on squares."""
    return F.interpolate(working, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def predict_within_memory(
    colorizer: Colorizer, working: Tensor, size: int, say: Callable[[str], None] = lambda line: None
) -> Tensor:
    """ab of a photograph as the network predicts it, [1, 2, s, s] on the CPU or where the colorizer is.

    Where the device's memory does not do, at half the size, then at a quarter and so on, then all of these on the CPU,
    and `say` is told. Raises UserError where nothing fits.
    """
    home = colorizer.device
    for device in dict.fromkeys((home, torch.device("cpu"))):
        side = size
        while side >= min(size, _SMALLEST):
            try:
                ab = predict_ab(colorizer.to(device), squeezed(working.to(device), side)).float().to(working.device)
                if (side, device) != (size, home):
                    say(f"out of memory: predicted at {side} px on {device} instead of {size} px on {home}")
                return ab
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                side //= 2
    raise UserError(f"the network does not fit in memory, not even at {_SMALLEST} px: use a smaller model")


@torch.no_grad()
def colorize_photo(
    colorizer: Colorizer,
    rgb: np.ndarray,
    size: int,
    edit: ChangeAb | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """Colorize a photograph.

    rgb: uint8 or uint16 [H, W, 3] sRGB, grey or not: only its lightness is used. size: side of the square that the
    network sees. edit: what to change of the predicted color. say: is told where memory did not do. Returns the same
    shape and depth, of the same lightness up to rounding. Works in strips: beside the picture and its copies it needs
    about 100 MB, whatever the size.
    """
    device = colorizer.device
    working = working_lightness(rgb, device)
    return paint(rgb, working, predict_within_memory(colorizer, working, size, say), edit)


def fit(working: Tensor, ab: Tensor, edit: ChangeAb | None, size: tuple[int, int]) -> GuidedUpsampling:
    """Fit predicted colors, edited, to the edges of a photograph; its strips are of (height, width) `size`.

    Shapes are those of `paint`.
    """
    spread = max(working.shape[-2:]) / max(ab.shape[-2:])  # working pixels for one predicted pixel
    ab = F.interpolate(ab, size=working.shape[-2:], mode="bilinear", align_corners=False)
    return GuidedUpsampling(working, edit(working, ab) if edit else ab, spread, size)


@torch.no_grad()
def paint(rgb: np.ndarray, working: Tensor, ab: Tensor, edit: ChangeAb | None = None) -> np.ndarray:
    """Give a photograph [H, W, 3] colors that were predicted for it: the second half of `colorize`.

    working: its lightness [1, 1, h, w] at `working_size`. ab: [1, 2, s, t] of any smaller size.
    """
    height, width = rgb.shape[:2]
    upsampling = fit(working, ab, edit, (height, width))
    out = np.empty_like(rgb)
    for rows in _strips(height, width):
        L = _lightness(rgb[rows], working.device)
        strip = upsampling.strip(L, rows.start)
        if rgb.dtype == np.uint16:
            found = (ab_to_rgb(L, strip) * 65535).round()[0].permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        else:
            found = ab_to_rgb8(L, strip)[0].permute(1, 2, 0).cpu().numpy()
        out[rows] = found
    return out

"""Colorize one photograph of any size: its luminance stays, only colour is added."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.colorizer import Colorizer
from common.evaluation import predict_ab
from common.lab import ab_to_rgb8, rgb8_to_lab
from common.photo.upsample import GuidedUpsampling, working_size

_STRIP_PIXELS = 500_000  # small enough to stay in the processor's cache


def _lightness(rgb: np.ndarray, device: torch.device) -> Tensor:
    lab = rgb8_to_lab(torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None])
    return lab[:, :1]


def _strips(height: int, width: int) -> list[slice]:
    rows = max(1, _STRIP_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _small_lightness(rgb: np.ndarray, size: tuple[int, int], device: torch.device) -> Tensor:
    """Lightness [1, 1, *size] of a picture made smaller by Pillow, which keeps borders where they are."""
    height, width = size
    small = Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return _lightness(np.array(small), device)


def network_view(rgb: np.ndarray, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Lightness of a photograph, uint8 [H, W, 3]: at working size [1, 1, h, w], and as seen, [1, 1, size, size].

    The network sees the whole picture squeezed into a square, as it was trained on squares.
    """
    working = _small_lightness(rgb, working_size(*rgb.shape[:2]), device)
    return working, F.interpolate(working, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


@torch.no_grad()
def colorize(colorizer: Colorizer, rgb: np.ndarray, size: int) -> np.ndarray:
    """Colorize a photograph.

    rgb: uint8 [H, W, 3] sRGB, grey or not: only its lightness is used. size: side of the square that the network
    sees. Returns uint8 [H, W, 3] of the same lightness
    up to 8-bit rounding. Works in strips: beside the picture and its copies in 8 bits it needs about 100 MB, whatever
    the size.
    """
    height, width = rgb.shape[:2]
    device = next(colorizer.parameters()).device
    working, seen = network_view(rgb, size, device)
    upsampling = GuidedUpsampling(working, predict_ab(colorizer, seen).float(), (height, width))
    out = np.empty_like(rgb)
    for rows in _strips(height, width):
        L = _lightness(rgb[rows], device)
        strip = ab_to_rgb8(L, upsampling.strip(L, rows.start))
        out[rows] = strip[0].permute(1, 2, 0).cpu().numpy()
    return out

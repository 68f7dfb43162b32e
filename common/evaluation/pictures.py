"""What metrics compare: batches of pictures, in CIELAB and in sRGB."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.color.gamut import fit_gamut
from common.color.lab import lab_to_rgb, rgb8_to_L


class Pictures(NamedTuple):
    """A batch of pictures, true or predicted."""

    ab: Tensor  # float32 [N, 2, H, W] in CIELAB units, before rounding
    rgb: Tensor  # uint8 [N, 3, H, W]
    rarity: Tensor | None = None  # float32 [N, H, W], of true pictures: 1 / prior of each pixel's ab bin
    L: Tensor | None = None  # float32 [N, 1, H, W], 0..100, of the photograph
    unmapped_ab: Tensor | None = None  # float32 [N, 2, H, W], of predicted pictures: ab before gamut mapping

    @property
    def lightness(self) -> Tensor:
        """`L`, or the lightness of `rgb` if there is no `L`: float32 [N, 1, H, W], 0..100."""
        return rgb8_to_L(self.rgb) if self.L is None else self.L


def predicted_pictures(L: Tensor, ab: Tensor) -> Pictures:
    """Convert predicted colors to sRGB as `colorize` does: by `fit_gamut`, rounded to 8 bits.

    L: [N, 1, H, W]. ab: [N, 2, H, W], CIELAB units. The result's ab is that after gamut mapping, before rounding.
    """
    L, ab = L.float(), ab.float()
    mapped = fit_gamut(L, ab)
    rgb = lab_to_rgb(torch.cat([L, mapped], dim=1))
    return Pictures(mapped, (rgb * 255).round().to(torch.uint8), L=L, unmapped_ab=ab)

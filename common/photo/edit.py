"""Edits of a predicted color: palette, hints, saturation, hue and color temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.photo.hints import Hint, spread_hints
from common.photo.palette import transfer_palette
from common.utils.errors import UserError
from common.utils.options import check_value

DAYLIGHT = 6504.0  # kelvin; this color temperature changes nothing
KELVIN_RANGE = (1700.0, 25000.0)


@dataclass(frozen=True)
class Edit:
    """Changes of ab at constant L, applied in this order: palette, hints, saturation and hue, color temperature.

    Raises UserError if a value is out of range.
    """

    saturation: float = 1.0  # factor on chroma, 0 to 5
    hue: float = 0.0  # rotation of all hues in degrees, -360 to 360
    kelvin: float | None = None  # color temperature of the scene's light; below 6504 is warmer, above is colder
    hints: Sequence[Hint] = ()
    features: Tensor | None = None  # of the photograph, from `Colorizer.embed`: hints keep to similar places
    palette: np.ndarray | None = None  # uint8 [H, W, 3] sRGB, a reference whose color statistics are transferred

    def __post_init__(self) -> None:
        check_value("saturation", f"{self.saturation:g}", 0 <= self.saturation <= 5, "a factor from 0 to 5")
        check_value("hue", f"{self.hue:g}", -360 <= self.hue <= 360, "degrees from -360 to 360")
        if self.kelvin is not None and not KELVIN_RANGE[0] <= self.kelvin <= KELVIN_RANGE[1]:
            raise UserError(f"the color temperature is {self.kelvin:g}: expected kelvin from 1700 to 25000")

    def __call__(self, L: Tensor, ab: Tensor) -> Tensor:
        """Apply the edit to a prediction: L [1, 1, h, w] in 0..100 and ab [1, 2, h, w] -> ab [1, 2, h, w]."""
        if self.palette is not None:
            ab = transfer_palette(ab, L, self.palette)
        if self.hints:
            ab = spread_hints(L, ab, list(self.hints), self.features)
        if self.saturation != 1 or self.hue:
            ab = adjust_chroma(ab, self.saturation, self.hue)
        if self.kelvin is not None:
            ab = change_illuminant(L, ab, self.kelvin)
        return ab


def adjust_chroma(ab: Tensor, saturation: float, hue: float) -> Tensor:
    """Multiply the chroma of ab [..., 2, H, W] by `saturation` and rotate its hue by `hue` degrees."""
    cos, sin = (saturation * f(math.radians(hue)) for f in (math.cos, math.sin))
    a, b = ab.unbind(-3)
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-3)


def blackbody_white(kelvin: float) -> tuple[float, float]:
    """X and Z, at Y = 1, of a black body of 1667 to 25000 K (Kim et al. 2002, US patent 7024034: cubic fits)."""
    t = 1000 / kelvin
    if kelvin <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    return x / y, (1 - x - y) / y


def change_illuminant(L: Tensor, ab: Tensor, kelvin: float) -> Tensor:
    """Colors of the scene under a light of another color temperature, at the same lightness.

    X and Z are scaled by the ratio of the light's white point to daylight's (von Kries adaptation in XYZ). In CIELAB
    this is a factor on f(X) and f(Z), exact where both are on the cube-root branch.

    L: [..., 1, H, W] in 0..100. ab: [..., 2, H, W]. kelvin: in `KELVIN_RANGE`. Returns ab of the same shape.
    """
    (X, Z), (X0, Z0) = blackbody_white(kelvin), blackbody_white(DAYLIGHT)
    fy = (L + 16) / 116
    a, b = ab[..., :1, :, :], ab[..., 1:, :, :]
    fx, fz = (fy + a / 500) * (X / X0) ** (1 / 3), (fy - b / 200) * (Z / Z0) ** (1 / 3)
    # fade the change out below the cube-root branch: black has no color under any light
    weight = (L / 8).clamp(0, 1)
    return torch.cat([a + weight * (500 * (fx - fy) - a), b + weight * (200 * (fy - fz) - b)], dim=-3)

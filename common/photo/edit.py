"""What a person changes of a predicted color: its strength, its hue, the light, places, and the whole mood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from common.utils.errors import UserError

if TYPE_CHECKING:
    from common.photo.hints import Hint

DAYLIGHT = 6504.0  # kelvin: the light that changes nothing
KELVIN = (1700.0, 25000.0)


@dataclass(frozen=True)
class Edit:
    """Changes of ab at constant L, applied in this order: palette, hints, saturation and hue, light.

    palette: uint8 [H, W, 3], a photograph whose colors are taken over. hints: colors of places. saturation: factor on
    chroma. hue: degrees to turn by. kelvin: color temperature of the light that the scene is to be seen under (6504
    changes nothing, less is warmer). Raises UserError for a value out of range.
    """

    saturation: float = 1.0
    hue: float = 0.0
    kelvin: float | None = None
    hints: Sequence[Hint] = ()
    palette: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.saturation <= 5:
            raise UserError(f"saturation is {self.saturation:g}: it takes a factor from 0 to 5")
        if not -360 <= self.hue <= 360:
            raise UserError(f"hue is {self.hue:g}: it takes degrees from -360 to 360")
        if self.kelvin is not None and not KELVIN[0] <= self.kelvin <= KELVIN[1]:
            raise UserError(f"the color temperature is {self.kelvin:g}: it takes kelvin from 1700 to 25000")

    def __call__(self, L: Tensor, ab: Tensor) -> Tensor:
        """L [1, 1, h, w] and predicted ab [1, 2, h, w] -> ab of the same shape."""
        if self.palette is not None:
            from common.photo.palette import transfer_palette

            ab = transfer_palette(ab, L, self.palette)
        if self.hints:
            from common.photo.hints import spread_hints

            ab = spread_hints(L, ab, list(self.hints))
        if self.saturation != 1 or self.hue:
            ab = turned(ab, self.saturation, self.hue)
        if self.kelvin is not None:
            ab = relit(L, ab, self.kelvin)
        return ab


def turned(ab: Tensor, saturation: float, hue: float) -> Tensor:
    """Chroma times `saturation`, hue turned by `hue` degrees; ab [..., 2, H, W]."""
    cos, sin = (saturation * f(math.radians(hue)) for f in (math.cos, math.sin))
    a, b = ab.unbind(-3)
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-3)


def white_of(kelvin: float) -> tuple[float, float]:
    """X and Z of a black body's light with Y = 1 (Kim et al. 2002, US patent 7024034: cubic fits of x and y)."""
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


def relit(L: Tensor, ab: Tensor, kelvin: float) -> Tensor:
    """Colors as under light of another temperature, at the same lightness.

    L [..., 1, H, W], ab [..., 2, H, W]. X and Z are scaled by the ratio of that light's white to daylight's (von
    Kries); in Lab that is a factor on f(X) and f(Z), as far as both lie on the cube root's branch.
    """
    (X, Z), (X0, Z0) = white_of(kelvin), white_of(DAYLIGHT)
    fy = (L + 16) / 116
    a, b = ab[..., :1, :, :], ab[..., 1:, :, :]
    fx, fz = (fy + a / 500) * (X / X0) ** (1 / 3), (fy - b / 200) * (Z / Z0) ** (1 / 3)
    # black has no color under any light: fade the change out below the cube root's branch
    share = (L / 8).clamp(0, 1)
    return torch.cat([a + share * (500 * (fx - fy) - a), b + share * (200 * (fy - fz) - b)], dim=-3)

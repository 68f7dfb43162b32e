"""Conversion of colors to distributions over ab bins and back."""

from __future__ import annotations

import torch
from torch import Tensor

from common.color.ab_bins import ABBins
from common.utils.errors import UserError


def check_temperature(temperature: float) -> float:
    """Return the temperature. Raises UserError unless it is above 0."""
    if not temperature > 0:  # NaN too
        raise UserError(f"temperature is {temperature}: expected a number above 0 (1 is the mean, towards 0 the mode)")
    return temperature


class ABQuantizer(ABBins):
    """ABBins with the encoding and decoding of Zhang et al. (2016), computed in fp32 also under autocast.

    Encoding and decoding an sRGB color at temperature 1 changes it by less than half a grid step. At grid 10 the mean
    change is 0.3 ab units, and the largest 4.7, for pure yellow.

    sigma: of the soft encoding, in ab units (default: half the grid, which is the paper's 5 at its grid of 10).
    """

    def __init__(self, grid: int = 10, sigma: float | None = None) -> None:
        super().__init__(grid)
        self.sigma = grid / 2 if sigma is None else sigma
        if not self.sigma > 0:
            raise UserError(f"sigma is {sigma}: expected a number of ab units above 0")

    def soft_encode(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """The five nearest bins and their Gaussian weights (section 2.1).

        ab: [N, 2, h, w] in CIELAB units. Returns (indices int64, weights float32 that sum to 1), each [N, h, w, 5],
        nearest first: the sparse form of a distribution over all bins.
        """
        indices, distances = self.k_nearest(ab)
        with torch.autocast(ab.device.type, enabled=False):
            # relative to the nearest bin: far outside the gamut all five weights would underflow otherwise
            squares = distances.square()
            weights = torch.exp((squares[..., :1] - squares) / (2 * self.sigma**2))
            return indices, weights / weights.sum(dim=-1, keepdim=True)

    def distribution(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Softmax of logits [N, Q, h, w] / temperature: probabilities [N, Q, h, w]."""
        with torch.autocast(logits.device.type, enabled=False):
            return torch.softmax(logits.float() / check_temperature(temperature), dim=1)

    def annealed_mean(self, logits: Tensor, temperature: float = 0.38) -> Tensor:
        """Expected color under the sharpened distribution (equation 5): [N, Q, h, w] -> ab [N, 2, h, w].

        Temperature 1 gives the mean; as it approaches 0, the result approaches the mode. Raises UserError for a
        temperature that is not above 0.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return (self.distribution(logits, temperature).movedim(1, -1) @ self.ab_bins).movedim(-1, 1)

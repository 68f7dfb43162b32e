"""Colors as distributions over ab bins, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from common.color.ab_bins import ABBins
from common.utils.errors import UserError


def check_temperature(temperature: float) -> float:
    """The temperature itself. Raises UserError where it is not above 0."""
    if not temperature > 0:  # NaN too
        raise UserError(f"temperature is {temperature}: it takes a number above 0 (1 is the mean, towards 0 the mode)")
    return temperature


class ABQuantizer(ABBins):
    """ABBins with the encoding and decoding of Zhang et al. (2016), all in fp32, also under autocast.

    An sRGB color that is encoded and decoded at temperature 1 comes back within half a grid step (at grid 10: 4.7 ab
    units at most, at pure yellow on the gamut's edge; 0.3 in the mean).

    sigma: of the soft encoding, in ab units (default: half the grid, which is the paper's 5 for its grid of 10).
    """

    def __init__(self, grid: int = 10, sigma: float | None = None) -> None:
        super().__init__(grid)
        self.sigma = grid / 2 if sigma is None else sigma
        if not self.sigma > 0:
            raise UserError(f"sigma is {sigma}: it takes a number of ab units above 0")

    def soft_encode(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """The five nearest bins and their Gaussian weights (section 2.1).

        ab: [N, 2, h, w] in CIELAB units. Returns (indices int64, weights float32 that sum to 1), each [N, h, w, 5],
        nearest first: the sparse form of a distribution over all bins.
        """
        indices, distances = self.k_nearest(ab)
        with torch.autocast(ab.device.type, enabled=False):
            # relative to the nearest: far outside the gamut all five would underflow
            squares = distances.square()
            weights = torch.exp((squares[..., :1] - squares) / (2 * self.sigma**2))
            return indices, weights / weights.sum(dim=-1, keepdim=True)

    def dense(self, indices: Tensor, weights: Tensor) -> Tensor:
        """A sparse distribution [N, h, w, 5] as probabilities of all bins [N, Q, h, w]."""
        full = weights.new_zeros(*indices.shape[:-1], self.num_bins)
        return full.scatter_add_(-1, indices, weights).movedim(-1, 1)

    def distribution(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Probabilities [N, Q, h, w] of logits [N, Q, h, w], sharpened by a temperature below 1."""
        with torch.autocast(logits.device.type, enabled=False):
            return torch.softmax(logits.float() / check_temperature(temperature), dim=1)

    def annealed_mean(self, logits: Tensor, temperature: float = 0.38) -> Tensor:
        """Expected color under the sharpened distribution (equation 5): [N, Q, h, w] -> ab [N, 2, h, w].

        Temperature 1 is the mean, towards 0 it becomes the mode. Raises UserError for one that is not above 0.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return (self.distribution(logits, temperature).movedim(1, -1) @ self.ab_bins).movedim(-1, 1)

    def mode(self, logits: Tensor) -> Tensor:
        """Color of the most likely bin: [N, Q, h, w] -> ab [N, 2, h, w]."""
        return self.ab_bins[logits.argmax(dim=1)].movedim(-1, 1)

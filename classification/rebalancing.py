"""Class rebalancing: larger weights of rare colors in the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from common.utils.errors import UserError


def class_weights(prior: Tensor, uniform_share: float = 0.5) -> Tensor:
    """Weights of the bins (Zhang et al. 2016, equation 4): w = 1 / ((1 - lambda) p + lambda / Q), with sum(p w) = 1.

    prior: p, [Q], sums to 1. uniform_share: lambda; 1 gives all bins the same weight, 0 the inverse of their frequency.
    Bins with p = 0 get weight 1, the mean weight: the formula would give them the largest weight, although their colors
    occur only through augmentation. Returns [Q] in the dtype of the prior. Raises UserError for a lambda outside 0..1.
    """
    if not 0 <= uniform_share <= 1:
        raise UserError(f"rebalancing lambda is {uniform_share}: it takes a share in [0, 1]")
    seen = prior > 0
    mixed = (1 - uniform_share) * prior + uniform_share / len(prior)
    weights = torch.where(seen, 1 / mixed.clamp(min=torch.finfo(prior.dtype).tiny), 0.0)
    return torch.where(seen, weights / (prior * weights).sum(), 1.0)

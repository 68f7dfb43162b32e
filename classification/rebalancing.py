"""Class rebalancing: larger weights of rare colors in the loss, or a shift of the logits after training."""

from __future__ import annotations

import re

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
        raise UserError(f"rebalancing lambda is {uniform_share}: expected a share in [0, 1]")
    seen = prior > 0
    mixed = (1 - uniform_share) * prior + uniform_share / len(prior)
    weights = torch.where(seen, 1 / mixed.clamp(min=torch.finfo(prior.dtype).tiny), 0.0)
    return torch.where(seen, weights / (prior * weights).sum(), 1.0)


def baked_shift(card: dict) -> float:
    """The shift that is part of the bias of published weights.

    Weights published by older versions have it there; in newer ones it is the option `shift`.
    """
    match = re.match(r"logits \+ ([\d.]+) log\(class weights", card.get("shifted") or "")
    return float(match[1]) if match else 0.0


def starting_model(card: dict) -> dict:
    """`model` options of a training that starts from weights with this card: their shift, and the prior in them."""
    model = upgrade(card["model"])
    return model | {"prior": None} | ({"shift": baked_shift(card)} if baked_shift(card) else {})


def upgrade(model: dict) -> dict:
    """Convert options of old weights and runs, which have no `shift` and no options of the fully connected network."""
    model = {"shift": 0.0, "dropout": 0.0} | model
    return model if model.get("network") == "fully_connected" else model | {"size": None}

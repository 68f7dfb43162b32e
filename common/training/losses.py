"""Losses on ab that every family can use, alone or mixed by weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.lab import ab_to_unit
from common.training.perceptual import PerceptualConfig, PerceptualLoss
from common.utils.errors import UserError, near
from common.utils.options import refuse_unused

# Name -> function of predicted and true ab, both float32 [N, 2, H, W] in network range (ab / 110), to a scalar.
PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": lambda predicted, true: F.smooth_l1_loss(predicted, true, beta=0.1),
}
PERCEPTUAL = "perceptual"  # in a mix like the others, but it needs L and a network


def loss_weights(loss: str | dict[str, float], option: str = "model.loss") -> dict[str, float]:
    """The weights of a loss as a config names it.

    loss: a name, several as in `l1+mse`, or weights as in `{l1: 1, mse: 0.5, perceptual: 0.1}`. Raises UserError for an
    unknown name, a negative weight, and where all weights are 0.
    """
    weights = dict.fromkeys(loss.split("+"), 1.0) if isinstance(loss, str) else dict(loss)
    known = [*PIXEL_LOSSES, PERCEPTUAL]
    for name, weight in weights.items():
        if name == "cross_entropy":
            raise UserError(f"{option} names cross_entropy, for models with ab bins: use --family classification")
        if name not in known:
            raise UserError(f"{option} names {name}: expected {', '.join(known)}{near(name, known)}")
        if weight < 0:
            raise UserError(f"{option} gives {name} the weight {weight}: expected 0 or more")
    if not any(weights.values()):
        raise UserError(f"{option} is {loss}: one weight must be above 0")
    return weights


class MixedLoss:
    """A weighted sum of losses on ab.

    It is not a Module, so that the network of the perceptual loss is neither trained nor saved.

    weights: name -> weight, as `loss_weights` returns them; `perceptual.weight` is added to them. Raises UserError
    where options of the perceptual loss are wrong.
    """

    def __init__(self, weights: dict[str, float], perceptual: PerceptualConfig | None = None) -> None:
        self.perceptual = perceptual or PerceptualConfig()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if self.perceptual.weight:
            self.weights[PERCEPTUAL] = self.weights.get(PERCEPTUAL, 0.0) + self.perceptual.weight
        if PERCEPTUAL in self.weights:
            self.perceptual.check()
        else:
            options = (f.name for f in fields(PerceptualConfig) if f.name != "weight")
            refuse_unused("model.perceptual", self.perceptual, options, "a loss without the perceptual loss")
        self._network: PerceptualLoss | None = None

    def load(self, device: torch.device) -> None:
        """Load the network of the perceptual loss, if it is used. Raises UserError where its weights are missing."""
        if PERCEPTUAL in self.weights:
            self._network = PerceptualLoss(self.perceptual, device)

    def terms(self, L: Tensor, predicted_ab: Tensor, true_ab: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, unweighted scalar).

        L: [N, 1, H, W] in 0..100; both ab: [N, 2, H, W] in CIELAB units.
        """
        predicted, true = ab_to_unit(predicted_ab.float()), ab_to_unit(true_ab)
        out = {}
        for name, weight in self.weights.items():
            if name == PERCEPTUAL:
                if self._network is None:
                    self.load(L.device)
                out[self.perceptual.term] = (weight, self._network(L, predicted_ab, true_ab))
            else:
                out[name] = (weight, PIXEL_LOSSES[name](predicted, true))
        return out


def weighted_sum(terms: dict[str, tuple[float, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """(the weighted sum of terms, the unweighted terms by name)."""
    return sum(weight * term for weight, term in terms.values()), {name: term for name, (_, term) in terms.items()}

"""Ensembles: the mean of the predictions of trained colorizers, or a small network that combines them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Objective, TrainingHooks
from common.networks.encoder_unet import to_buffers
from common.registry import build_colorizer, load_colorizer, without_downloads
from common.training.losses import MixedLoss, loss_weights, weighted_sum
from common.utils.errors import UserError


class Mixer(nn.Module):
    """Combine the members' predictions pixel by pixel: stacked generalization (Wolpert 1992).

    Three 3x3 convolutions of dilation 1, 2 and 4, with a receptive field of 15 x 15 pixels, take L and every member's
    ab. A 1x1 convolution outputs one weight per member (softmax) and a correction of ab, which is added to the weighted
    mean. It is initialized to zero, so the initial output is the mean. The correction is scaled by 0.1, so that it is
    learned more slowly than the weights.
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.members = members
        layers: list[nn.Module] = []
        before = 1 + 2 * members
        for dilation in (1, 2, 4):
            layers += [nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
            before = width
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(width, members + 2, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        """L [N, 1, H, W] and the members' ab [N, M, 2, H, W], in network range -> ab [N, 2, H, W] in network range."""
        out = self.last(self.features(torch.cat([L, ab.flatten(1, 2)], dim=1))).float()
        weights = out[:, : self.members].softmax(dim=1).unsqueeze(2)
        return (weights * ab).sum(dim=1) + 0.1 * out[:, self.members :]


class Ensemble(Colorizer):
    """An ensemble of trained colorizers.

    The members are not trained: their parameters become buffers, which are saved with the weights, and they stay in
    eval mode.

    cards: the members' cards, in the same order. network: combines the predictions; None for their mean.
    """

    def __init__(
        self, members: Sequence[Colorizer], cards: Sequence[dict], network: Mixer | None, loss: MixedLoss | None = None
    ) -> None:
        super().__init__()
        self.loss, self.cards = loss or MixedLoss({"mse": 1.0}), list(cards)
        self.member_parameters = sum(freeze_member(member) for member in members)
        self.members = nn.ModuleList(members)
        self.network = network
        self.multiple = math.lcm(*(member.multiple for member in members))
        self.train()

    @property
    def temperature(self) -> float | None:  # type: ignore[override]
        """Temperature of the first member that has one, or None. Setting it changes every member that has one."""
        return next((m.temperature for m in self.members if m.temperature is not None), None)

    @temperature.setter
    def temperature(self, value: float) -> None:
        for member in self.members:
            if member.temperature is not None:
                member.temperature = value

    def train(self, mode: bool = True) -> Ensemble:
        """Set the mode of the mixing network. The members stay in eval mode."""
        super().train(mode)
        self.members.eval()
        return self

    def member_ab(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> predictions of the M members, ab [N, M, 2, H, W] in CIELAB units."""
        return torch.stack([member(L).float() for member in self.members], dim=1)

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        ab = self.member_ab(L)
        if self.network is None:
            return ab.mean(dim=1)
        return ab_from_unit(self.network(L_to_unit(L), ab_to_unit(ab)))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield the objective of the mixing network. Raises UserError for a mean."""
        if self.network is None:
            raise UserError("model.kind is mean, which has nothing to learn: use stack, or name mean(a,b) as a model")
        yield Objective("network", *weighted_sum(self.loss.terms(batch.L, self(batch.L), batch.ab)))

    def networks(self) -> dict[str, nn.Module]:
        """The mixing network; a mean has none."""
        return {} if self.network is None else {"network": self.network}

    @cached_property
    def hooks(self) -> TrainingHooks:
        """Hooks that complete the card."""
        return EnsembleHooks(self)


class EnsembleHooks(TrainingHooks):
    """Hooks that store the members' cards and training photographs with the weights of the ensemble."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    def complete_card(self, card: dict) -> dict:
        """Replace the paths of the base models by their cards, and add their parameters to the count."""
        model = card["model"] | {"members": self.ensemble.cards}
        return card | {"model": model, "parameters": card["parameters"] + self.ensemble.member_parameters}

    def complete_fingerprints(self, fingerprints: np.ndarray) -> np.ndarray | None:
        """Add the training photographs of the members."""
        members = members_fingerprints(self.ensemble.members)
        return None if members is None else np.unique(np.concatenate([fingerprints, members]), axis=0)


def members_fingerprints(members: Iterable[Colorizer]) -> np.ndarray | None:
    """Fingerprints of all photographs that members were trained on, uint8 [n, 16]; None if some are unknown."""
    known = [member.fingerprints for member in members]
    return None if any(each is None for each in known) else np.unique(np.concatenate(known), axis=0)


def freeze_member(member: Colorizer) -> int:
    """Turn all parameters of a colorizer into buffers of the same names, and delete its training-only modules.

    Returns the number of values in these parameters.
    """
    for name in member.training_only:  # may be dotted
        parent, _, last = name.rpartition(".")
        delattr(member.get_submodule(parent), last)
    count = to_buffers(member)
    if isinstance(member, Ensemble):
        count += member.member_parameters
    return count


def build(
    members: list[str | dict] | None = None,
    kind: Literal["mean", "stack"] = "stack",
    loss: dict[str, float] | str = "mse",
    width: int = 16,
) -> Ensemble:
    """Build an ensemble.

    Args:
        members: two or more trained models: run folders, .safetensors files, installed names, mean(a,b). To load saved
            weights, the members' cards.
        kind: `mean` is the mean of the members' ab; `stack` learns weights for every pixel and a small correction.
        loss: training loss of a stack, on ab in network range (ab / 110).
        width: channels of the mixing network of a stack.
    """
    if not members or len(members) < 2:
        raise UserError(
            f"model.members names {len(members or ())} models: expected two or more, as in [calm64, vivid64]"
        )
    if width < 1:
        raise UserError(f"model.width is {width}: expected 1 or more")
    built = [member_of(member) for member in members]
    cards = [member if isinstance(member, dict) else one.card for member, one in zip(members, built, strict=True)]
    return Ensemble(built, cards, Mixer(len(built), width) if kind == "stack" else None, MixedLoss(loss_weights(loss)))


def member_of(member: str | dict) -> Colorizer:
    """Load a trained member by its name, or build the network of a card, whose weights are loaded later."""
    if isinstance(member, dict):
        return build_colorizer(member["family"], **without_downloads(member["model"]))
    return load_colorizer(member)

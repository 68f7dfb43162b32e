"""Adversarial losses on patch logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.utils.errors import UserError

Logits = Tensor | Iterable[Tensor]  # of one discriminator, or of each scale of several


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Attributes:
        adversarial: `vanilla` is cross-entropy, `lsgan` least squares, `hinge` the hinge loss, `wgan-gp` the critic's
            difference with a gradient penalty.
        l1_weight: of L1 on ab in network range.
        adversarial_weight: of the adversarial term; 0 trains the generator alone.
        label_smoothing: the discriminator is told that what is real is so by 1 minus this (vanilla, lsgan).
        gradient_penalty: weight of the penalty of wgan-gp.
        cycle_weight: of both cycle terms (CycleGAN).
        identity_weight: of both identity terms (CycleGAN).
    """

    adversarial: Literal["vanilla", "lsgan", "hinge", "wgan-gp"] = "vanilla"
    l1_weight: float = 100.0
    adversarial_weight: float = 1.0
    label_smoothing: float = 0.0
    gradient_penalty: float = 10.0
    cycle_weight: float = 10.0
    identity_weight: float = 5.0

    def __post_init__(self) -> None:
        for name in ("l1_weight", "adversarial_weight", "gradient_penalty", "cycle_weight", "identity_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"model.loss.{name} is {getattr(self, name)}: it takes 0 or more")
        smooths = self.adversarial in ("vanilla", "lsgan")
        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and not smooths):
            raise UserError(
                f"model.loss.label_smoothing is {self.label_smoothing}: it takes a number in [0, 0.5), and 0 with"
                f" {self.adversarial}" if not smooths else
                f"model.loss.label_smoothing is {self.label_smoothing}: it takes a number in [0, 0.5)"
            )  # fmt: skip


class Adversarial(NamedTuple):
    """An adversarial game: each function takes float32 logits and gives a scalar."""

    real: Callable[[Tensor, float], Tensor]  # discriminator, on originals, with the target of "real"
    fake: Callable[[Tensor], Tensor]  # discriminator, on fakes
    fool: Callable[[Tensor], Tensor]  # generator, on its fakes
    border: float | None  # logits above it say "real"; a critic has none


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _squares(logits: Tensor, target: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, target))


# A game that is added is an entry, and a word in LossConfig.adversarial.
ADVERSARIAL = {
    # Goodfellow et al. 2014, the generator in the non-saturating form
    "vanilla": Adversarial(_cross_entropy, lambda x: _cross_entropy(x, 0.0), lambda x: _cross_entropy(x, 1.0), 0.0),
    # Mao et al. 2017
    "lsgan": Adversarial(_squares, lambda x: _squares(x, 0.0), lambda x: _squares(x, 1.0), 0.5),
    # Lim and Ye 2017; Miyato et al. 2018
    "hinge": Adversarial(lambda x, _: F.relu(1 - x).mean(), lambda x: F.relu(1 + x).mean(), lambda x: -x.mean(), 0.0),
    # Arjovsky et al. 2017; its penalty is `gradient_penalty`
    "wgan-gp": Adversarial(lambda x, _: -x.mean(), lambda x: x.mean(), lambda x: -x.mean(), None),
}


def of_scales(loss: Callable[[Tensor], Tensor], logits: Logits) -> Tensor:
    """The mean over scales of a loss on patch logits, in fp32."""
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    return torch.stack([loss(x.float()) for x in scales]).mean()


def told_apart(game: Adversarial, real: Logits, fake: Logits, smoothing: float) -> tuple[Tensor, Tensor]:
    """The discriminator's losses on its logits of originals and of fakes."""
    return of_scales(lambda x: game.real(x, 1 - smoothing), real), of_scales(game.fake, fake)


def accuracy(game: Adversarial, real: Logits, fake: Logits) -> tuple[Tensor, Tensor]:
    """Shares of patches of originals and of fakes that the discriminator judges rightly.

    A critic has no border between real and fake: the middle of the two means stands for it.
    """
    with torch.no_grad():
        border = game.border
        if border is None:
            border = (of_scales(torch.mean, real) + of_scales(torch.mean, fake)) / 2
        return (
            of_scales(lambda x: (x > border).float().mean(), real),
            of_scales(lambda x: (x <= border).float().mean(), fake),
        )


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared distance to 1 of the critic's gradient norm, between originals and fakes, in fp32.

    real, fake: [N, C, H, W]. Each picture has its own random place on the line between the two (Gulrajani et al. 2017,
    algorithm 1). A critic of patches counts as the mean of its logits. `critic` is the bare network.
    """
    with torch.autocast(real.device.type, enabled=False):
        place = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(real.float(), fake.float(), place).detach().requires_grad_(True)
        logits = type(critic).forward(critic, between)  # the instance's own forward turns autocast on again
        scales = [logits] if isinstance(logits, Tensor) else logits
        total = sum(x.float().mean(dim=(1, 2, 3)).sum() for x in scales) / len(scales)
        (gradient,) = torch.autograd.grad(total, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

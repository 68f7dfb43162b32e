"""Adversarial losses on patch logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.utils.errors import UserError

Logits = Tensor | Iterable[Tensor]  # of a discriminator, or of each scale of a multi-scale discriminator


@dataclass(frozen=True)
class LossConfig:
    """The losses of both networks.

    Attributes:
        adversarial: `vanilla` is cross-entropy, `lsgan` least squares, `hinge` the hinge loss, `wgan-gp` the
            Wasserstein loss with a gradient penalty.
        l1_weight: weight of the L1 loss on ab in network range.
        pixel: weights of further losses on ab, as in {mse: 50, smooth_l1: 10}. A weight of l1 replaces `l1_weight`.
        adversarial_weight: weight of the adversarial loss; 0 trains the generator alone.
        label_smoothing: the discriminator's target for real pictures is 1 minus this (vanilla, lsgan).
        gradient_penalty: weight of the gradient penalty of wgan-gp.
        cycle_weight: weight of both cycle losses (CycleGAN).
        identity_weight: weight of both identity losses (CycleGAN).
    """

    adversarial: Literal["vanilla", "lsgan", "hinge", "wgan-gp"] = "vanilla"
    l1_weight: float = 100.0
    pixel: dict[str, float] = field(default_factory=dict)
    adversarial_weight: float = 1.0
    label_smoothing: float = 0.0
    gradient_penalty: float = 10.0
    cycle_weight: float = 10.0
    identity_weight: float = 5.0

    def __post_init__(self) -> None:
        for name in ("l1_weight", "adversarial_weight", "gradient_penalty", "cycle_weight", "identity_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"model.loss.{name} is {getattr(self, name)}: expected 0 or more")
        smooths = self.adversarial in ("vanilla", "lsgan")
        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and not smooths):
            raise UserError(
                f"model.loss.label_smoothing is {self.label_smoothing}: expected a number in [0, 0.5), and 0 with"
                f" {self.adversarial}" if not smooths else
                f"model.loss.label_smoothing is {self.label_smoothing}: expected a number in [0, 0.5)"
            )  # fmt: skip


class Adversarial(NamedTuple):
    """An adversarial loss. Its functions map float32 logits of any shape to a scalar."""

    real: Callable[[Tensor, float], Tensor]  # the discriminator's loss on real pictures, given the target of "real"
    fake: Callable[[Tensor], Tensor]  # the discriminator's loss on generated pictures
    generator: Callable[[Tensor], Tensor]  # the generator's loss on generated pictures
    threshold: float | None  # logits above it mean "real"; None for the critic of WGAN, which has no threshold


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _squares(logits: Tensor, target: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, target))


# To add a loss, add an entry here and its name to LossConfig.adversarial.
ADVERSARIAL = {
    # Goodfellow et al. 2014; the generator's loss is the non-saturating one
    "vanilla": Adversarial(_cross_entropy, lambda x: _cross_entropy(x, 0.0), lambda x: _cross_entropy(x, 1.0), 0.0),
    # Mao et al. 2017
    "lsgan": Adversarial(_squares, lambda x: _squares(x, 0.0), lambda x: _squares(x, 1.0), 0.5),
    # Lim and Ye 2017; Miyato et al. 2018
    "hinge": Adversarial(lambda x, _: F.relu(1 - x).mean(), lambda x: F.relu(1 + x).mean(), lambda x: -x.mean(), 0.0),
    # Arjovsky et al. 2017; its penalty is `gradient_penalty`
    "wgan-gp": Adversarial(lambda x, _: -x.mean(), lambda x: x.mean(), lambda x: -x.mean(), None),
}


def mean_over_scales(loss: Callable[[Tensor], Tensor], logits: Logits) -> Tensor:
    """The mean of a loss over the scales of a multi-scale discriminator, computed in float32."""
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    return torch.stack([loss(x.float()) for x in scales]).mean()


def discriminator_losses(loss: Adversarial, real: Logits, fake: Logits, smoothing: float) -> tuple[Tensor, Tensor]:
    """The discriminator's losses on real and on generated pictures, given their logits."""
    return mean_over_scales(lambda x: loss.real(x, 1 - smoothing), real), mean_over_scales(loss.fake, fake)


def accuracy(loss: Adversarial, real: Logits, fake: Logits) -> tuple[Tensor, Tensor]:
    """Fractions of the patches of real and of generated pictures that the discriminator classifies correctly.

    The threshold of a critic is halfway between the two mean logits.
    """
    with torch.no_grad():
        threshold = loss.threshold
        if threshold is None:
            threshold = (mean_over_scales(torch.mean, real) + mean_over_scales(torch.mean, fake)) / 2
        return (
            mean_over_scales(lambda x: (x > threshold).float().mean(), real),
            mean_over_scales(lambda x: (x <= threshold).float().mean(), fake),
        )


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty of WGAN-GP (Gulrajani et al. 2017, algorithm 1), in float32.

    It is the mean of (norm of the critic's gradient - 1)^2 at random points between real and generated pictures. The
    critic's output is the mean of its patch logits. real, fake: [N, C, H, W]. Returns a scalar.
    """
    with torch.autocast(real.device.type, enabled=False):
        position = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(real.float(), fake.float(), position).detach().requires_grad_(True)
        logits = critic(between)
        scales = [logits] if isinstance(logits, Tensor) else logits
        total = sum(x.float().mean(dim=(1, 2, 3)).sum() for x in scales) / len(scales)
        (gradient,) = torch.autograd.grad(total, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

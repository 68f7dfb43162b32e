"""CycleGAN (Zhu et al. 2017), which learns from unpaired grey and color photographs.

The generator `painter` predicts the ab of a grey photograph, whose L stays unchanged. The generator `greyer` predicts
the L of a grey photograph from a color photograph, because grey photographs may have another tone curve. Both take Lab
pictures; a grey photograph has ab = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, TrainingHooks, frozen
from common.training.losses import weighted_sum
from gan.losses import ADVERSARIAL, Logits, LossConfig, accuracy, discriminator_losses, mean_over_scales
from gan.patchgan import DiscriminatorConfig
from gan.stages import ImagePool, StageConfig, StageSchedule


class Cycle(NamedTuple):
    """Outputs of both generators for a batch of grey and of color photographs, in network range."""

    painted: Tensor  # ab [N, 2, H, W] predicted for the grey photographs
    greyed: Tensor  # L [M, 1, H, W] predicted for the color photographs
    grey_again: Tensor  # L of the grey photographs after painter and greyer
    painted_again: Tensor  # ab of the color photographs after greyer and painter
    identity_ab: Tensor | None  # ab that the painter predicts for the color photographs
    identity_L: Tensor | None  # L that the greyer predicts for the grey photographs

    def color_again(self) -> Tensor:
        """The color photographs after greyer and painter, float32 [M, 3, H, W]."""
        return torch.cat([self.greyed, self.painted_again], dim=1).float()


class CycleGenerators(nn.Module):
    """Two generators, `painter` (Lab -> ab) and `greyer` (Lab -> L), which one optimizer trains."""

    def __init__(self, painter: nn.Module, greyer: nn.Module) -> None:
        super().__init__()
        self.painter, self.greyer = painter, greyer

    def forward(self, grey: Tensor, color: Tensor | None = None, identity: bool = False) -> Tensor | Cycle:
        """Predict ab [N, 2, H, W] of grey photographs [N, 1, H, W], or run both cycles.

        color: color photographs [M, 3, H, W]; if they are given, both cycles are run. identity: also compute the
        identity outputs.
        """
        as_lab = torch.cat([grey, grey.new_zeros(grey.shape[0], 2, *grey.shape[2:])], dim=1)
        painted = self.painter(as_lab)
        if color is None:
            return painted
        greyed = self.greyer(color)
        again = torch.cat([greyed, greyed.new_zeros(greyed.shape[0], 2, *greyed.shape[2:])], dim=1)
        return Cycle(
            painted, greyed, self.greyer(torch.cat([grey, painted], dim=1)), self.painter(again),
            self.painter(color) if identity else None, self.greyer(as_lab) if identity else None,
        )  # fmt: skip


class CycleDiscriminators(nn.Module):
    """A discriminator of color pictures and one of grey pictures, which one optimizer trains."""

    def __init__(self, color: nn.Module, grey: nn.Module) -> None:
        super().__init__()
        self.color, self.grey = color, grey

    def forward(self, color: Tensor, grey: Tensor) -> tuple[Logits, Logits]:
        """Pictures [N, 3, H, W] and [M, 1, H, W] in network range -> the logits of both."""
        return self.color(color), self.grey(grey)


class CycleColorizer(Colorizer):
    """Four networks, two optimizers and two image pools (Zhu et al. 2017, equations 1 to 4)."""

    training_only = ("discriminators", "generators.greyer")

    def __init__(
        self,
        generators: CycleGenerators,
        discriminators: CycleDiscriminators,
        loss: LossConfig,
        discriminator_config: DiscriminatorConfig,
    ) -> None:
        super().__init__()
        self.generators, self.multiple = generators, generators.painter.multiple
        self.discriminators = discriminators
        self.loss, self.adversarial = loss, ADVERSARIAL[loss.adversarial]
        self.discriminator_config = discriminator_config

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.generators(L_to_unit(L)))

    def networks(self) -> dict[str, nn.Module]:
        """Both generators as one network, and both discriminators as one."""
        return {"generators": self.generators, "discriminators": self.discriminators}

    @cached_property
    def hooks(self) -> CycleHooks:
        """Hooks with the image pools, the running accuracy, and the diagnosis."""
        return CycleHooks(self)

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield the objective of both generators, then that of both discriminators."""
        color = torch.cat([L_to_unit(batch.L), ab_to_unit(batch.ab)], dim=1)
        grey = L_to_unit(batch.grey)
        cycle = self.generators(grey, color, identity=self.loss.identity_weight > 0)
        painted, greyed = torch.cat([grey, cycle.painted.float()], dim=1), cycle.greyed.float()
        terms = {
            "cycle_color": (self.loss.cycle_weight, F.l1_loss(cycle.color_again(), color)),
            "cycle_grey": (self.loss.cycle_weight, F.l1_loss(cycle.grey_again.float(), grey)),
        }
        if cycle.identity_ab is not None:
            identity_color = F.l1_loss(cycle.identity_ab.float(), color[:, 1:])
            terms["identity_color"] = (self.loss.identity_weight, identity_color)
            terms["identity_grey"] = (self.loss.identity_weight, F.l1_loss(cycle.identity_L.float(), grey))
        with frozen(self.discriminators) as discriminators:
            logits = discriminators(self._with_noise(painted), self._with_noise(greyed))
        for name, of_generator in zip(("color", "grey"), logits, strict=True):
            term = mean_over_scales(self.adversarial.generator, of_generator)
            terms[f"adversarial_{name}"] = (self.loss.adversarial_weight, term)
        yield Objective("generators", *weighted_sum(terms))

        pools = self.hooks.pools
        fakes = pools["color"].query(painted.detach()), pools["grey"].query(greyed.detach())
        for _ in range(self.discriminator_config.updates):
            yield self._discriminator_objective((color, grey), fakes)

    def _discriminator_objective(self, real: tuple[Tensor, Tensor], fakes: tuple[Tensor, Tensor]) -> Objective:
        of_real = self.discriminators(*map(self._with_noise, real))
        of_fake = self.discriminators(*map(self._with_noise, fakes))
        losses, terms = [], {}
        for name, real_logits, fake_logits in zip(("color", "grey"), of_real, of_fake, strict=True):
            smoothing = self.loss.label_smoothing
            on_real, on_fake = discriminator_losses(self.adversarial, real_logits, fake_logits, smoothing)
            terms |= {f"real_{name}": on_real, f"fake_{name}": on_fake}
            losses.append((on_real + on_fake) / 2)
            correct = accuracy(self.adversarial, real_logits, fake_logits)
            terms |= {f"accuracy/real_{name}": correct[0], f"accuracy/fake_{name}": correct[1]}
            if name == "color":  # generated grey pictures are too similar to real ones
                self.hooks.schedule.add_accuracy(*correct)
        return Objective("discriminators", sum(losses), terms)

    def _with_noise(self, x: Tensor) -> Tensor:
        return self.hooks.schedule.add_noise(x, self.discriminator_config.instance_noise) if self.training else x


class CycleHooks(TrainingHooks):
    """Image pools, running accuracy, and diagnosis of CycleGAN."""

    unpaired = True

    def __init__(self, colorizer: CycleColorizer) -> None:
        self.colorizer = colorizer
        config = colorizer.discriminator_config
        self.pools = {"color": ImagePool(config.pool), "grey": ImagePool(config.pool)}
        self.schedule = StageSchedule([StageConfig("both", 1.0)])
        self.repeats = config.updates > 1

    def after_step(self, progress: float) -> None:
        """Update the running accuracy of the discriminator of color pictures."""
        self.schedule.after_step(progress)

    def state_dict(self) -> dict:
        """The running accuracy and the image pools."""
        pools = {name: pool.state_dict() for name, pool in self.pools.items()}
        return {"schedule": self.schedule.state_dict(), "pools": pools}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        self.schedule.load_state_dict(state["schedule"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name], device)

    def warnings(self) -> list[str]:
        """A warning if the discriminator of color pictures has won."""
        return self.schedule.warnings()

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> Diagnosis:
        """Cycle losses and the accuracy of the discriminator of color pictures."""
        colorizer = self.colorizer
        color = torch.cat([L_to_unit(batch.L), ab_to_unit(batch.ab)], dim=1)
        grey = color[:, :1]
        cycle = colorizer.generators(grey, color)
        painted = torch.cat([grey, cycle.painted.float()], dim=1)
        logits = [colorizer.discriminators(picture, grey)[0] for picture in (color, painted)]
        on_real, on_fake = accuracy(colorizer.adversarial, *logits)
        scalars = {
            "cycle_color": float(F.l1_loss(cycle.color_again(), color)),
            "cycle_grey": float(F.l1_loss(cycle.grey_again.float(), grey)),
            "accuracy/real": float(on_real), "accuracy/fake": float(on_fake),
            "accuracy/running": float(self.schedule.accuracy),
        }  # fmt: skip
        return Diagnosis(scalars, {})

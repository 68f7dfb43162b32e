"""pix2pix: a generator trained with an adversarial loss and with losses on ab (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, TrainingHooks, frozen, unwrap
from common.training.losses import MixedLoss, weighted_sum
from gan.losses import ADVERSARIAL, LossConfig, accuracy, discriminator_losses, gradient_penalty, mean_over_scales
from gan.patchgan import DiscriminatorConfig
from gan.stages import ImagePool, StageConfig, StageSchedule


class AdversarialColorizer(Colorizer):
    """A generator that predicts ab from L, and a discriminator (Isola et al. 2017, equations 1 to 4).

    Args:
        generator: maps L [N, 1, H, W] to ab [N, 2, H, W], both in network range.
        discriminator: maps [N, 3 or 2, H, W] to patch logits. None if no stage trains it.
        pixel_loss: losses between generated and true ab.
        loss: the adversarial loss, and the weights of all losses.
        discriminator_config: options of the discriminator's training.
        stages: which networks learn in which part of the run.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        pixel_loss: MixedLoss,
        loss: LossConfig,
        discriminator_config: DiscriminatorConfig,
        stages: list[StageConfig],
    ) -> None:
        super().__init__()
        self.generator, self.multiple = generator, generator.multiple
        if discriminator is not None:
            self.discriminator, self.training_only = discriminator, ("discriminator",)
        self.pixel_loss, self.loss, self.stages = pixel_loss, loss, stages
        self.discriminator_config, self.adversarial = discriminator_config, ADVERSARIAL[loss.adversarial]

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.generator(L_to_unit(L)))

    def networks(self) -> dict[str, nn.Module]:
        """The generator and, if there is one, the discriminator."""
        names = ("generator", "discriminator")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    @cached_property
    def hooks(self) -> AdversarialHooks:
        """Hooks with the stages, the image pool, and the diagnosis."""
        return AdversarialHooks(self)

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield the generator's objective, then the discriminator's, or the one that the stage trains.

        The generator runs once for both.
        """
        stage = self.hooks.schedule.stage
        self._set_frozen(stage)
        L, real_ab = L_to_unit(batch.L), ab_to_unit(batch.ab)
        with torch.set_grad_enabled(stage.train != "discriminator"):
            fake_ab = ab_to_unit(self(batch.L))
        if stage.train != "discriminator":
            terms = self.generator_terms(batch, fake_ab, adversarial=stage.train == "both")
            yield Objective("generator", *weighted_sum(terms))
        if stage.train != "generator":
            yield from self._discriminator_objectives(L, real_ab, fake_ab.detach())

    def generator_terms(self, batch: Batch, fake_ab: Tensor, adversarial: bool) -> dict[str, tuple[float, Tensor]]:
        """Terms of the generator's loss: name -> (weight, scalar). fake_ab: [N, 2, H, W] in network range."""
        terms = self.pixel_loss.terms(batch.L, ab_from_unit(fake_ab), batch.ab)
        if adversarial:
            with frozen(self.discriminator) as discriminator:
                logits = discriminator(self.discriminator_input(L_to_unit(batch.L), fake_ab))
            terms["adversarial"] = (self.loss.adversarial_weight, mean_over_scales(self.adversarial.generator, logits))
        return terms

    def _discriminator_objectives(self, L: Tensor, real_ab: Tensor, fake_ab: Tensor) -> Iterator[Objective]:
        pooled = self.hooks.pool.query(torch.cat([L, fake_ab], dim=1))
        for _ in range(self.discriminator_config.updates):
            real_input = self.discriminator_input(L, real_ab)
            fake_input = self.discriminator_input(pooled[:, :1], pooled[:, 1:])
            real_logits, fake_logits = self.discriminator(real_input), self.discriminator(fake_input)
            real, fake = discriminator_losses(self.adversarial, real_logits, fake_logits, self.loss.label_smoothing)
            terms = {"real": real, "fake": fake}
            if self.loss.adversarial == "wgan-gp":
                terms["penalty"] = gradient_penalty(unwrap(self.discriminator), real_input, fake_input)
                loss = real + fake + self.loss.gradient_penalty * terms["penalty"]
            else:  # halved to slow down the discriminator (pix2pix, section 3.3)
                loss = (real + fake) / 2
            on_real, on_fake = accuracy(self.adversarial, real_logits, fake_logits)
            self.hooks.schedule.add_accuracy(on_real, on_fake)
            yield Objective("discriminator", loss, terms | {"accuracy/real": on_real, "accuracy/fake": on_fake})

    def discriminator_input(self, L: Tensor, ab: Tensor) -> Tensor:
        """L [N, 1, H, W] and ab [N, 2, H, W] in network range -> [N, 3 or 2, H, W], with instance noise in training."""
        x = torch.cat([L, ab], dim=1) if self.discriminator_config.conditional else ab
        return self.hooks.schedule.add_noise(x, self.discriminator_config.instance_noise) if self.training else x

    def _set_frozen(self, stage: StageConfig) -> None:
        """Freeze what the stage does not train. Eval mode keeps its batch-norm statistics from changing."""
        if len(self.stages) > 1 or stage.freeze_encoder:
            generator = unwrap(self.generator)
            generator.train(stage.train != "discriminator")
            generator.encoder.requires_grad_(not stage.freeze_encoder)
            if stage.freeze_encoder:
                generator.encoder.eval()


class AdversarialHooks(TrainingHooks):
    """Stages, image pool, and diagnosis of adversarial training."""

    def __init__(self, colorizer: AdversarialColorizer) -> None:
        self.colorizer = colorizer
        config = colorizer.discriminator_config
        self.schedule, self.pool = StageSchedule(colorizer.stages), ImagePool(config.pool)
        self.repeats = "discriminator" in colorizer.networks() and config.updates > 1
        self.partly_trained = ("generator",) if any(stage.freeze_encoder for stage in colorizer.stages) else ()

    def load_networks(self, device: torch.device) -> None:
        """Load the network of the perceptual loss, if it is used."""
        self.colorizer.pixel_loss.load(device)

    def after_step(self, progress: float) -> None:
        """Start the next stage if this one has ended."""
        self.schedule.after_step(progress)

    def state_dict(self) -> dict:
        """The stage, the running accuracy, and the image pool."""
        return {"schedule": self.schedule.state_dict(), "pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        self.schedule.load_state_dict(state["schedule"])
        self.pool.load_state_dict(state["pool"], device)

    def warnings(self) -> list[str]:
        """A warning if the discriminator has won. There is none for a critic, whose logits have no fixed threshold."""
        return self.schedule.warnings() if self.colorizer.adversarial.threshold is not None else []

    def diagnose(self, batch: Batch) -> Diagnosis:
        """The share of each term in the gradient at the generator's output, and the accuracy of the discriminator."""
        colorizer, schedule = self.colorizer, self.schedule
        L, fake_ab = L_to_unit(batch.L), ab_to_unit(colorizer(batch.L)).detach().requires_grad_(True)
        adversarial = schedule.stage.train != "generator"
        with torch.enable_grad():
            terms = colorizer.generator_terms(batch, fake_ab, adversarial)
            norms = {name: torch.autograd.grad(weight * term, fake_ab, retain_graph=True)[0].norm()
                     for name, (weight, term) in terms.items() if weight}  # fmt: skip
        total = sum(norms.values())
        scalars = {f"gradient_share/{name}": float(norm / total) for name, norm in norms.items()}
        if adversarial:
            inputs = (colorizer.discriminator_input(L, ab) for ab in (ab_to_unit(batch.ab), fake_ab.detach()))
            on_real, on_fake = accuracy(colorizer.adversarial, *(colorizer.discriminator(x) for x in inputs))
            scalars |= {"accuracy/real": float(on_real), "accuracy/fake": float(on_fake)}
            scalars["accuracy/running"] = float(schedule.accuracy)
        if len(colorizer.stages) > 1:
            scalars["stage"] = float(schedule.index)
        return Diagnosis(scalars, {})

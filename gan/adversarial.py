"""pix2pix: a generator that a discriminator judges, held near the truth by L1 and a perceptual loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, frozen, unwrap
from gan.losses import ADVERSARIAL, LossConfig, accuracy, gradient_penalty, of_scales, told_apart
from gan.patchgan import DiscriminatorConfig
from gan.perceptual import PerceptualConfig, PerceptualLoss
from gan.recipe import FakePool, Recipe, StageConfig


class AdversarialColorizer(Colorizer):
    """A generator L -> ab and a discriminator of (L, ab) (Isola et al. 2017, equations 1 to 4).

    discriminator: None where the generator learns alone.
    """

    training_only = ("discriminator",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        loss: LossConfig,
        perceptual: PerceptualConfig,
        judging: DiscriminatorConfig,
        stages: list[StageConfig],
    ) -> None:
        super().__init__()
        self.generator, self.multiple = generator, generator.multiple
        if discriminator is None:
            self.training_only = ()
        else:
            self.discriminator = discriminator
        self.loss, self.judging, self.game = loss, judging, ADVERSARIAL[loss.adversarial]
        self.perceptual = perceptual
        self._perceptual: PerceptualLoss | None = None
        self.recipe, self.pool = Recipe(stages), FakePool(judging.pool)
        self.repeats = discriminator is not None and judging.updates > 1
        self.partly_trained = ("generator",) if any(stage.freeze_encoder for stage in stages) else ()

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.generator(L_to_unit(L)))

    def networks(self) -> dict[str, nn.Module]:
        """Two, or the generator alone."""
        names = ("generator", "discriminator")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def begin_training(self, device: torch.device, precision: str) -> None:
        """Fetch the perceptual network."""
        if self.perceptual.weight:
            self._perceptual = PerceptualLoss(self.perceptual, device, precision)

    def load_training_state(self, state: dict, device: torch.device) -> None:
        """Go on in the stage that a saved run was in."""
        self.recipe.load(state["recipe"])
        self.pool.load(state["pool"], device)

    def warnings(self) -> list[str]:
        """Whether the discriminator has won."""
        return self.recipe.warnings() if self.game.border is not None else []  # a critic is to tell them apart

    def training_state(self) -> dict:
        """The stage and the pool of past fakes."""
        return {"recipe": self.recipe.state(), "pool": self.pool.state()}

    def after_step(self, share: float) -> None:
        """Stages turn here."""
        self.recipe.after_step(share)

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """The generator's objective, then the discriminator's, from one generator pass; in a stage, one of them."""
        stage = self.recipe.stage
        self._rest(stage)
        L, real_ab = L_to_unit(batch.L), ab_to_unit(batch.ab)
        with torch.set_grad_enabled(stage.train != "discriminator"):
            fake_ab = ab_to_unit(self(batch.L))
        if stage.train != "discriminator":
            parts = self._weighed(batch, fake_ab, adversarial=stage.train == "both")
            loss = sum(weight * term for weight, term in parts.values())
            yield Objective("generator", loss, {name: term for name, (_, term) in parts.items()})
        if stage.train != "generator":
            yield from self._judge(L, real_ab, fake_ab.detach())

    def _weighed(self, batch: Batch, fake_ab: Tensor, adversarial: bool) -> dict[str, tuple[float, Tensor]]:
        """The terms of the generator: name -> (weight, term)."""
        parts = {"l1": (self.loss.l1_weight, F.l1_loss(fake_ab, ab_to_unit(batch.ab)))}
        if self.perceptual.weight:
            if self._perceptual is None:
                self._perceptual = PerceptualLoss(self.perceptual, fake_ab.device)
            term = self._perceptual(batch.L, ab_from_unit(fake_ab), batch.ab)
            parts[self.perceptual.term] = (self.perceptual.weight, term)
        if adversarial:
            with frozen(self.discriminator) as judge:
                logits = judge(self._shown(L_to_unit(batch.L), fake_ab))
            parts["adversarial"] = (self.loss.adversarial_weight, of_scales(self.game.fool, logits))
        return parts

    def _judge(self, L: Tensor, real_ab: Tensor, fake_ab: Tensor) -> Iterator[Objective]:
        past = self.pool.mix(torch.cat([L, fake_ab], dim=1))
        for _ in range(self.judging.updates):
            real_seen, fake_seen = self._shown(L, real_ab), self._shown(past[:, :1], past[:, 1:])
            real_logits, fake_logits = self.discriminator(real_seen), self.discriminator(fake_seen)
            real, fake = told_apart(self.game, real_logits, fake_logits, self.loss.label_smoothing)
            terms = {"real": real, "fake": fake}
            if self.loss.adversarial == "wgan-gp":
                terms["penalty"] = gradient_penalty(unwrap(self.discriminator), real_seen, fake_seen)
                loss = real + fake + self.loss.gradient_penalty * terms["penalty"]
            else:  # halved: the discriminator learns more slowly than the generator (pix2pix, 3.3)
                loss = (real + fake) / 2
            right = accuracy(self.game, real_logits, fake_logits)
            self.recipe.judged(*right)
            yield Objective(
                "discriminator", loss, terms | dict(zip(("accuracy/real", "accuracy/fake"), right, strict=True))
            )

    def _shown(self, L: Tensor, ab: Tensor) -> Tensor:
        """What the discriminator sees of a picture in network range."""
        seen = torch.cat([L, ab], dim=1) if self.judging.conditional else ab
        return self.recipe.noisy(seen, self.judging.instance_noise) if self.training else seen

    def _rest(self, stage: StageConfig) -> None:
        """What does not learn in a stage keeps its statistics, too."""
        if len(self.recipe.stages) > 1 or stage.freeze_encoder:
            generator = unwrap(self.generator)
            generator.train(stage.train != "discriminator")
            generator.encoder.requires_grad_(not stage.freeze_encoder)
            if stage.freeze_encoder:
                generator.encoder.eval()

    def diagnose(self, batch: Batch) -> Diagnosis:
        """How strongly each term of the generator pulls at what it painted, and whether its adversary has won."""
        L, fake_ab = L_to_unit(batch.L), ab_to_unit(self(batch.L)).detach().requires_grad_(True)
        judged = self.recipe.stage.train != "generator"
        with torch.enable_grad():
            parts = self._weighed(batch, fake_ab, adversarial=judged)
            pulls = {name: torch.autograd.grad(w * term, fake_ab, retain_graph=True)[0].norm()
                     for name, (w, term) in parts.items() if w}  # fmt: skip
        total = sum(pulls.values())
        scalars = {f"gradient_share/{name}": float(pull / total) for name, pull in pulls.items()}
        if judged:
            judge = unwrap(self.discriminator)
            logits = [judge(self._shown(L, ab)) for ab in (ab_to_unit(batch.ab), fake_ab.detach())]
            right = accuracy(self.game, *logits)
            scalars |= {"accuracy/real": float(right[0]), "accuracy/fake": float(right[1])}
            scalars["accuracy/running"] = float(self.recipe.accuracy)
        if len(self.recipe.stages) > 1:
            scalars["stage"] = float(self.recipe.index)
        return Diagnosis(scalars, {})

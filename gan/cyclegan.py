"""CycleGAN (Zhu et al. 2017): grey photographs and color photographs, none of which belong together.

In Lab a grey photograph is one with ab = 0. The painter gives ab to a picture and keeps its L, so the result has
exactly the light of the photograph; the greyer gives L to a picture, and learns how the grey source's light differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, frozen, unwrap
from gan.losses import ADVERSARIAL, LossConfig, accuracy, of_scales, told_apart
from gan.patchgan import DiscriminatorConfig
from gan.recipe import FakePool, Recipe, StageConfig


class Cycle(NamedTuple):
    """What both generators made of a batch, in network range."""

    painted: Tensor  # ab [N, 2, H, W] of grey photographs
    greyed: Tensor  # L [N, 1, H, W] of color photographs
    grey_again: Tensor  # L of painted grey photographs, greyed
    painted_again: Tensor  # ab of greyed color photographs, painted
    ab_kept: Tensor | None  # ab of color photographs, painted as if they were grey
    L_kept: Tensor | None  # L of grey photographs, greyed


class CycleGenerators(nn.Module):
    """A painter (Lab -> ab) and a greyer (Lab -> L), which one optimizer trains."""

    def __init__(self, painter: nn.Module, greyer: nn.Module) -> None:
        super().__init__()
        self.painter, self.greyer = painter, greyer

    def forward(self, grey: Tensor, color: Tensor | None = None, identity: bool = False) -> Tensor | Cycle:
        """Lightness [N, 1, H, W] of grey photographs -> their ab; with color photographs [M, 3, H, W] both cycles."""
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
    """A judge of color pictures and a judge of grey ones, which one optimizer trains."""

    def __init__(self, color: nn.Module, grey: nn.Module) -> None:
        super().__init__()
        self.color, self.grey = color, grey

    def forward(self, color: Tensor, grey: Tensor) -> tuple[object, object]:
        """Pictures [N, 3, H, W] and [M, 1, H, W] -> the logits of both."""
        return self.color(color), self.grey(grey)


class CycleColorizer(Colorizer):
    """Four networks, two optimizers, two pools of past fakes (Zhu et al. 2017, equations 1 to 4)."""

    unpaired = True
    training_only = ("discriminators", "generators.greyer")

    def __init__(
        self, generators: CycleGenerators, discriminators: CycleDiscriminators, loss: LossConfig,
        judging: DiscriminatorConfig,
    ) -> None:  # fmt: skip
        super().__init__()
        self.generators, self.multiple = generators, generators.painter.multiple
        self.discriminators = discriminators
        self.loss, self.judging, self.game = loss, judging, ADVERSARIAL[loss.adversarial]
        self.pools = {"color": FakePool(judging.pool), "grey": FakePool(judging.pool)}
        self.recipe = Recipe([StageConfig("both", 1.0)])
        self.repeats = judging.updates > 1

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.generators(L_to_unit(L)))

    def networks(self) -> dict[str, nn.Module]:
        """Two pairs."""
        return {"generators": self.generators, "discriminators": self.discriminators}

    def load_training_state(self, state: dict, device: torch.device) -> None:
        """Go on with the pools of a saved run."""
        self.recipe.load(state["recipe"])
        for name, pool in self.pools.items():
            pool.load(state["pools"][name], device)

    def warnings(self) -> list[str]:
        """Whether the judge of color has won."""
        return self.recipe.warnings()

    def training_state(self) -> dict:
        """The pools of past fakes, and how well the discriminators do."""
        return {"recipe": self.recipe.state(), "pools": {name: pool.state() for name, pool in self.pools.items()}}

    def after_step(self, share: float) -> None:
        """Take note of the accuracy."""
        self.recipe.after_step(share)

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """The objective of both generators, then that of both discriminators, from one pass."""
        color = torch.cat([L_to_unit(batch.L), ab_to_unit(batch.ab)], dim=1)
        grey = L_to_unit(batch.grey)
        made = self.generators(grey, color, identity=self.loss.identity_weight > 0)
        painted = torch.cat([grey, made.painted.float()], dim=1)
        again = torch.cat([made.greyed, made.painted_again], dim=1).float()
        terms = {
            "cycle_color": (self.loss.cycle_weight, F.l1_loss(again, color)),
            "cycle_grey": (self.loss.cycle_weight, F.l1_loss(made.grey_again.float(), grey)),
        }
        if made.ab_kept is not None:
            terms["identity_color"] = (self.loss.identity_weight, F.l1_loss(made.ab_kept.float(), color[:, 1:]))
            terms["identity_grey"] = (self.loss.identity_weight, F.l1_loss(made.L_kept.float(), grey))
        with frozen(self.discriminators) as judges:
            logits = judges(self._shown(painted), self._shown(made.greyed.float()))
        for name, said in zip(("color", "grey"), logits, strict=True):
            terms[f"adversarial_{name}"] = (self.loss.adversarial_weight, of_scales(self.game.fool, said))
        loss = sum(weight * term for weight, term in terms.values())
        yield Objective("generators", loss, {name: term for name, (_, term) in terms.items()})

        fakes = self.pools["color"].mix(painted.detach()), self.pools["grey"].mix(made.greyed.detach().float())
        for _ in range(self.judging.updates):
            yield self._judge((color, grey), fakes)

    def _judge(self, originals: tuple[Tensor, Tensor], fakes: tuple[Tensor, Tensor]) -> Objective:
        said_real = self.discriminators(*map(self._shown, originals))
        said_fake = self.discriminators(*map(self._shown, fakes))
        losses, terms = [], {}
        for name, real_logits, fake_logits in zip(("color", "grey"), said_real, said_fake, strict=True):
            real, fake = told_apart(self.game, real_logits, fake_logits, self.loss.label_smoothing)
            terms |= {f"real_{name}": real, f"fake_{name}": fake}
            losses.append((real + fake) / 2)
            right = accuracy(self.game, real_logits, fake_logits)
            terms |= {f"accuracy/real_{name}": right[0], f"accuracy/fake_{name}": right[1]}
            if name == "color":  # grey pictures are easily made
                self.recipe.judged(*right)
        return Objective("discriminators", sum(losses), terms)

    def _shown(self, picture: Tensor) -> Tensor:
        return self.recipe.noisy(picture, self.judging.instance_noise) if self.training else picture

    def diagnose(self, batch: Batch) -> Diagnosis:
        """How well the cycles close and how the judge of color does, on validation photographs."""
        color = torch.cat([L_to_unit(batch.L), ab_to_unit(batch.ab)], dim=1)
        made = unwrap(self.generators)(color[:, :1], color)
        again = torch.cat([made.greyed, made.painted_again], dim=1).float()
        judges = unwrap(self.discriminators)
        said = [judges(picture, color[:, :1])[0] for picture in (color, torch.cat([color[:, :1], made.painted], dim=1))]
        right = accuracy(self.game, *said)
        scalars = {
            "cycle_color": float(F.l1_loss(again, color)),
            "cycle_grey": float(F.l1_loss(made.grey_again.float(), color[:, :1])),
            "accuracy/real": float(right[0]), "accuracy/fake": float(right[1]),
            "accuracy/running": float(self.recipe.accuracy),
        }  # fmt: skip
        return Diagnosis(scalars, {})

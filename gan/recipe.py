"""Training in stages: the generator alone, the discriminator until it wins, then both; and a pool of past fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.utils.errors import UserError

WON, WON_FOR = 0.95, 500  # a running accuracy above it, for so many steps: the generator learns nothing any more
_MEMORY = 0.98  # of the running accuracy, about 50 steps


@dataclass(frozen=True)
class StageConfig:
    """One stage of a recipe.

    Attributes:
        train: what learns in it. The generator alone learns without its adversary: L1 and perceptual.
        share: of the run.
        freeze_encoder: the encoder of the generator stays as it is.
        until_accuracy: a stage of the discriminator ends before its share, once it judges so many patches rightly.
    """

    train: Literal["generator", "discriminator", "both"]
    share: float
    freeze_encoder: bool = False
    until_accuracy: float | None = None


def check_stages(stages: list[StageConfig]) -> None:
    """Raise UserError for a list of stages that makes no sense."""

    def wrong(what: str, mend: str) -> UserError:
        return UserError(f"model.stages {what}: {mend}")

    names = [stage.train for stage in stages]
    if not stages:
        raise wrong("is empty", "give one stage or more, or leave it out")
    for stage in stages:
        if not 0 < stage.share <= 1:
            raise wrong(f"has the share {stage.share}", "it takes shares in (0, 1]")
        if stage.until_accuracy is not None and (stage.train != "discriminator" or not 0.5 < stage.until_accuracy < 1):
            raise wrong(
                f"has until_accuracy {stage.until_accuracy} in a stage of the {stage.train}",
                "a stage of the discriminator takes it, a number in (0.5, 1)",
            )
        if stage.freeze_encoder and stage.train == "discriminator":
            raise wrong("freezes the encoder in a stage of the discriminator", "the generator rests there anyway")
    if abs(sum(stage.share for stage in stages) - 1) > 1e-6:
        raise wrong(f"has shares of sum {sum(s.share for s in stages):g}", "they are shares of the run, of sum 1")
    if names[-1] == "discriminator":
        raise wrong("ends with the discriminator", "only a generator that meets it again has use for it")
    if "discriminator" in names and "both" not in names[names.index("discriminator") :]:
        raise wrong("never lets the generator meet the discriminator", "add a stage that trains both")


class Recipe:
    """Which stage a run is in, and how well its discriminator does.

    A plain object: the run saves its `state()` and hands it back.
    """

    def __init__(self, stages: list[StageConfig]) -> None:
        self.stages, self.index, self.share = stages, 0, 0.0
        self.accuracy, self.won = torch.tensor(0.5), torch.tensor(0)
        self._seen: list[Tensor] = []

    @property
    def stage(self) -> StageConfig:
        """The stage that the next step belongs to."""
        return self.stages[self.index]

    @property
    def _end(self) -> float:
        return sum(stage.share for stage in self.stages[: self.index + 1])

    def noisy(self, picture: Tensor, deviation: float) -> Tensor:
        """A picture under instance noise of that deviation at the beginning of the run, which falls to 0 at its end."""
        deviation *= 1 - self.share
        return picture + deviation * torch.randn_like(picture) if deviation else picture

    def judged(self, real: Tensor, fake: Tensor) -> None:
        """Take in the accuracy of the discriminator on a batch."""
        self._seen.append((real + fake) / 2)

    def after_step(self, share: float) -> None:
        """Turn to the next stage where this one's share is over, or its discriminator has won."""
        self.share = share
        if self._seen:
            now = mean_over_processes(torch.stack(self._seen).mean().detach().float())
            self.accuracy = torch.lerp(self.accuracy.to(now.device), now, 1 - _MEMORY)
            self.won = torch.where(self.accuracy > WON, self.won.to(now.device) + 1, 0)
            self._seen = []
        before, until = self.index, self.stage.until_accuracy
        if until and self.accuracy.item() >= until and self.index + 1 < len(self.stages):
            self.index += 1
        while self.index + 1 < len(self.stages) and share > self._end - 1e-9:
            self.index += 1
        if self.index != before:
            self.won = torch.zeros_like(self.won)

    def warnings(self) -> list[str]:
        """What the person who waits should know."""
        if self.won.item() < WON_FOR:
            return []
        return [
            f"warning: the discriminator has won: for {int(self.won)} steps it has judged over {WON:.0%} of the patches"
            " rightly, so the generator learns little from it; see The discriminator wins in README.md"
        ]

    def state(self) -> dict:
        """Plain values, for the run's state."""
        return {"index": self.index, "share": self.share, "accuracy": float(self.accuracy), "won": int(self.won)}

    def load(self, state: dict) -> None:
        """The reverse of `state`."""
        self.index, self.share = state["index"], state["share"]
        self.accuracy, self.won = torch.tensor(state["accuracy"]), torch.tensor(state["won"])


class FakePool:
    """The last fakes, of which a discriminator sees some again (Shrivastava et al. 2017; CycleGAN, section 4).

    Each new picture stays itself with probability 1/2, else it changes places with a random one of the pool, once that
    is full.
    """

    def __init__(self, size: int) -> None:
        self.size, self.pictures = size, None

    def mix(self, fakes: Tensor) -> Tensor:
        """[N, C, H, W] -> as many, new and past ones. Without a size: the same."""
        if not self.size:
            return fakes
        fakes = fakes.detach()
        kept = 0 if self.pictures is None else len(self.pictures)
        new = fakes[: max(0, self.size - kept)]
        if len(new):
            self.pictures = new.clone() if self.pictures is None else torch.cat([self.pictures, new])
        older = fakes[len(new) :]
        if not len(older):
            return fakes
        swap = torch.rand(len(older)) < 0.5
        places = torch.randperm(self.size)[: len(older)]  # a small pool serves the first few
        swap[len(places) :] = False
        out = older.clone()
        chosen, places = swap.nonzero().flatten(), places[swap[: len(places)]]
        out[chosen] = self.pictures[places]
        self.pictures[places] = older[chosen]
        return torch.cat([new, out])

    def state(self) -> Tensor | None:
        """For the run's state."""
        return None if self.pictures is None else self.pictures.cpu()

    def load(self, pictures: Tensor | None, device: torch.device) -> None:
        """The reverse of `state`."""
        self.pictures = None if pictures is None else pictures.to(device)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes of a run: what all decide upon must be equal in all."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value

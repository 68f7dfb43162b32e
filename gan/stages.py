"""Stages of adversarial training (generator only, discriminator only, or both), and the image pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.utils.errors import UserError

WON_ACCURACY, WON_STEPS = 0.95, 500  # the discriminator has won if its accuracy is higher for this many steps
_MOMENTUM = 0.98  # of the running accuracy, which averages about 50 steps


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        train: the networks that are trained. `generator` is trained without the adversarial loss.
        share: fraction of the run's steps.
        freeze_encoder: do not train the encoder of the generator.
        until_accuracy: end a stage that trains the discriminator when its running accuracy reaches this value.
    """

    train: Literal["generator", "discriminator", "both"]
    share: float
    freeze_encoder: bool = False
    until_accuracy: float | None = None


def check_stages(stages: list[StageConfig]) -> None:
    """Raise UserError for an invalid list of stages."""

    def wrong(what: str, mend: str) -> UserError:
        return UserError(f"model.stages {what}: {mend}")

    names = [stage.train for stage in stages]
    if not stages:
        raise wrong("is empty", "give one stage or more, or leave it out")
    for stage in stages:
        if not 0 < stage.share <= 1:
            raise wrong(f"has the share {stage.share}", "expected a fraction in (0, 1]")
        if stage.until_accuracy is not None and (stage.train != "discriminator" or not 0.5 < stage.until_accuracy < 1):
            raise wrong(
                f"has until_accuracy {stage.until_accuracy} in a stage of the {stage.train}",
                "a stage of the discriminator takes it, a number in (0.5, 1)",
            )
        if stage.freeze_encoder and stage.train == "discriminator":
            raise wrong("freezes the encoder in a stage of the discriminator", "the generator is not trained there")
    if abs(sum(stage.share for stage in stages) - 1) > 1e-6:
        raise wrong(f"has shares of sum {sum(s.share for s in stages):g}", "they are shares of the run, of sum 1")
    if names[-1] == "discriminator":
        raise wrong("ends with the discriminator", "the last stage must train the generator")
    if "discriminator" in names and "both" not in names[names.index("discriminator") :]:
        raise wrong("trains the discriminator, but no later stage trains both", "add one")


class StageSchedule:
    """The current stage of a run, and the running accuracy of its discriminator."""

    def __init__(self, stages: list[StageConfig]) -> None:
        self.stages, self.index, self.progress = stages, 0, 0.0
        self.accuracy, self.steps_won = torch.tensor(0.5), torch.tensor(0)
        self._new: list[Tensor] = []

    @property
    def stage(self) -> StageConfig:
        """The stage of the next step."""
        return self.stages[self.index]

    @property
    def _end(self) -> float:
        return sum(stage.share for stage in self.stages[: self.index + 1])

    def add_noise(self, x: Tensor, deviation: float) -> Tensor:
        """Add Gaussian instance noise to x. Its standard deviation falls linearly to 0 over the run."""
        deviation *= 1 - self.progress
        return x + deviation * torch.randn_like(x) if deviation else x

    def add_accuracy(self, on_real: Tensor, on_fake: Tensor) -> None:
        """Add the discriminator's accuracies on a batch, two scalars."""
        self._new.append((on_real + on_fake) / 2)

    def after_step(self, progress: float) -> None:
        """Update the running accuracy, and start the next stage if this one has ended.

        progress: fraction of the run that is done.
        """
        self.progress = progress
        if self._new:
            new = mean_over_processes(torch.stack(self._new).mean().detach().float())
            self.accuracy = torch.lerp(self.accuracy.to(new.device), new, 1 - _MOMENTUM)
            self.steps_won = torch.where(self.accuracy > WON_ACCURACY, self.steps_won.to(new.device) + 1, 0)
            self._new = []
        before, until = self.index, self.stage.until_accuracy
        if until and self.accuracy.item() >= until and self.index + 1 < len(self.stages):
            self.index += 1
        while self.index + 1 < len(self.stages) and progress > self._end - 1e-9:
            self.index += 1
        if self.index != before:
            self.steps_won = torch.zeros_like(self.steps_won)

    def warnings(self) -> list[str]:
        """A warning if the discriminator has won."""
        if self.steps_won.item() < WON_STEPS:
            return []
        return [
            f"warning: the discriminator has won: for {int(self.steps_won)} steps its accuracy has been above"
            f" {WON_ACCURACY:.0%}, so the generator learns little from it; see"
            " 'Discriminator overpowers the generator' in README.md"
        ]

    def state_dict(self) -> dict:
        """Plain values that `load_state_dict` restores."""
        return {"index": self.index, "progress": self.progress, "accuracy": float(self.accuracy),
                "steps_won": int(self.steps_won)}  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.index, self.progress = state["index"], state["progress"]
        self.accuracy, self.steps_won = torch.tensor(state["accuracy"]), torch.tensor(state["steps_won"])


class ImagePool:
    """A history of generated pictures for the discriminator (Shrivastava et al. 2017; CycleGAN, section 4).

    Once the pool is full, each new picture is swapped with a random picture of the pool with probability 1/2.
    """

    def __init__(self, size: int) -> None:
        self.size, self.pictures = size, None

    def query(self, fakes: Tensor) -> Tensor:
        """Add new pictures [N, C, H, W]. Returns as many, some of which are from the pool. With size 0, all are new."""
        if not self.size:
            return fakes
        fakes = fakes.detach()
        count = 0 if self.pictures is None else len(self.pictures)
        new = fakes[: max(0, self.size - count)]
        if len(new):
            self.pictures = new.clone() if self.pictures is None else torch.cat([self.pictures, new])
        rest = fakes[len(new) :]
        if not len(rest):
            return fakes
        swap = torch.rand(len(rest)) < 0.5
        places = torch.randperm(self.size)[: len(rest)]  # fewer than `rest` if the pool is small
        swap[len(places) :] = False
        out = rest.clone()
        chosen, places = swap.nonzero().flatten(), places[swap[: len(places)]]
        out[chosen] = self.pictures[places]
        self.pictures[places] = rest[chosen]
        return torch.cat([new, out])

    def state_dict(self) -> Tensor | None:
        """The pictures, on the CPU."""
        return None if self.pictures is None else self.pictures.cpu()

    def load_state_dict(self, pictures: Tensor | None, device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        self.pictures = None if pictures is None else pictures.to(device)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes, so that they change stages at the same step."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value

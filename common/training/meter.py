"""Losses between two lines of the log, and the watch for the first that is not finite."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from common.colorizer import Objective
from common.utils.errors import UserError


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite; the last saved state is from before."""


class Meter:
    """Collects losses between two lines of the log, and looks for the first that is not finite.

    `every`: how many steps are looked at together; on a GPU each look waits for the device.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.unchecked: list[tuple[int, str, str, Tensor]] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images, self.since = 0, time.perf_counter()

    def add(self, step: int, objective: Objective) -> None:
        """Take in one objective: its loss and its terms."""
        for name, value in {f"loss/{objective.optimizer}": objective.loss, **objective.terms}.items():
            value = value.detach().float()
            self.unchecked.append((step, objective.optimizer, name, value))
            self._sum(name, value)

    def add_norm(self, step: int, optimizer: str, norm: Tensor) -> None:
        """Take in the norm of a network's gradient, which the losses of all processes have gone into."""
        norm = norm.detach().float()
        self.unchecked.append((step, optimizer, "gradient", norm))
        self._sum(f"grad_norm/{optimizer}", norm)

    def _sum(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def check(self, step: int, optimizers: dict[str, torch.optim.Optimizer], now: bool = False) -> None:
        """Raise NonFiniteLoss for the first loss or gradient that is not finite."""
        if not self.unchecked or not (now or (step + 1) % self.every == 0):
            return
        finite = torch.stack([value for *_, value in self.unchecked]).isfinite().tolist()
        bad = [entry for entry, good in zip(self.unchecked, finite, strict=True) if not good]
        if bad:  # of the first such step; a named term says more than the weighted sum
            first = [entry for entry in bad if entry[0] == bad[0][0]]
            at, optimizer, name, value = next((e for e in first if not e[2].startswith("loss/")), first[0])
            rate = optimizers[optimizer].param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"{name} of the {optimizer} became {value.item()} at step {at} with learning rate {rate:.3g}: lower"
                " optim.lr or set optim.clip; the last good state is kept"
            )
        self.unchecked.clear()

    def means(self, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
        """Means since the last call, learning rates, images/s."""
        out = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        out |= {f"lr/{name}": o.param_groups[0]["lr"] for name, o in optimizers.items()}
        now = time.perf_counter()
        out["images_per_s"] = self.images / (now - self.since)
        self.sums, self.counts, self.images, self.since = {}, {}, 0, now
        return out

    @staticmethod
    def short(scalars: dict[str, float]) -> str:
        """Losses and speed, for one line at the terminal."""
        terms = [f"{k} {v:.4g}" for k, v in scalars.items() if "/" not in k and k != "images_per_s"]
        return "  ".join([*terms, f"{scalars['images_per_s']:.1f} images/s"])

"""Mean losses between two log entries, throughput, and detection of losses that are not finite."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from common.colorizer import Objective
from common.utils.errors import UserError


class NonFiniteLoss(UserError):
    """A loss or gradient became NaN or infinite; the last saved state is from before."""


class Meter:
    """Accumulates losses between two log entries.

    check_every: number of steps between two checks for values that are not finite; each check waits for the device.
    """

    def __init__(self, check_every: int) -> None:
        self.check_every = check_every
        self.unchecked: list[tuple[int, str, str, Tensor]] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images, self.start, self.paused_seconds = 0, time.perf_counter(), 0.0

    def add(self, step: int, objective: Objective) -> None:
        """Add the loss and the terms of an objective."""
        for name, value in {f"loss/{objective.optimizer}": objective.loss, **objective.terms}.items():
            value = value.detach().float()
            self.unchecked.append((step, objective.optimizer, name, value))
            self._add(name, value)

    def add_norm(self, step: int, optimizer: str, norm: Tensor) -> None:
        """Add the gradient norm of a network."""
        norm = norm.detach().float()
        self.unchecked.append((step, optimizer, "gradient", norm))
        self._add(f"grad_norm/{optimizer}", norm)

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time in this context, such as that of a validation, does not count for images/s."""
        start = time.perf_counter()
        yield
        self.paused_seconds += time.perf_counter() - start

    def check(self, step: int, optimizers: dict[str, torch.optim.Optimizer], now: bool = False) -> None:
        """Raise NonFiniteLoss for the first value that is not finite. Checks every `check_every` steps, or `now`."""
        if not self.unchecked or not (now or (step + 1) % self.check_every == 0):
            return
        finite = torch.stack([value for *_, value in self.unchecked]).isfinite().tolist()
        bad = [entry for entry, good in zip(self.unchecked, finite, strict=True) if not good]
        if bad:  # prefer a named term to the weighted sum
            first = [entry for entry in bad if entry[0] == bad[0][0]]
            at, optimizer, name, value = next((e for e in first if not e[2].startswith("loss/")), first[0])
            rate = optimizers[optimizer].param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"{name} of the {optimizer} became {value.item()} at step {at} with learning rate {rate:.3g}: lower"
                " optim.lr or set optim.clip; the last good state is still in the run folder"
            )
        self.unchecked.clear()

    def means(self, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
        """Means since the last call, learning rates, and images/s without the paused time."""
        out = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        out |= {f"lr/{name}": o.param_groups[0]["lr"] for name, o in optimizers.items()}
        now = time.perf_counter()
        out["images_per_s"] = self.images / max(now - self.start - self.paused_seconds, 1e-9)
        self.sums, self.counts, self.images, self.start, self.paused_seconds = {}, {}, 0, now, 0.0
        return out

    @staticmethod
    def short(scalars: dict[str, float]) -> str:
        """Losses and images/s in one line."""
        terms = [f"{k} {v:.4g}" for k, v in scalars.items() if "/" not in k and k != "images_per_s"]
        return "  ".join([*terms, f"{scalars['images_per_s']:.1f} images/s"])

"""Learning rate as a function of the fraction of the run that is done, and the plateau schedule."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from common.training.config import OptimConfig


def lr_factor(config: OptimConfig, progress: float) -> float:
    """Factor on the peak learning rate at `progress` in 0..1, without that of `Plateau`."""
    if progress < config.warmup:
        return (progress + 1e-3) / (config.warmup + 1e-3)
    if config.schedule == "linear":
        return min(1.0, 2 * (1 - progress))
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))
    return 1.0


@dataclass
class Plateau:
    """Tracks the monitored metric: its best value, and how many validations ago that was."""

    higher_is_better: bool
    best: float | None = None
    since_best: int = 0
    since_cut: int = 0
    factor: float = 1.0

    def state(self) -> dict:
        """Keyword arguments that restore it, beside `higher_is_better`."""
        return {key: value for key, value in asdict(self).items() if key != "higher_is_better"}

    def update(self, value: float, config: OptimConfig) -> bool:
        """Update with the result of a validation. Returns whether it is the best so far."""
        better = self.best is None or (value > self.best if self.higher_is_better else value < self.best)
        if better:
            self.best, self.since_best, self.since_cut = value, 0, 0
            return True
        self.since_best += 1
        self.since_cut += 1
        if config.schedule == "plateau" and self.since_cut >= config.plateau_patience:
            self.factor = max(self.factor * config.plateau_factor, config.plateau_min)
            self.since_cut = 0
        return False

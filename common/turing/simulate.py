"""Simulated observers, to validate the statistics.

In a two-alternative forced choice, an observer of sensitivity d' identifies the fake with probability Phi(d' / sqrt 2)
(Green & Swets 1966). d' is normally distributed over people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from common.turing.statistics import difference_interval


@dataclass(frozen=True)
class Observers:
    """A population of observers. d' has the mean `sensitivity` and the standard deviation `spread`."""

    sensitivity: float
    spread: float = 0.0

    @property
    def share(self) -> float:
        """Expected share of pairs in which they are fooled: Phi(-sensitivity / sqrt(2 + spread^2))."""
        return float(norm.cdf(-self.sensitivity / np.sqrt(2 + self.spread**2)))

    @property
    def deviation(self) -> float:
        """Standard deviation of the share between people, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        shares = norm.cdf(-(self.sensitivity + self.spread * nodes) / np.sqrt(2))
        weights = weights / weights.sum()
        return float(np.sqrt(max(0.0, (weights * shares**2).sum() - (weights * shares).sum() ** 2)))

    @classmethod
    def of_share(cls, share: float, deviation: float = 0.0) -> Observers:
        """Simulated observers with this mean fooling rate and this standard deviation of the rate between people.

        Raises ValueError for a deviation that would need people who are always or never fooled.
        """

        def with_spread(spread: float) -> Observers:
            return cls(float(-norm.ppf(share) * np.sqrt(2 + spread**2)), spread)

        widest = 10.0
        if deviation >= with_spread(widest).deviation:
            raise ValueError(f"a share of {share:g} cannot have the standard deviation {deviation:g} between people")
        if deviation == 0:
            return with_spread(0.0)
        return with_spread(float(brentq(lambda spread: with_spread(spread).deviation - deviation, 0, widest)))

    def answer(self, people: int, trials: int, rng: np.random.Generator) -> np.ndarray:
        """Number of trials in which each person is fooled: int [people]. trials: per person."""
        d = rng.normal(self.sensitivity, self.spread, people)
        return rng.binomial(trials, norm.cdf(-d / np.sqrt(2)))


def difference_outcomes(
    first: Observers, second: Observers, people: int, trials: int, *, studies: int = 400, seed: int = 0
) -> tuple[float, float]:
    """Simulate studies of two models, with `people` per model and `trials` per person.

    Returns the shares of studies whose 95 % interval of the difference (excludes 0, contains the true difference).
    """
    rng = np.random.default_rng(seed)
    counts, true = np.full(people, trials), first.share - second.share
    detected = covered = 0
    for study in range(studies):
        a, b = (o.answer(people, trials, rng) for o in (first, second))
        interval = difference_interval((a, counts), (b, counts), seed=2 * study)
        detected += not interval.low <= 0 <= interval.high
        covered += interval.low <= true <= interval.high
    return detected / studies, covered / studies

"""Simulated people of known sensitivity, to test the statistics with.

In a two-alternative forced choice, a person of sensitivity d' tells the fake with probability Phi(d' / sqrt 2)
(Green & Swets 1966); d' is normal over people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from common.turing.statistics import Method, difference_interval, draw_share, expanded


@dataclass(frozen=True)
class Observers:
    """People whose d' has this mean and this standard deviation between them."""

    sensitivity: float
    spread: float = 0.0

    @property
    def share(self) -> float:
        """The share of pairs in which they are fooled, over all such people: in closed form."""
        return float(norm.cdf(-self.sensitivity / np.sqrt(2 + self.spread**2)))

    @property
    def deviation(self) -> float:
        """Standard deviation of that share between people, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        shares = norm.cdf(-(self.sensitivity + self.spread * nodes) / np.sqrt(2))
        weights = weights / weights.sum()
        return float(np.sqrt(max(0.0, (weights * shares**2).sum() - (weights * shares).sum() ** 2)))

    @classmethod
    def of_share(cls, share: float, deviation: float = 0.0) -> Observers:
        """Observers fooled in this share of pairs, with this standard deviation of it between people.

        Raises ValueError for a deviation that only people who are always or never fooled could have.
        """

        def of(spread: float) -> Observers:
            return cls(float(-norm.ppf(share) * np.sqrt(2 + spread**2)), spread)

        widest = 10.0
        if deviation >= of(widest).deviation:
            raise ValueError(f"a share of {share:g} cannot spread by {deviation:g} between people")
        if deviation == 0:
            return of(0.0)
        return of(float(brentq(lambda spread: of(spread).deviation - deviation, 0, widest)))

    def answer(self, people: int, trials: int, rng: np.random.Generator) -> np.ndarray:
        """How often each of so many people is fooled in so many trials: int [people]."""
        d = rng.normal(self.sensitivity, self.spread, people)
        return rng.binomial(trials, norm.cdf(-d / np.sqrt(2)))


def coverage(
    observers: Observers,
    people: int,
    trials: int,
    *,
    studies: int = 2000,
    method: Method = "matched",
    resamples: int = 500,
    widened: bool = True,
    seed: int = 0,
) -> float:
    """The share of simulated studies whose 95 % interval holds the truth. widened: at Hesterberg's percentiles."""
    rng = np.random.default_rng(seed)
    counts = np.full(people, trials)
    held = 0
    for study in range(studies):
        drawn = draw_share(observers.answer(people, trials, rng), counts, method, resamples, seed=study)
        interval = expanded(drawn.value, drawn.draws, drawn.freedom if widened else 0)
        held += interval.low <= observers.share <= interval.high
    return held / studies


def difference_outcomes(
    first: Observers, second: Observers, people: int, trials: int, *, studies: int = 400, seed: int = 0
) -> tuple[float, float]:
    """Of simulated studies with so many people a model: the share that sees a difference, that covers the true one."""
    rng = np.random.default_rng(seed)
    counts, true = np.full(people, trials), first.share - second.share
    seen = held = 0
    for study in range(studies):
        a, b = (o.answer(people, trials, rng) for o in (first, second))
        interval = difference_interval((a, counts), (b, counts), seed=2 * study)
        seen += not interval.low <= 0 <= interval.high
        held += interval.low <= true <= interval.high
    return seen / studies, held / studies

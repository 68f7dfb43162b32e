"""How many people a study needs to see a difference."""

from __future__ import annotations

import numpy as np
from scipy import stats

from common.turing.statistics import LEVEL
from common.utils.errors import UserError

MOST = 100_000


def person_variance(share: float, deviation: float, pairs: int) -> float:
    """Variance of one person's observed share: that between people, and the chance within so many pairs.

    E[p(1-p)] over people is share (1 - share) - deviation^2.
    """
    return deviation**2 + (share * (1 - share) - deviation**2) / pairs


def power(share: float, difference: float, people: int, *, pairs: int, deviation: float) -> float:
    """The chance that the interval of the difference leaves out 0, with so many people a model.

    share, share + difference: of the two models; deviation: standard deviation of the share between people. Two
    independent groups, each person's share one observation: the noncentral t distribution, both sides.
    """
    shares = (share, share + difference)
    error = np.sqrt(sum(person_variance(p, deviation, pairs) for p in shares) / people)
    freedom = 2 * (people - 1)
    critical = stats.t.ppf((1 + LEVEL) / 2, freedom)
    distance = abs(difference) / error
    return float(stats.nct.sf(critical, freedom, distance) + stats.nct.cdf(-critical, freedom, distance))


def people_needed(share: float, difference: float, *, wanted: float, pairs: int, deviation: float) -> int:
    """The fewest people a model with which `power` is at least `wanted`.

    Raises UserError for shares outside of 0..1, a spread that they cannot have, or more than 100,000 people.
    """
    if not deviation >= 0:
        raise UserError(f"spread is {deviation:g}: it takes a number from 0")
    for p in (share, share + difference):
        if not 0 < p < 1:
            raise UserError(f"a share of {p:g} is none: --share and --share + --difference lie between 0 and 1")
        if deviation**2 >= p * (1 - p):
            raise UserError(f"spread is {deviation:g}: a share of {p:g} cannot spread so far between people")
    if difference == 0:
        raise UserError("difference is 0: no number of people shows one that is not there")

    def enough(people: int) -> bool:
        return power(share, difference, people, pairs=pairs, deviation=deviation) >= wanted

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            raise UserError(
                f"a difference of {difference:g} needs more than {MOST:,} people a model: plan for a larger"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(2, high)

"""Power analysis: how many people a study needs to detect a difference."""

from __future__ import annotations

import numpy as np
from scipy import stats

from common.turing.statistics import LEVEL
from common.utils.errors import UserError

MAX_PEOPLE = 100_000


def person_variance(share: float, deviation: float, pairs: int) -> float:
    """Variance of one person's observed share: the variance between people plus the binomial variance of `pairs`.

    With p the true share of a person, of mean `share` and standard deviation `deviation`,
    Var = deviation^2 + E[p (1 - p)] / pairs, where E[p (1 - p)] = share (1 - share) - deviation^2.
    """
    return deviation**2 + (share * (1 - share) - deviation**2) / pairs


def power(share: float, difference: float, people: int, *, pairs: int, deviation: float) -> float:
    """Probability that the 95 % interval of the difference excludes 0: the power of a two-sided t-test.

    The groups are independent, and each person's share is one observation; the statistic is noncentral t.

    share, share + difference: expected shares fooled of the two models. people: per model. pairs: per person.
    deviation: standard deviation of the true share between people.
    """
    shares = (share, share + difference)
    standard_error = np.sqrt(sum(person_variance(p, deviation, pairs) for p in shares) / people)
    df = 2 * (people - 1)
    critical = stats.t.ppf((1 + LEVEL) / 2, df)
    noncentrality = abs(difference) / standard_error
    return float(stats.nct.sf(critical, df, noncentrality) + stats.nct.cdf(-critical, df, noncentrality))


def people_needed(share: float, difference: float, *, wanted: float, pairs: int, deviation: float) -> int:
    """Smallest number of people per model whose `power` is at least `wanted`.

    Raises UserError for shares outside of 0 to 1, a deviation that is impossible for such a share, a difference of 0,
    or if more than 100,000 people would be needed.
    """
    if not deviation >= 0:
        raise UserError(f"spread is {deviation:g}: expected a number of 0 or more")
    for p in (share, share + difference):
        if not 0 < p < 1:
            raise UserError(
                f"a share of {p:g} is impossible: --share and --share + --difference must lie between 0 and 1"
            )
        if deviation**2 >= p * (1 - p):
            largest = (p * (1 - p)) ** 0.5
            raise UserError(f"spread is {deviation:g}: at a share of {p:g} it must be below {largest:.2g}")
    if difference == 0:
        raise UserError("difference is 0: no number of people can detect it; give a larger one")

    def enough(people: int) -> bool:
        return power(share, difference, people, pairs=pairs, deviation=deviation) >= wanted

    high = 2
    while not enough(high):
        high *= 2
        if high > MAX_PEOPLE:
            raise UserError(
                f"a difference of {difference:g} needs more than {MAX_PEOPLE:,} people per model: plan for a larger one"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(2, high)

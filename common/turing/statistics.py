"""Shares with intervals: a hierarchical bootstrap over people, then over the trials of each.

The textbook form (draw people, then draw each one's trials anew) counts the chance within a person twice: a person's
observed share holds it already, and the second draw adds it again, so its intervals cover the truth in 97 to 99 % of
studies where 95 % was meant. Here each person's share is first drawn towards the mean until the spread between the
shares is the estimated spread between *people* (Davison & Hinkley 1997, section 3.8, match the moments so); then
people are drawn, then trials. The percentiles are those of Hesterberg 2015 ("expanded"): with few people the plain
ones are too narrow by sqrt((n - 1) / n) and by the normal quantile in place of Student's. Where no spread between
people shows at all, the degrees of freedom are those of the trials. `common.turing.simulate` measures all of these on
simulated people.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95
Method = Literal["matched", "two_level", "people"]


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Draws(NamedTuple):
    """A share, its bootstrap draws, and the degrees of freedom that its people give."""

    value: float
    draws: np.ndarray
    freedom: float


def spread_between(fooled: np.ndarray, trials: np.ndarray) -> float:
    """Variance of the true shares between people, from counts: the analysis-of-variance estimator, at least 0.

    fooled, trials: int [P], trials of each above 0. 0 where there is one person, or one trial each.
    """
    people, total = len(trials), trials.sum()
    if people < 2 or total == people:
        return 0.0
    shares, mean = fooled / trials, fooled.sum() / total
    within = (trials * shares * (1 - shares)).sum() / (total - people)
    between = (trials * (shares - mean) ** 2).sum() / (people - 1)
    size = (total - (trials**2).sum() / total) / (people - 1)
    return max(0.0, float((between - within) / size))


def draw_share(
    fooled: np.ndarray,
    trials: np.ndarray,
    method: Method = "matched",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Draws:
    """Bootstrap the share of trials in which people were fooled.

    fooled, trials: int [P], per person; people without a trial are left out. method: `matched` as this module says;
    `two_level` and `people` are the textbook forms that it was measured against. With one person only trials are
    drawn. Raises ValueError where there is no trial.
    """
    fooled, trials = np.asarray(fooled), np.asarray(trials)
    fooled, trials = fooled[trials > 0], trials[trials > 0]
    people = len(trials)
    if not people:
        raise ValueError("no trial to estimate a share from")
    rng = np.random.default_rng(seed)
    share, shares, freedom = fooled.sum() / trials.sum(), fooled / trials, people - 1
    chosen = rng.integers(0, people, (resamples, people))
    if method == "people":
        hits = fooled[chosen]
    else:
        if method == "matched":
            spread = spread_between(fooled, trials)
            shares = _matched(shares, share, spread)
            freedom = freedom if spread else trials.sum() - 1
        hits = rng.binomial(trials[chosen], shares[chosen])
    draws = hits.sum(axis=1) / trials[chosen].sum(axis=1)
    return Draws(float(share), draws, float(freedom))


def _matched(shares: np.ndarray, mean: float, spread: float) -> np.ndarray:
    """The shares, moved towards (or from) their mean until their sample variance is that between people."""
    seen = shares.var(ddof=1) if len(shares) > 1 else 0.0
    if seen == 0:
        return np.full_like(shares, mean)
    return np.clip(mean + (shares - shares.mean()) * np.sqrt(spread / seen), 0, 1)


def expanded(value: float, draws: np.ndarray, freedom: float) -> Interval:
    """The percentile interval of bootstrap draws at Hesterberg's levels for so many degrees of freedom."""
    tail = (1 - LEVEL) / 2
    if freedom > 0:
        tail = stats.norm.cdf(stats.t.ppf(tail, freedom) * np.sqrt((freedom + 1) / freedom))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def share_interval(fooled: np.ndarray, trials: np.ndarray, seed: int = 0) -> Interval:
    """Share fooled with its 95 % interval, from counts per person (see `draw_share`)."""
    return expanded(*draw_share(fooled, trials, seed=seed))


def difference_interval(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], seed: int = 0
) -> Interval:
    """Share of the first group minus that of the second, other people; Welch's degrees of freedom."""
    a, b = draw_share(*first, seed=seed), draw_share(*second, seed=seed + 1)
    return expanded(a.value - b.value, a.draws - b.draws, welch(a, b))


def welch(a: Draws, b: Draws) -> float:
    """Degrees of freedom of a difference of two independent shares (Welch & Satterthwaite)."""
    va, vb = a.draws.var(), b.draws.var()
    if min(a.freedom, b.freedom) < 1 or va + vb == 0:
        return max(a.freedom, b.freedom, 0.0)
    return float((va + vb) ** 2 / (va**2 / a.freedom + vb**2 / b.freedom))

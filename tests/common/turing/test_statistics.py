"""Shares and intervals, on counts whose answer is known and on simulated people whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.turing.power import people_needed, person_variance, power
from common.turing.simulate import Observers, difference_outcomes
from common.turing.statistics import (
    between_person_variance,
    bootstrap_share,
    difference_interval,
    expanded_interval,
    share_interval,
)
from common.utils.errors import UserError

counts = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12).map(
    lambda pairs: (np.array([min(p) for p in pairs]), np.array([max(p) for p in pairs]))
)


@settings(max_examples=60, deadline=None)
@given(counts)
def test_laws_of_an_interval(people):
    """Within 0..1, around the pooled share, blind to the order and to people without a trial; mirrored."""
    fooled, trials = people
    if not trials.sum():
        with pytest.raises(ValueError, match="no trial"):
            share_interval(fooled, trials)
        return
    value, low, high = share_interval(fooled, trials)
    assert value == pytest.approx(fooled.sum() / trials.sum())
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1
    some = trials > 0
    assert share_interval(fooled[some], trials[some]) == (value, low, high)
    mirrored = share_interval(trials - fooled, trials)
    assert mirrored.value == pytest.approx(1 - value)
    if some.sum() >= 5 and trials.sum() >= 100:  # with fewer the draws are coarse
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low), abs=0.08)


def test_the_textbook_form_is_the_resampling_of_trials():
    """Drawing a binomial is drawing a person's trials with replacement: same moments as doing so one by one."""
    fooled, trials = np.array([1, 5, 9, 3]), np.array([10, 10, 12, 6])
    drawn = bootstrap_share(fooled, trials, "two_level", resamples=20_000).draws
    rng = np.random.default_rng(5)
    answers = [np.repeat([1, 0], [f, n - f]) for f, n in zip(fooled, trials, strict=True)]
    slow = []
    for _ in range(20_000):
        people = [answers[i] for i in rng.integers(0, 4, 4)]
        again = [rng.choice(a, len(a)) for a in people]
        slow.append(sum(map(sum, again)) / sum(map(len, again)))
    assert drawn.mean() == pytest.approx(np.mean(slow), abs=0.003)
    assert drawn.std() == pytest.approx(np.std(slow), rel=0.03)


def test_the_draws_have_the_variance_of_the_estimate():
    """What `matched` is for: over many studies, the bootstrap's variance is that of the share itself."""
    observers, rng = Observers.of_share(0.3, 0.1), np.random.default_rng(1)
    trials = np.full(30, 36)
    samples = [observers.answer(30, 36, rng) for _ in range(300)]
    true = person_variance(0.3, 0.1, 36) / 30
    matched = np.mean([bootstrap_share(s, trials, resamples=300, seed=i).draws.var() for i, s in enumerate(samples)])
    doubled = np.mean([bootstrap_share(s, trials, "two_level", 300, i).draws.var() for i, s in enumerate(samples)])
    assert matched == pytest.approx(true * 29 / 30, rel=0.1)
    assert doubled > 1.25 * true
    assert np.var([s.sum() / trials.sum() for s in samples]) == pytest.approx(true, rel=0.25)


def test_the_spread_between_people():
    observers, rng = Observers.of_share(0.35, 0.12), np.random.default_rng(2)
    trials = rng.integers(20, 40, 4000)
    assert np.sqrt(between_person_variance(observers.answer(4000, trials, rng), trials)) == pytest.approx(
        0.12, abs=0.01
    )
    nobody = rng.binomial(trials, 0.35)
    assert np.sqrt(between_person_variance(nobody, trials)) < 0.03
    assert between_person_variance(np.array([3]), np.array([10])) == 0
    assert between_person_variance(np.array([1, 0]), np.array([1, 1])) == 0


def test_one_person_and_no_doubt():
    value, low, high = share_interval(np.array([12]), np.array([40]))
    exact = stats.binomtest(12, 40).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.05)
    assert value == 0.3
    assert share_interval(np.array([0, 0]), np.array([9, 9])) == (0, 0, 0)


@pytest.mark.parametrize(("share", "deviation"), [(0.3, 0.0), (0.3, 0.1), (0.05, 0.04), (0.5, 0.2)])
def test_observers_are_what_they_say(share, deviation):
    observers = Observers.of_share(share, deviation)
    assert observers.share == pytest.approx(share, abs=1e-9)
    assert observers.deviation == pytest.approx(deviation, abs=1e-6)
    rng = np.random.default_rng(0)
    shares = observers.answer(20_000, 1000, rng) / 1000
    assert shares.mean() == pytest.approx(share, abs=0.005)
    assert shares.var() == pytest.approx(person_variance(share, deviation, 1000), rel=0.06)


def test_observers_that_cannot_be():
    with pytest.raises(ValueError, match="cannot have the standard deviation"):
        Observers.of_share(0.1, 0.3001)


def coverage(observers, people, trials, *, studies, method="matched", resamples=500, expand=True):
    """The share of simulated studies whose 95 % interval contains the true share."""
    rng, counts, covered = np.random.default_rng(0), np.full(people, trials), 0
    for study in range(studies):
        drawn = bootstrap_share(observers.answer(people, trials, rng), counts, method, resamples, seed=study)
        interval = expanded_interval(drawn.value, drawn.draws, drawn.df if expand else 0)
        covered += interval.low <= observers.share <= interval.high
    return covered / studies


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "deviation", "people"),
    [(0.3, 0.1, 24), (0.3, 0.0, 24), (0.15, 0.05, 24), (0.45, 0.05, 24), (0.3, 0.1, 12)],
)
def test_the_interval_covers_the_truth(share, deviation, people):
    """In 95 +- 2 % of 2,000 simulated studies."""
    covered = coverage(Observers.of_share(share, deviation), people, 36, studies=2000)
    print(f"share {share}, spread {deviation}, {people} people: {covered:.2%}")
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
def test_the_other_methods_do_not_have_95_percent_coverage():
    """The textbook form covers too often if people are alike; the bootstrap over people too rarely if they are few."""
    alike = Observers.of_share(0.3, 0.0)
    assert coverage(alike, 24, 36, studies=500, method="two_level", expand=False) > 0.97
    assert coverage(Observers.of_share(0.3, 0.1), 10, 36, studies=500, method="people", expand=False) < 0.93


@pytest.mark.slow
def test_the_power_analysis_agrees_with_simulated_studies():
    """Simulated studies detect the difference as often as planned, and its interval covers the truth."""
    options = {"pairs": 36, "deviation": 0.1}
    people = people_needed(0.25, 0.1, wanted=0.8, **options)
    observers = [Observers.of_share(p, 0.1) for p in (0.25, 0.35)]
    seen, held = difference_outcomes(*observers, people, 36, studies=400)
    assert seen == pytest.approx(power(0.25, 0.1, people, **options), abs=0.05)
    assert 0.93 <= held <= 0.97


def test_the_plan_against_the_textbook():
    """Against n = 2 (z + z)^2 V / d^2, which it approaches for many people; and its laws."""
    variance = (person_variance(0.3, 0.1, 36) + person_variance(0.32, 0.1, 36)) / 2
    normal = 2 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * variance / 0.02**2
    assert people_needed(0.3, 0.02, wanted=0.8, pairs=36, deviation=0.1) == pytest.approx(normal, rel=0.01)
    needed = people_needed(0.3, 0.1, wanted=0.9, pairs=36, deviation=0.1)
    assert (
        power(0.3, 0.1, needed, pairs=36, deviation=0.1) >= 0.9 > power(0.3, 0.1, needed - 1, pairs=36, deviation=0.1)
    )
    assert power(0.3, 0.0, 20, pairs=36, deviation=0.1) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((0.95, 0.1, 0.1), "a share of 1.05 is impossible"),
        ((0.3, 0.0, 0.1), "difference is 0"),
        ((0.3, 0.1, 0.6), "spread is 0.6"),
        ((0.3, 0.1, float("nan")), "spread is nan"),
        ((0.3, 1e-5, 0.1), "more than 100,000 people"),
    ],
)
def test_plans_that_cannot_be(given, says):
    with pytest.raises(UserError, match=says):
        people_needed(given[0], given[1], wanted=0.8, pairs=36, deviation=given[2])


def test_a_difference():
    rng = np.random.default_rng(3)
    trials = np.full(40, 36)
    a, b = rng.binomial(36, 0.4, 40), rng.binomial(36, 0.2, 40)
    there = difference_interval((a, trials), (b, trials))
    back = difference_interval((b, trials), (a, trials))
    assert there.value == pytest.approx((a.sum() - b.sum()) / trials.sum())
    assert there.low > 0.1
    assert there.low == pytest.approx(-back.high, abs=0.01)
    same = difference_interval((a, trials), (a, trials))
    assert same.low < 0 < same.high

"""The design of a study: laws that hold for every seed and every session."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.turing.trials import Study, check_counts, choose_photos, color_donor, next_model, plan_session
from common.utils.errors import UserError


def study(seed=0, photos=60, models=("a", "b", "c"), **counts):
    return Study(models, tuple(f"p{i}" for i in range(photos)), "content", 64, seed=seed, **counts)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 10_000), st.integers(0, 12), st.integers(2, 40))
def test_laws_of_a_session(seed, number, practice, test):
    one = study(seed, 60, practice=practice, test=test)
    trials = plan_session(one, number)
    assert trials == plan_session(one, number)
    assert [t.kind for t in trials[:practice]] == ["practice"] * practice
    kinds = Counter(t.kind for t in trials[practice:])
    assert kinds["vigilance"] == round(test * 0.1)
    assert sum(kinds.values()) == test
    assert len({t.photo for t in trials}) == len(trials)
    assert all((t.photo < practice) == (t.kind == "practice") for t in trials)
    assert {t.fake for t in trials} <= {"left", "right"}


def test_sides_are_even_and_tell_nothing():
    one = study(1)
    sides = [[t.fake == "left" for t in plan_session(one, n)] for n in range(800)]
    share = sum(map(sum, sides)) / (800 * 50)
    assert abs(share - 0.5) < 4 * 0.5 / (800 * 50) ** 0.5
    for position in range(50):  # of each place
        assert abs(sum(s[position] for s in sides) / 800 - 0.5) < 4.5 * 0.5 / 800**0.5
    again = sum(s[i] == s[i + 1] for s in sides for i in range(49)) / (800 * 49)  # and of one after the other
    assert abs(again - 0.5) < 4 * 0.5 / (800 * 49) ** 0.5
    vigilant = Counter(i for n in range(800) for i, t in enumerate(plan_session(one, n)) if t.kind == "vigilance")
    assert set(vigilant) == set(range(10, 50))


@given(st.integers(0, 1000), st.integers(1, 5))
def test_models_take_turns(seed, count):
    models = tuple("abcde"[:count])
    one, started = study(seed, models=models), Counter()
    for number in range(23):
        started[next_model(started, one, number)] += 1
        assert max(started.values()) - min(started[m] for m in models) <= 1


def test_the_colors_of_another_photograph():
    for seed in range(5):
        others = [color_donor(i, 30, seed) for i in range(30)]
        assert sorted(others) == list(range(30))
        assert all(i != other for i, other in enumerate(others))


def test_a_choice_of_photographs():
    assert sorted(choose_photos(20, None, 1)) == list(range(20))
    assert choose_photos(20, 5, 1) == choose_photos(20, None, 1)[:5] != choose_photos(20, 5, 2)


def test_a_record_there_and_back():
    one = study(3, practice=4)
    assert Study.from_json(one.to_json()) == one
    assert len(one.digest()) == 12
    assert one.digest() != study(4, practice=4).digest()
    with pytest.raises((TypeError, ValueError, KeyError)):
        Study.from_json(json.dumps({"models": []}))


@pytest.mark.parametrize(
    ("counts", "says"),
    [((49, 10, 40, 0.1), "49 color photographs are fewer than the 50 pairs"), ((99, 0, 1, 0.6), "vigilance is 0.6")],
)
def test_counts_that_make_no_session(counts, says):
    with pytest.raises(UserError, match=says):
        check_counts(*counts)

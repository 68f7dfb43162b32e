"""Groups of dependent photographs: their names, and what resampling them as a whole changes."""

import numpy as np
import pytest

from common.comparison.groups import compared_models
from common.comparison.paired import compare_rows
from common.comparison.report.report import compare_evaluation
from common.comparison.report.tables import markdown_table
from common.evaluation.bootstrap import resampled, summarize
from common.evaluation.evaluate import evaluate
from common.evaluation.metrics import METRICS, Metric
from common.evaluation.photograph_groups import group_numbers, renumbered
from common.evaluation.rows import Row, Rows
from common.utils.errors import UserError

MAE = METRICS["mae_ab"]


def test_groups_are_named_by_the_capture_or_the_match():
    names = ["b/v1_0.png", "b/v1_1.png", "b/v2_0.png", "b/v1_2.png"]
    assert group_numbers(names).tolist() == [0, 1, 2, 3]
    assert group_numbers(names, r"(v\d)_").tolist() == [0, 0, 1, 0]
    assert group_numbers(names, r"v\d").tolist() == [0, 0, 1, 0]
    assert group_numbers(names, r"(v2)|.*").tolist() == [0, 1, 2, 3]
    for expression in ("v1", "x*"):
        with pytest.raises(UserError, match=r"photograph b/v.* no match of the group expression"):
            group_numbers(names, expression)
    with pytest.raises(UserError, match="is not a regular expression"):
        group_numbers(names, "(")
    assert renumbered(np.array([5, 2, 5, 9])).tolist() == [0, 1, 0, 2]


def test_single_photographs_as_groups_change_nothing():
    rng = np.random.default_rng(0)
    values, reference = rng.gamma(2, 2, 30), rng.gamma(2, 2, 30)
    for metric in (MAE, METRICS["colorfulness_ratio"], METRICS["delta_colorfulness"]):
        plain = resampled(metric, values, reference, 3)
        assert (resampled(metric, values, reference, 3, np.arange(30)[::-1]) == plain).all()
        assert summarize(metric, values, reference) == summarize(metric, values, reference, groups=np.arange(30))


def test_a_resample_holds_whole_groups():
    """The mean over the photographs of the drawn groups, also if these have different sizes."""
    rng = np.random.default_rng(1)
    values, groups = rng.gamma(2, 2, 40), rng.integers(0, 9, 40)
    own = Metric(None, "lower", 3, "", statistic=lambda v, r: float(v.mean()))
    by_hand = resampled(own, values, np.ones(40), groups=groups)
    assert resampled(MAE, values, np.ones(40), groups=groups) == pytest.approx(by_hand)


def test_intervals_of_groups_cover_the_mean():
    """30 groups of 5 strongly correlated values: the cluster bootstrap has its level, the plain one has not."""
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(30), 5)
    covered = dict.fromkeys(("groups", "plain"), 0)
    for _ in range(200):
        values = rng.normal(0, 1, 30)[groups] + rng.normal(0, 0.2, 150)
        for name, given in (("groups", groups), ("plain", None)):
            cell = summarize(MAE, values, np.ones(150), groups=given)
            covered[name] += cell["low"] <= 0 <= cell["high"]
    assert 180 <= covered["groups"] <= 198
    assert covered["plain"] < 160


def test_squares_of_two_photographs_give_no_star(demo_pack):
    """20 squares of two demo photographs, and a model that is better on each square."""
    result = evaluate(
        {name: lambda b, rows, s=s: b.ab * s for name, s in (("a", 0.8), ("b", 0.4))}, demo_pack, ["mae_ab"]
    )
    assert len(result.groups) == 20 and set(result.groups) == {0, 1}
    rows = Rows({name: Row(name, card={"family": "f"}) for name in "ab"})
    found = compare_evaluation(result, rows)
    difference = found.difference("mae_ab", "a", "b")
    assert (difference.better, difference.groups) == (1, 2)
    assert not difference.significant and not difference.significant_holm
    text = markdown_table(result.table, result.protocol, found)
    assert "★" not in text and "☆" not in text
    assert "2 groups (each photograph is a group). No difference is marked as significant, because" in text


def test_a_few_large_groups_are_a_small_sample():
    """A difference that is the same within each of ten groups is tested with ten values, not with a hundred."""
    rng, groups = np.random.default_rng(3), np.repeat(np.arange(10), 10)
    of_group = rng.normal(0.3, 1, 10)
    rows = {"a": {"mae_ab": rng.gamma(2, 2, 100)}}
    rows["b"] = {"mae_ab": rows["a"]["mae_ab"] - of_group[groups]}
    references, who = {"mae_ab": np.ones(100)}, compared_models(rows, rows)
    table = {row: {"mae_ab": {"mean": 0.0}} for row in rows}
    plain, grouped = (
        compare_rows(rows, references, {"mae_ab": MAE}, who, table, groups=g).difference("mae_ab", "a", "b")
        for g in (None, groups)
    )
    assert grouped.value == plain.value
    assert (plain.groups, grouped.groups) == (100, 10)
    half = of_group.std(ddof=1) / np.sqrt(10) * 2.262  # t with 9 degrees of freedom
    assert (grouped.high - grouped.low) / 2 == pytest.approx(half, rel=0.1)
    assert plain.high - plain.low < 0.4 * (grouped.high - grouped.low)


def test_one_group_has_no_interval():
    cell = summarize(MAE, np.arange(5.0), np.ones(5), groups=np.zeros(5, dtype=int))
    assert cell == {"mean": 2.0, "low": None, "high": None}

"""Paired differences: closed forms, alarm rates on constructed models, and the real thing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.comparison.groups import ComparedModel, compared_models, expand_groups, same_experiment
from common.comparison.paired import compare_rows
from common.evaluation.bootstrap import RESAMPLES, draws, of_set, resampled, summarize
from common.evaluation.evaluate import evaluate, model_predictor, trivial_predictor
from common.evaluation.metrics import METRICS, Metric
from common.utils.errors import UserError

MAE = {"mae_ab": METRICS["mae_ab"]}


def comparison(values, metrics=MAE, references=None, groups=None, seed=0, trivial=()):
    """Compare rows of constructed values: values[row][metric]."""
    references = references or {m: np.ones(len(next(iter(values.values()))[m])) for m in metrics}
    table = {
        row: {m: summarize(metrics[m], v, references[m]) for m, v in columns.items()} for row, columns in values.items()
    }
    who = compared_models(values, [row for row in values if row not in trivial], groups)
    return compare_rows(values, references, metrics, who, table, seed)


def one_metric(**rows):
    return {row: {"mae_ab": np.asarray(v, dtype=float)} for row, v in rows.items()}


def test_resamples_are_drawn_with_replacement():
    counts = draws(40)
    assert counts.shape == (RESAMPLES, 40)
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 40, rel=0.02)  # binomial(40, 1/40)
    values = np.random.default_rng(0).gamma(2, 3, 40)
    by_hand = [np.repeat(values, times).mean() for times in counts]
    assert resampled(METRICS["mae_ab"], values, np.ones(40)) == pytest.approx(by_hand)


def test_a_statistic_sees_the_same_resamples_as_a_mean():
    rng = np.random.default_rng(1)
    values, reference = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    own = Metric(None, "lower", 3, "", statistic=lambda v, r: float(v[:, 0].mean()))
    plain = resampled(METRICS["mae_ab"], values[:, 0], np.ones(30), seed=5)
    assert resampled(own, values, reference, seed=5) == pytest.approx(plain)


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(2)
    hard = rng.gamma(3, 4, 400)
    a, b = hard + rng.normal(0, 1, 400), hard + rng.normal(0.1, 1, 400)
    found = comparison(one_metric(a=a, b=b)).difference("mae_ab", "a", "b")
    by_t = stats.ttest_rel(a, b)
    low, high = by_t.confidence_interval()
    assert found.value == pytest.approx((a - b).mean())
    width = high - low
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * width)
    alone = comparison(one_metric(a=a, b=b)).numbers["a"]["mae_ab"]
    assert found.high - found.low < 0.3 * (alone["high"] - alone["low"])  # pairing is worth it


@given(st.permutations(range(3)), st.integers(0, 2**16))
def test_turning_a_pair_turns_its_difference(order, seed):
    rng = np.random.default_rng(seed)
    rows = {name: rng.gamma(2, 2, 25) for name in "abc"}
    one = comparison(one_metric(**rows))
    other = comparison(one_metric(**{"abc"[i]: rows["abc"[i]] for i in order}))
    x, y = one.difference("mae_ab", "a", "c"), other.difference("mae_ab", "c", "a").reversed()
    assert (x.value, x.low, x.high, x.p_holm, x.better) == pytest.approx((y.value, y.low, y.high, y.p_holm, y.better))
    assert one.best("mae_ab") == other.best("mae_ab")


def test_what_is_not_measured_on_one_is_left_out_of_both():
    rng = np.random.default_rng(3)
    a, b = rng.normal(30, 2, 50), rng.normal(30, 2, 50)
    a[:4], b[3:7] = np.inf, np.nan
    metric = {"psnr": METRICS["psnr"]}
    values = {"a": {"psnr": a}, "b": {"psnr": b}}
    found = comparison(values, metric).difference("psnr", "a", "b")
    assert (found.count, found.left_out) == (43, 7)
    assert found.value == pytest.approx((a[7:] - b[7:]).mean())
    nothing = {"a": {"psnr": a}, "b": {"psnr": np.full(50, np.nan)}}
    assert comparison(nothing, metric).difference("psnr", "a", "b") is None
    assert comparison(nothing, metric).best("psnr") == "a"


def test_numbers_of_sets_are_compared_as_such():
    """A ratio of means, and a distance to the original's number."""
    rng = np.random.default_rng(4)
    true = rng.gamma(4, 8, 300)
    values = {"dull": 0.7 * true, "vivid": 1.2 * true, "original": true}
    columns = {row: {"colorfulness_ratio": v, "delta_colorfulness": v} for row, v in values.items()}
    metrics = {m: METRICS[m] for m in ("colorfulness_ratio", "delta_colorfulness")}
    found = comparison(columns, metrics, dict.fromkeys(metrics, true))
    ratio = found.difference("colorfulness_ratio", "dull", "vivid")
    assert ratio.value == pytest.approx(0.3 - 0.2)
    assert ratio.better == -1
    delta = found.difference("delta_colorfulness", "dull", "vivid")
    assert delta.value == pytest.approx(0.1 * true.mean())
    half = 1.96 * 0.1 * true.std() / np.sqrt(300)
    assert (delta.low, delta.high) == pytest.approx((delta.value - half, delta.value + half), rel=0.05)
    assert found.best("colorfulness_ratio") == "vivid"
    assert "original" not in found.numbers


def test_numbers_with_a_statistic_over_vectors():
    rng = np.random.default_rng(5)
    true = rng.normal(0, 1, (200, 4))
    metric = {"d": Metric(None, "lower", 3, "", statistic=lambda v, r: float(((v.mean(0) - r.mean(0)) ** 2).sum()))}
    values = {"near": {"d": true + rng.normal(0.1, 0.1, true.shape)}, "far": {"d": true + 1}}
    found = comparison(values, metric, {"d": true})
    assert found.beats("d", "near", "far")
    assert found.difference("d", "near", "far").value == pytest.approx(
        of_set(metric["d"], values["near"]["d"], true) - 4
    )


def test_one_photograph_tells_nothing():
    assert comparison(one_metric(a=[1.0], b=[2.0])).difference("mae_ab", "a", "b") is None


def test_two_equally_good_models_are_seldom_told_apart():
    """Rows whose per-image errors are exchangeable: 5 % of intervals exclude 0, and Holm lets hardly any through."""
    told = sure = runs = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hard = rng.gamma(3, 4, 120)
        rows = {name: hard * rng.lognormal(0, 0.2, 120) for name in "abcde"}  # 10 pairs a run
        found = comparison(one_metric(**rows), seed=seed).paired_differences["mae_ab"].values()
        told, sure, runs = (
            told + sum(d.significant for d in found),
            sure + sum(d.significant_holm for d in found),
            runs + len(found),
        )
    assert runs == 200
    assert 2 <= told <= 20
    assert sure <= 2


def test_seeds_are_an_own_source_of_variance():
    """Models of equal quality whose seeds scatter: one seed each cries wolf, several seeds do not."""
    alone = grouped = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hard = rng.gamma(3, 4, 200)
        rows = {f"{name}{i}": hard + rng.normal(0, 0.3) + rng.normal(0, 0.5, 200) for name in "ab" for i in range(3)}
        groups = {name: tuple(f"{name}{i}" for i in range(3)) for name in "ab"}
        alone += comparison(one_metric(a=rows["a0"], b=rows["b0"])).difference("mae_ab", "a", "b").significant
        grouped += comparison(one_metric(**rows), groups=groups).difference("mae_ab", "a", "b").significant
    assert alone > 40
    assert grouped <= 7


def test_a_groups_cell_has_both_sources_of_variance():
    rng = np.random.default_rng(6)
    hard = rng.gamma(3, 4, 500)
    rows = {f"s{i}": hard + shift for i, shift in enumerate((-1.0, 0.0, 1.0))}
    found = comparison(one_metric(**rows), groups={"s": tuple(rows)})
    cell = found.numbers["s"]["mae_ab"]
    assert cell["mean"] == pytest.approx(hard.mean())
    assert cell["seeds"] == 3
    assert cell["sd_seeds"] == pytest.approx(1)
    assert cell["se_photographs"] == pytest.approx(hard.std() / np.sqrt(500), rel=0.1)
    both = np.hypot(1 / np.sqrt(3), cell["se_photographs"])
    assert (cell["high"] - cell["low"]) / 2 > stats.norm.ppf(0.975) * both  # few seeds: wider than the normal's


def test_trivial_rows_are_compared_and_never_best():
    rows = one_metric(a=np.arange(50) + 3.0, grey=np.arange(50) + 1.0, original=np.zeros(50))
    found = comparison(rows, trivial=("grey", "original"))
    assert found.best("mae_ab") == "a"
    assert found.ranked == ["a"]
    assert found.beats("mae_ab", "grey", "a")


@pytest.fixture(scope="module")
def noisy(demo_pack):
    """calm64, its twin, and its copy with noise of 1 % of the scale of ab (110), on the demo's photographs."""
    from common.registry import load_colorizer

    calm = model_predictor(load_colorizer("calm64"))

    def with_noise(share):
        def predict(batch, rows):
            noise = [np.random.default_rng([7, row]).normal(0, share * 110, batch.ab.shape[1:]) for row in rows]
            return calm(batch, rows) + torch.from_numpy(np.stack(noise)).float()

        return predict

    predictors = {"calm": calm, "twin": calm, "noisy": with_noise(0.01), "original": None}
    predictors["original"] = trivial_predictor("original", demo_pack)
    return evaluate(predictors, demo_pack, seed=0)


def of(result, seed):
    who = compared_models(result.values, ["calm", "twin", "noisy"])
    metrics = {m: METRICS[m] for m in result.table["calm"]}
    return compare_rows(result.values, result.references, metrics, who, result.table, seed)


def test_a_model_is_never_told_from_itself_and_always_from_its_noisy_copy(noisy):
    for seed in range(20):
        found = of(noisy, seed)
        assert not any(found.difference(m, "calm", "twin").significant for m in found.metrics)
        for metric in ("rmse_ab", "mse_ab", "l2_ab", "mae_ab", "delta_e", "auc", "psnr", "ssim"):
            difference = found.difference(metric, "calm", "noisy")
            assert difference.significant, metric
            assert difference.better == 1, metric
        for metric in ("rmse_ab", "l2_ab", "mae_ab", "auc"):  # these also among all comparisons
            assert found.beats(metric, "calm", "noisy"), metric
    assert set(found.level("mae_ab")) == {"twin"}


def card(seed, run, **changes):
    config = {"seed": seed, "run": run, "steps": 100, "data": {"size": 64, "cache": run}, "model": {"width": 1}}
    return {"name": run, "family": "f", "seed": seed, "steps": 100, "model": {}, "config": config} | changes


def test_seeds_of_one_experiment_are_found():
    cards = {f"cnn_s{i}": card(i, f"runs/cnn_s{i}") for i in range(3)} | {"other": card(5, "x", model={"width": 2})}
    assert same_experiment(cards) == {"cnn": ("cnn_s0", "cnn_s1", "cnn_s2")}
    cards["last"] = card(2, "runs/cnn_s2")  # the same run's other weights
    assert same_experiment(cards) == {}
    assert same_experiment({"a": card(0, "a"), "b": card(1, "b", steps=50)}) == {}  # cut off
    assert same_experiment({"a": {"family": "f", "model": {}}, "b": card(1, "b")}) == {}
    tempered = {f"c{i} T={t}": card(i, f"c{i}") for i in range(2) for t in ("0.1", "1")}
    assert sorted(same_experiment(tempered).values()) == [("c0 T=0.1", "c1 T=0.1"), ("c0 T=1", "c1 T=1")]


def test_groups_by_name():
    rows, groups = expand_groups(["a", "mine=x,y", "mean(a,b)", "e=mean(a,b)", "grey"])
    assert rows == ["a", "mine 1=x", "mine 2=y", "mean(a,b)", "e=mean(a,b)", "grey"]
    assert groups == {"mine": ("mine 1", "mine 2")}
    with pytest.raises(UserError, match="no empty member"):
        expand_groups(["mine=x,,y"])


def test_contestants_keep_the_order_of_the_table():
    rows = ["a", "s0", "b", "s1", "grey", "original"]
    found = compared_models(rows, ["a", "s0", "b", "s1"], {"s": ("s0", "s1", "s2")})
    assert [c.title for c in found] == ["a", "s", "b", "grey"]
    assert found[1] == ComparedModel("s", ("s0", "s1"))
    assert [c.trivial for c in found] == [False, False, False, True]
    assert compared_models(["s0"], ["s0"], {"s": ("s0", "s1")}) == [ComparedModel("s0", ("s0",))]

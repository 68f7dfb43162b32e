import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.color.ab_bins import in_gamut_bins
from common.evaluation.bootstrap import resampled, summarize
from common.evaluation.evaluate import TRIVIAL, evaluate, trivial_predictor
from common.evaluation.frechet import (
    color_histogram,
    frechet_disjoint,
    frechet_disjoint_influence,
    frechet_distance,
    frechet_influence,
)
from common.evaluation.metrics import METRICS


def sample(mean, covariance, count, seed):
    """Vectors whose own mean and covariance (over n - 1) are exactly these."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    white = np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))) @ x.T
    return (np.linalg.cholesky(covariance) @ white).T + mean


def random_covariance(dimension, seed):
    factor = np.random.default_rng(seed).normal(size=(dimension, dimension))
    return factor @ factor.T + 0.1 * np.eye(dimension)


def test_two_gaussians_of_known_mean_and_covariance():
    one = sample(np.array([1.0, 2.0]), np.diag([4.0, 9.0]), 50, 0)
    other = sample(np.array([4.0, -2.0]), np.diag([1.0, 25.0]), 80, 1)
    # |m|^2 = 25; of commuting covariances, the sum of (s1 - s2)^2 = (2 - 1)^2 + (3 - 5)^2
    assert frechet_distance(one, other) == pytest.approx(25 + 1 + 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_against_the_root_of_scipy(seed, dimension):
    c1, c2 = random_covariance(dimension, seed), random_covariance(dimension, seed + 1)
    mean = np.arange(dimension) / 3
    expected = mean @ mean + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)
    got = frechet_distance(sample(mean, c1, 40, seed), sample(0 * mean, c2, 30, seed + 2))
    assert got == pytest.approx(expected, rel=1e-6)


def test_fewer_vectors_than_dimensions():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(7, 40)), rng.normal(size=(9, 40)) * 2 + 0.5
    c1, c2 = (np.cov(x, rowvar=False) for x in (one, other))
    roots = np.sqrt(np.clip(np.linalg.eigvals(c1 @ c2).real, 0, None)).sum()
    expected = np.square(one.mean(axis=0) - other.mean(axis=0)).sum() + np.trace(c1 + c2) - 2 * roots
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(frechet_distance(one[:0], other))
    assert frechet_distance(one[:1], other[:1]) == pytest.approx(np.square(one[0] - other[0]).sum())


@pytest.mark.parametrize("shape", [(60, 5), (12, 30)])
def test_the_distance_to_the_same_set_in_any_order_is_0(shape):
    x = np.random.default_rng(0).normal(size=shape)
    assert frechet_distance(x, x[::-1]) < 1e-9
    assert np.abs(frechet_influence(x, x[::-1])).max() < 1e-9
    assert frechet_distance(x, 1.5 * x) == pytest.approx(
        np.square(x.mean(axis=0) / 2).sum() + np.trace(np.cov(x, rowvar=False)) / 4
    )


@pytest.mark.parametrize(("statistic", "influence"), [
    (frechet_distance, frechet_influence), (frechet_disjoint, frechet_disjoint_influence),
])  # fmt: skip
@pytest.mark.parametrize("dimension", [3, 15])
def test_influence_is_the_derivative_by_a_photographs_weight(statistic, influence, dimension):
    rng = np.random.default_rng(1)
    values, reference = rng.normal(size=(2, 24, dimension)) * [[[1.0]], [[1.6]]] + [[[0.4]], [[0.0]]]
    copies = 200  # an even number of rows to a copy keeps who is in which half
    many = [np.tile(x, (copies, 1)) for x in (values, reference)]
    base, each = statistic(*many), influence(*many)
    assert each.mean() == pytest.approx(0, abs=1e-9)
    for i in (0, 6, 22):
        more = [np.concatenate([x, x[[i, i + 1]]]) for x in many]
        moved = (statistic(*more) - base) * len(more[0])
        assert moved == pytest.approx(each[i] + each[i + 1], rel=0.03, abs=0.02)


def test_the_interval_contains_the_estimate_and_has_the_width_of_a_plain_bootstrap():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(300, 8))
    values = 0.6 * reference + 0.3 * rng.normal(size=(300, 8)) + 0.2
    metric = METRICS["frechet_color"]
    ours, plain = (resampled(m, values, reference) for m in (metric, metric._replace(influence=None)))
    assert ours.std() == pytest.approx(plain.std(), rel=0.15)
    cell = summarize(metric, values, reference)
    assert cell["low"] < cell["mean"] < cell["high"]
    assert plain.mean() > ours.mean()  # a resample is a smaller sample: biased once more


def test_disjoint_compares_no_photograph_with_itself():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(40, 3))
    expected = (frechet_distance(truth[::2], truth[1::2]) + frechet_distance(truth[1::2], truth[::2])) / 2
    assert frechet_disjoint(truth, truth) == pytest.approx(expected)
    assert expected > 0.01
    assert frechet_distance(truth, truth) < 1e-12
    assert np.isnan(frechet_disjoint(truth[:1], truth[:1]))


def test_soft_histogram_of_constructed_colors():
    nodes = [tuple(bin) for bin in in_gamut_bins(20).tolist()]
    assert len(nodes) == 77

    def shares(*colors):
        ab = torch.tensor(colors, dtype=torch.float32).T.reshape(1, 2, 1, -1)
        found = color_histogram(ab)[0]
        assert float(found.sum()) == pytest.approx(1)
        return {nodes[i]: round(float(found[i]), 4) for i in found.nonzero()[:, 0].tolist()}

    assert shares((0, 0)) == {(0, 0): 1}
    assert shares((20, -40), (20, -40), (0, 0), (0, 0)) == {(20, -40): 0.5, (0, 0): 0.5}
    assert shares((10, 0)) == {(0, 0): 0.5, (20, 0): 0.5}
    assert shares((5.4, 0.9)) == pytest.approx({(0, 0): 0.7, (20, 0): 0.3}, abs=0.06)  # rounded to 2 units
    assert sum(shares((500, 500), (-300, 10)).values()) == pytest.approx(1)  # no color is lost


def test_the_palette_of_photographs(demo_pack):
    rows = {name: trivial_predictor(name, demo_pack) for name in TRIVIAL}
    rows["half"] = lambda batch, rows: batch.ab / 2
    result = evaluate(rows, demo_pack, ["frechet_color", "rmse_ab"])
    numbers = {row: cells["frechet_color"]["mean"] for row, cells in result.table.items()}
    assert result.values["grey"]["frechet_color"].shape == (len(demo_pack), 77)
    assert numbers["original"] < 1e-9
    assert numbers["shuffled"] < 0.05  # the same set of colors, except for those outside of sRGB at their new L
    assert result.table["shuffled"]["rmse_ab"]["mean"] > 10
    assert numbers["grey"] > 2 * numbers["half"] > 0.02
    cell = result.table["grey"]["frechet_color"]
    assert cell["low"] < cell["mean"] < cell["high"]

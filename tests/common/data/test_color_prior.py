import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.color.ab_bins import ABBins
from common.color.lab import rgb8_to_lab
from common.data.color_prior import ab_planes, compute_prior, read_prior, smoothed
from common.data.packing import open_pack
from common.evaluation.evaluate import evaluate, trivial_predictor
from common.evaluation.metrics import METRICS
from common.utils.errors import UserError


@pytest.fixture
def prior(photos, tmp_path):
    return compute_prior(open_pack(str(photos), 32, cache=str(tmp_path / "c")))


def index_of(bins, a, b):
    return int(((bins - torch.tensor([a, b])).abs().sum(dim=1) == 0).nonzero())


def test_counts_are_of_hard_bins_and_grey_photographs_are_skipped(photos, tmp_path):
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(photos / "grey.png")
    pack = open_pack(str(photos), 32, cache=str(tmp_path / "c"))
    prior = compute_prior(pack, sigma=0)
    assert prior.photographs == 12
    assert len(pack) == 13
    lab = rgb8_to_lab(torch.from_numpy(np.array(pack.images[pack.color_indices])).permute(0, 3, 1, 2))
    cells, counts = (lab[:, 1:].movedim(1, -1).reshape(-1, 2) / 10).round().unique(dim=0, return_counts=True)
    bins = ABBins(10).ab_bins
    for cell, count in zip(cells, counts, strict=True):
        assert float(prior.p[index_of(bins, *(cell * 10))]) == pytest.approx(int(count) / int(counts.sum()))
    assert float(prior.p.sum()) == pytest.approx(1)


def test_smoothing_is_a_gaussian_in_the_ab_plane():
    """The four neighbors of a bin get equal shares, whatever their index; distant bins get nothing."""
    bins = ABBins(10).ab_bins
    counts = torch.ones(len(bins), dtype=torch.int64)
    counts[index_of(bins, 0, 0)] = 10_000_000
    p = smoothed(counts, bins, sigma=5)
    sides = [float(p[index_of(bins, *place)]) for place in ((10, 0), (-10, 0), (0, 10), (0, -10))]
    middle = float(p[index_of(bins, 0, 0)])
    assert sides == pytest.approx([np.exp(-2) * middle] * 4, rel=1e-4)
    assert float(p[index_of(bins, 10, 10)]) == pytest.approx(np.exp(-4) * middle, rel=1e-4)
    assert float(p[index_of(bins, 60, 60)]) < 1e-6
    assert float(p.sum()) == pytest.approx(1)


def test_a_bin_that_was_never_seen_stays_at_zero():
    bins = ABBins(10).ab_bins
    counts = torch.zeros(len(bins), dtype=torch.int64)
    counts[index_of(bins, 0, 0)] = 5
    p = smoothed(counts, bins, sigma=5)
    assert float(p.max()) == 1
    assert int((p > 0).sum()) == 1


def test_reading_a_prior_returns_what_was_saved(prior, tmp_path):
    prior.save(tmp_path / "p.json")
    again = read_prior(tmp_path / "p.json")
    assert torch.equal(again.p, prior.p)
    assert replace(again, p=None) == replace(prior, p=None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p": [float("nan")] * 261}, "holds NaN or infinity"),
        ({"p": [-1.0] + [2.0 / 260] * 260}, "holds a negative value"),
        ({"p": [0.5, 0.5]}, "holds 2 values of sum 1: grid 10 has 261 bins"),
        ({"p": [1.0] * 261}, "of sum 261"),
        ({"p": "many"}, "is damaged"),
        ({"grid": 0}, "grid is 0"),
        ({"format": "another"}, "is not a prior: run python -m"),
    ],
)
def test_an_invalid_prior_is_refused_in_one_sentence(prior, tmp_path, change, says):
    path = tmp_path / "p.json"
    prior.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=says) as caught:
        read_prior(path)
    assert "\n" not in str(caught.value)


def test_another_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prior(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("not JSON")
    with pytest.raises(UserError, match="is not a prior"):
        read_prior(tmp_path / "text.json")


def test_photographs_without_color_have_no_prior(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(np.full((40, 40, 3), 50 * i, np.uint8)).save(tmp_path / "in" / f"{i}.png")
    pack = open_pack(str(tmp_path / "in"), 32, cache=str(tmp_path / "c"))
    with pytest.raises(UserError, match="are grey: a prior needs color"):
        compute_prior(pack)
    # evaluation still works
    table = evaluate({"grey": trivial_predictor("grey", pack)}, pack).table
    assert table["grey"]["auc_rebalanced"]["mean"] == pytest.approx(1, abs=1e-4)


def test_rebalanced_auc_by_its_definition(demo_pack, prior):
    """Each pixel weighted by 1 / p of its true bin, the weights normalized once over the whole set."""
    table = evaluate({"half": lambda batch, rows: batch.ab / 2}, demo_pack, ["auc_rebalanced"], prior=prior).table
    bins = ABBins(10).ab_bins
    total = weights = 0.0
    for image in demo_pack.images:
        ab = rgb8_to_lab(torch.from_numpy(np.array(image)).permute(2, 0, 1))[1:].reshape(2, -1).T
        p = prior.p[torch.cdist(ab.double(), bins.double()).argmin(dim=1)]
        w = torch.where(p > 0, 1 / p, 0.0)
        total += float((w * (1 - (ab / 2).norm(dim=1).clamp(max=150) / 150)).sum())
        weights += float(w.sum())
    found = table["half"]["auc_rebalanced"]
    assert found["mean"] == pytest.approx(total / weights, rel=1e-5)
    assert found["low"] <= found["mean"] <= found["high"]


def test_rebalanced_auc_asks_more_of_grey_than_auc_does(demo_pack):
    result = evaluate({n: trivial_predictor(n, demo_pack) for n in ("grey", "original")}, demo_pack)
    assert result.table["grey"]["auc_rebalanced"]["mean"] < result.table["grey"]["auc"]["mean"] - 0.05
    assert result.table["original"]["auc_rebalanced"]["mean"] == 1
    assert result.protocol["prior"].startswith(f"{len(demo_pack.color_indices)} photographs of demo, grid 10")
    assert METRICS["auc_rebalanced"].better == "higher"
    assert "prior" not in evaluate({}, demo_pack, ["auc"]).protocol


def test_the_plot_of_a_plane_has_bins_at_their_places():
    bins = ABBins(10).ab_bins
    one = torch.zeros(len(bins))
    one[index_of(bins, 40, 40)] = 1.0
    other = torch.zeros(len(bins))
    other[index_of(bins, -40, 40)] = 1.0
    right, left = (ab_planes({"x": values}, 10, "share") for values in (one, other))
    changed = np.flatnonzero((right != left).any(axis=(0, 2)))
    assert right.shape == left.shape
    assert changed.max() - changed.min() > 60  # a red cell and a green one, far apart

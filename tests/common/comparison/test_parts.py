"""The parts of a report, each against what can be said of it without the code."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from skimage.color import rgb2lab

from common.comparison.groups import compared_models
from common.comparison.paired import compare_rows
from common.comparison.report import charts
from common.comparison.report.ab_histograms import AB_REACH, count_colors, gamut_outline
from common.comparison.report.findings import findings, in_words, pairs_in_words
from common.comparison.report.pictures import extremes, jpeg_uri, random_indices
from common.evaluation.cost import measure_cost
from common.evaluation.evaluate import evaluate, measured_indices
from common.evaluation.metrics import METRICS
from tests.common.packs import pack_of


def test_colors_are_counted_where_they_are(demo_pack):
    def red(batch, rows):
        ab = torch.zeros_like(batch.ab)
        ab[:, 0], ab[:, 1] = 41.0, -3.0
        return ab

    found = count_colors({"red": red, "true": lambda batch, rows: batch.ab}, demo_pack, batch_size=7)
    pixels = found.photographs * demo_pack.size**2
    assert found.photographs == len(demo_pack)
    assert {int(counts.sum()) for counts in [*found.plane.values(), *found.chroma.values()]} == {pixels}
    assert found.plane["red"][(AB_REACH - 3) // 2, (AB_REACH + 41) // 2] == pixels
    assert np.array_equal(found.plane["true"], found.plane["original"])
    assert np.count_nonzero(found.chroma["true"] - np.diag(np.diag(found.chroma["true"]))) == 0
    assert found.correlation("true") == pytest.approx(1)
    assert found.correlation("red") is None  # a constant


def test_correlation_of_chroma_is_numpys(demo_pack):
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(0, 10, (len(demo_pack), 2, 32, 32))).float()
    found = count_colors({"noisy": lambda batch, rows: batch.ab + noise[rows]}, demo_pack)
    true = demo_pack.lab(slice(None))[1]
    by_numpy = np.corrcoef(true.norm(dim=1).flatten(), (true + noise).norm(dim=1).flatten())[0, 1]
    assert found.correlation("noisy") == pytest.approx(by_numpy, abs=0.01)


def test_the_outline_goes_around_what_srgb_shows():
    (line,) = gamut_outline()
    colors = np.random.default_rng(0).random((1, 20000, 3))
    assert Outline(line).contains_points(rgb2lab(colors)[0, :, 1:]).mean() > 0.999
    assert not Outline(line).contains_points([[90, -20], [-60, -60], [100, 100], [-95, 0]]).any()


@pytest.mark.parametrize(("length", "count"), [(20, 5), (7, None), (3, 10)])
def test_photographs_are_spread_as_evaluate_does(demo_pack, length, count):
    pack = pack_of(list(demo_pack.images[:length]))
    assert len(measured_indices(pack, count)) == min(length, count or length)
    seen = []
    evaluate({"x": lambda batch, rows: seen.extend(rows) or batch.ab}, demo_pack, ["mae_ab"], limit=count)
    assert measured_indices(demo_pack, count).tolist() == seen


def test_multiply_adds_and_memory_of_a_convolution(demo_pack):
    network = torch.nn.Conv2d(1, 2, 5, padding=2, bias=False)

    def predict(batch, rows):
        hidden = network(batch.L)
        return hidden.view(hidden.shape) + 1  # a view is no memory, the sum is

    found = measure_cost(predict, demo_pack, torch.device("cpu"), 4)
    assert found["multiply_adds"] == 5 * 5 * 2 * 32 * 32
    assert found["memory"] == 2 * (2 * 32 * 32 * 4)
    assert found["memory_batched"] == 4 * found["memory"]
    assert 0 < found["ms_batched"] < 1000
    assert found["batch"] == 4


def test_memory_that_is_let_go_does_not_add_up(demo_pack):
    def predict(batch, rows):
        x = batch.ab + 1
        for _ in range(10):
            x = x + 1
        return x

    assert measure_cost(predict, demo_pack, torch.device("cpu"), 1)["memory"] == 2 * (2 * 32 * 32 * 4)


def test_extremes_are_of_photographs_in_color(demo_pack):
    values = np.arange(len(demo_pack), dtype=float)
    values[4] = np.nan
    best, worst = extremes(values, np.arange(len(demo_pack)), demo_pack, higher=False)
    assert best == [0, 1, 2]
    assert worst == [19, 18, 17]
    assert extremes(values, np.arange(len(demo_pack)), demo_pack, higher=True) == (worst, best)


def test_a_random_choice_is_of_its_seed(demo_pack):
    assert random_indices(demo_pack, 5, 1) == random_indices(demo_pack, 5, 1)
    assert random_indices(demo_pack, 5, 1) != random_indices(demo_pack, 5, 2)
    assert random_indices(demo_pack, 99, 0) == list(range(len(demo_pack)))


def test_pictures_keep_their_color(demo_pack):
    """Alternating red and blue columns, which a JPEG with subsampled chroma would turn purple."""
    import base64
    import io

    from PIL import Image

    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 220, 220
    data = base64.b64decode(jpeg_uri(stripes).split(",")[1])
    back = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(back - stripes).mean() < 12
    large = base64.b64decode(jpeg_uri(np.zeros((500, 500, 3), np.uint8)).split(",")[1])
    assert Image.open(io.BytesIO(large)).size == (192, 192)


def test_a_dot_is_where_its_number_is():
    rows = [
        {"title": f"r{m}", "mean": m, "low": m - 1, "high": m + 1, "mark": mark, "trivial": False}
        for m, mark in [(10, "★"), (20, ""), (14, "☆")]
    ]
    rows.insert(1, rows[0] | {"mean": None, "low": None, "high": None})
    svg = ElementTree.fromstring(charts.dot_chart("m", rows, truth=15.0))
    dots = [(float(c.get("cx")), c.get("class")) for c in svg.iter("circle")]
    x10, x20, x14 = (x for x, _ in dots)
    assert (x14 - x10) / (x20 - x10) == pytest.approx(0.4, abs=1e-3)
    assert [kind for _, kind in dots] == ["dot best", "dot plain", "dot level"]
    (truth,) = [line for line in svg.iter("line") if line.get("class") == "truth"]
    assert (float(truth.get("x1")) - x10) / (x20 - x10) == pytest.approx(0.5, abs=1e-3)


def test_a_curve_goes_where_its_numbers_go():
    series = [{"title": "a<b", "index": 11, "x": [0, 10, 20, 30], "y": [100.0, float("nan"), 10.0, 1.0]}]
    svg = ElementTree.fromstring(charts.line_chart("t", series, logarithmic=True))
    (line,) = svg.iter("polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert len(points) == 3
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(2 / 3, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.5, abs=0.01)
    assert (line.get("class"), line.get("stroke-dasharray")) == ("curve s1", "6 3")
    assert len(ElementTree.fromstring(charts.line_chart("nothing", []))) == 0


def test_charts_of_counts_are_drawings():
    counts = np.zeros((110, 110), dtype=int)
    for svg in (charts.plane_chart("x", counts), charts.chroma_chart("x", counts[:60, :60] + 3)):
        assert re.search(r"data:image/png;base64,", svg)
        assert ElementTree.fromstring(svg).get("viewBox")


def sentences(**rows):
    values = {row: {"mae_ab": np.asarray(v)} for row, v in rows.items()}
    references = {"mae_ab": np.ones(len(next(iter(rows.values()))))}
    table = {row: {"mae_ab": {"mean": float(np.mean(v)), "low": 0.0, "high": 0.0}} for row, v in rows.items()}
    who = compared_models(rows, [row for row in rows if row != "grey"])
    return compare_rows(values, references, {"mae_ab": METRICS["mae_ab"]}, who, table)


def test_sentences_say_what_the_statistics_say():
    hard = np.random.default_rng(0).gamma(3, 4, 100)
    wobble = np.random.default_rng(1).normal(0, 1, 100)
    found = sentences(good=hard, twin=hard + wobble, bad=hard + 2 + wobble, grey=hard + 1)
    assert in_words(found, "good", "bad") == "good is significantly better than bad on mae_ab."
    assert in_words(found, "bad", "good") == "bad is significantly worse than good on mae_ab."
    assert in_words(found, "good", "twin") == "good and twin do not differ significantly on mae_ab."
    assert len(pairs_in_words(found)) == 3
    best = found.best("mae_ab")
    told = findings(found)
    other = {"good": "twin", "twin": "good"}[best]
    assert told[0] == f"{best} is best on mae_ab (not significantly better than {other})."
    assert "grey is significantly better than bad on mae_ab." in told
    dull = findings(sentences(a=hard + wobble, b=hard + 3, grey=hard))
    assert "No model is significantly better than grey, the uncolored photograph, on mae_ab." in dull
    assert findings(sentences(a=hard, b=hard + 3))[0] == "a is significantly better than all others on mae_ab."
    assert findings(sentences(a=hard, grey=hard + 1 + wobble)) == ["a is significantly better than grey on mae_ab."]

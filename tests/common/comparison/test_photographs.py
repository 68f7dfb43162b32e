"""Results by the number of training photographs."""

import numpy as np
import pytest
from PIL import Image

from common.comparison.groups import ComparedModel
from common.comparison.paired import compare_rows
from common.comparison.report.photographs import Line, by_photographs, photograph_lines
from common.comparison.report.plots import draw_bars, draw_by_photographs
from common.evaluation.metrics import METRICS

NAMES = ["rmse_ab", "auc"]


def card(loss, limit, seed=0, count=1000, grey=10):
    config = {"model": {"loss": loss}, "data": {"train_limit": limit}, "seed": seed, "run": f"runs/{seed}"}
    return {"config": config, "trained_on": {"count": limit or count, "grey": 0 if limit else grey, "content": "c"}}


def comparison_of(levels, members=None):
    """Models with rmse_ab about the given levels, and an auc that falls with them, on 40 photographs."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 40)
    values = {
        title: {"rmse_ab": 10 + level + base + rng.normal(0, 0.05, 40), "auc": 0.9 - level / 100 + 0 * base}
        for title, level in levels.items()
    }
    table = {
        title: {name: {"mean": float(v.mean()), "low": float(v.mean()) - 0.3, "high": float(v.mean()) + 0.3}
                for name, v in columns.items()} for title, columns in values.items()
    }  # fmt: skip
    who = members or [ComparedModel(title, (title,), title == "grey") for title in levels]
    return compare_rows(values, {}, {name: METRICS[name] for name in NAMES}, who, table)


def test_models_that_differ_only_in_their_photographs_form_a_line():
    titles = {"l2-100": card("mse", 100), "l2-1000": card("mse", 1000), "l2-all": card("mse", None, count=9000),
              "other-100": card("cross_entropy", 100), "other-1000": card("cross_entropy", 1000),
              "alone": card("l1", 100)}  # fmt: skip
    comparison = comparison_of({**dict.fromkeys(titles, 0.0), "grey": 1.0})
    lines = photograph_lines(comparison, titles)
    assert lines == [
        Line("l2", ((100, "l2-100"), (1000, "l2-1000"), (8990, "l2-all"))),
        Line("other", ((100, "other-100"), (1000, "other-1000"))),
    ]


def test_seeds_of_a_model_are_one_point():
    rows = {f"l2-{n}-seed{s}": card("mse", n, s) for n in (100, 1000) for s in (0, 1)}
    who = [ComparedModel(f"l2-{n}", (f"l2-{n}-seed0", f"l2-{n}-seed1")) for n in (100, 1000)]
    comparison = comparison_of(dict.fromkeys(rows, 0.0), who)
    assert photograph_lines(comparison, rows) == [Line("l2", ((100, "l2-100"), (1000, "l2-1000")))]


@pytest.mark.parametrize(
    "cards",
    [
        {"a": card("mse", 100), "b": card("mse", 100, seed=1)},  # the same number
        {"a": card("mse", 100), "b": card("l1", 1000)},  # another loss
        {"a": card("mse", 100), "b": {"config": None}},  # an older card
    ],
)
def test_others_form_none(cards):
    assert photograph_lines(comparison_of(dict.fromkeys(cards, 0.0)), cards) == []


def test_sentences_name_the_best_at_each_number():
    """a is better on few photographs, b on many."""
    levels = {"a-100": 0.0, "b-100": 2.0, "a-1000": 0.0, "b-1000": -2.0, "grey": -5.0}
    lines = [Line(name, ((100, f"{name}-100"), (1000, f"{name}-1000"))) for name in "ab"]
    few, many = by_photographs(comparison_of(levels), lines)
    assert few == "Trained on 100 photographs, best is a (significantly better than b) on rmse_ab and auc."
    assert many == "Trained on 1,000 photographs, best is b (significantly better than a) on rmse_ab and auc."
    (level,) = by_photographs(
        comparison_of({"a-9": 0.0, "b-9": 0.0}), [Line("a", ((9, "a-9"),)), Line("b", ((9, "b-9"),))]
    )
    assert "no significant difference" in level
    assert by_photographs(comparison_of({"a-100": 0.0}), lines[:1]) == []


def test_charts_show_every_model(tmp_path):
    comparison = comparison_of({"a-100": 0.0, "a-1000": -1.0, "$b_1$": 2.0, "grey": 3.0})
    draw_bars(comparison, {"rmse_ab": {"mean": 0.0}}, tmp_path / "bars.png")
    draw_by_photographs(comparison, [Line("a", ((100, "a-100"), (1000, "a-1000")))], tmp_path / "photographs.png")
    for name in ("bars.png", "photographs.png"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        blue = (pixels[..., 2] - pixels[..., 0] > 80).sum()
        assert blue > 200, name
    more = comparison_of({**{f"m{i}": float(i) for i in range(12)}, "grey": 3.0})
    draw_bars(more, {}, tmp_path / "more.png")
    with Image.open(tmp_path / "more.png") as tall, Image.open(tmp_path / "bars.png") as short:
        assert tall.height > 1.5 * short.height

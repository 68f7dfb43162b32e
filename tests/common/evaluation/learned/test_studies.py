"""Metrics that train a network, measured by the real entry point."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from common.evaluation.evaluate import evaluate, trivial_predictor
from common.evaluation.learned import real_fake_classifier, semantics
from common.evaluation.learned.small_classifier import Recipe
from common.evaluation.learned.studies import STUDIES, required_rows
from common.evaluation.metrics import METRICS, pick_metrics
from common.utils.errors import UserError
from scripts import evaluate as script
from tests.common.packs import flat, painted

TINY = Recipe(width=8, blocks=(1, 1, 1, 1), steps=8, batch_size=16, checks=2)


@pytest.fixture
def quick(monkeypatch):
    """Studies with very short training; returns the list of the classified predictors."""
    done = []
    measured, trained = real_fake_classifier.accuracy_values, semantics.trained_recognizer

    def accuracy_values(predict, *args, **options):
        done.append(predict)
        return measured(predict, *args, **options, recipe=TINY)

    monkeypatch.setattr(real_fake_classifier, "accuracy_values", accuracy_values)
    monkeypatch.setattr(semantics, "trained_recognizer", partial(trained, recipe=TINY))
    return done


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Twelve photographs in two class folders, and as many others to train on: (measured, training)."""
    folders = tmp_path_factory.mktemp("measured"), tmp_path_factory.mktemp("teaching")
    for k, folder in enumerate(folders):
        for i in range(12):
            (folder / ("day", "night")[i % 2]).mkdir(exist_ok=True)
            image = painted(40 * k + i) if i % 2 else flat((200, 120, 40), 40 * k + i)
            Image.fromarray(image).save(folder / ("day", "night")[i % 2] / f"{k}_{i}.png")
    return folders


def test_studies_are_metrics_that_are_not_measured_by_default():
    assert set(STUDIES) < set(METRICS)
    assert not set(STUDIES) & set(pick_metrics(None))
    assert list(pick_metrics(["judge", "auc"])) == ["real_fake_classifier", "auc"]
    with pytest.raises(UserError, match=r"'jugde' is not a metric.*did you mean 'judge'"):
        pick_metrics(["jugde"])
    assert required_rows(["judge", "rmse_ab"]) == required_rows(None) == []
    assert required_rows(["rmse_ab", "semantics"]) == ["grey", "original"]


def test_evaluate_alone_does_not_measure_studies(demo_pack):
    """It adds a note that says why, and measures the other metrics."""
    result = evaluate({"grey": trivial_predictor("grey", demo_pack)}, demo_pack, ["real_fake_classifier", "mae_ab"])
    assert result.table["grey"]["real_fake_classifier"]["mean"] is None
    assert "trains a network" in result.protocol["notes"]["real_fake_classifier"]
    assert result.table["grey"]["mae_ab"]["mean"] > 1


@pytest.mark.slow
def test_studies_are_in_the_table_if_they_are_named(classes, quick, tmp_path, capsys):
    measured, teaching = map(str, classes)
    out = tmp_path / "out.json"
    argv = ["mean", f"--data={measured}", "--size=32", "--metrics", "judge", "rmse_ab", "semantics"]
    argv += [f"--semantics_from={teaching}", f"--keep={tmp_path / 'kept'}", f"--json={out}"]
    assert script.main(argv) == 0
    result = json.loads(out.read_text())
    assert list(result["mean"]) == ["real_fake_classifier", "rmse_ab", "semantics"]
    assert set(result) == {"mean", "grey", "original", "protocol"}  # semantics is read between two rows
    assert result["original"]["real_fake_classifier"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    for row in ("mean", "grey", "original"):
        cell = result[row]["semantics"]
        assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1
        assert cell["mean"] * 12 == pytest.approx(round(cell["mean"] * 12))
    said = result["protocol"]["metrics"]
    assert "half of the photographs" in said["real_fake_classifier"]
    assert teaching in said["semantics"]
    assert "12 of the 12 photographs" in said["semantics"]
    assert "notes" not in result["protocol"]
    assert len(quick) == 3
    assert "| mean | " in capsys.readouterr().out

    assert script.main(["shuffled", *argv]) == 0  # cached rows are not measured again
    assert len(quick) == 4
    again = json.loads(out.read_text())
    assert all(again[row] == result[row] for row in ("mean", "grey", "original"))
    quick.clear()
    assert script.main([*argv, "--limit", "10", f"--judge_from={teaching}", "--seed=1"]) == 0
    assert len(quick) == 3
    assert (
        f"trained on 12 photographs of `{teaching}`"
        in json.loads(out.read_text())["protocol"]["metrics"]["real_fake_classifier"]
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--metrics", "mae_ab", "semantics"], "semantics needs a network: name a source"),
        (
            ["--metrics", "mae_ab", "semantics", "--semantics_network", "resnet5000"],
            "--semantics_network is resnet5000: expected a name",
        ),
        (["--metrics", "mae_ab", "semantics", "--semantics_from", "demo"], "demo has no class folders to learn from"),
        (["--metrics", "mae_ab", "semantics", "--semantics_from", "nowhere"], "source nowhere is neither a folder"),
        (["--metrics", "mae_ab", "judge", "--limit", "5"], "real_fake_classifier needs 8 color photographs or more"),
        (
            ["--metrics", "mae_ab", "judge", "--judge_from", "demo", "--limit", "5"],
            "real_fake_classifier needs 8 color photographs",
        ),
    ],
)
def test_a_study_that_fails_is_one_sentence_and_the_rest_is_measured(classes, argv, says, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert script.main(["grey", f"--data={classes[0]}", "--size=32", *argv, f"--json={out}"]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert says in told[0]
    result = json.loads(out.read_text())
    study = argv[2].replace("judge", "real_fake_classifier")
    assert result["grey"]["mae_ab"]["mean"] > 1
    assert result["grey"][study] == {"mean": None, "low": None, "high": None}
    assert says in result["protocol"]["notes"][study]


def test_values_of_a_row_do_not_depend_on_other_rows_or_the_cache(classes, quick, tmp_path):
    """A row has the same numbers alone, with other rows, and without a cache."""
    argv = [f"--data={classes[0]}", "--size=32", "--metrics", "judge", "--no_keep"]
    values = []
    for rows in (["grey"], ["mean", "grey", "original"]):
        out = tmp_path / "out.json"
        assert script.main([*rows, *argv, f"--json={out}"]) == 0
        values.append(json.loads(out.read_text())["grey"]["real_fake_classifier"])
    assert values[0] == values[1]
    assert np.isfinite(values[0]["mean"])

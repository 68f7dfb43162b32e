"""The real entry points, on a few pictures."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from common.color.lab import rgb8_to_lab
from common.data.sources import list_photos
from common.imaging.read import open_image
from common.training.logger import read_metrics
from scripts import benchmark, colorize, colorize_page, compare, evaluate, train, turing
from tests.conftest import ROOT, photo_array


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A regressor trained for a moment."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    argv = ["--family=baselines", "--model.network=resnet18", "--steps=12", "--data.size=32", "--batch_size=8"]
    assert train.main([*argv, f"--run={folder}", "--eval_every=6", "--optim.lr=0.003"]) == 0
    return folder


def test_evaluate_writes_means_intervals_and_protocol(run, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert evaluate.main([str(run), "grey", "mean", "original", "--data=demo", "--size=32", f"--json={out}"]) == 0
    result = json.loads(out.read_text())
    assert set(result) == {"tiny", "grey", "mean", "original", "protocol"}
    assert set(result["grey"]["rmse_ab"]) == {"mean", "low", "high"}
    assert result["grey"]["rmse_ab"]["low"] < result["grey"]["rmse_ab"]["mean"] < result["grey"]["rmse_ab"]["high"]
    assert result["protocol"]["models"]["tiny"]["steps"] == 12
    assert result["protocol"]["mean_of"] == "the training photographs of `tiny`"
    printed = capsys.readouterr().out
    assert "| tiny | " in printed
    assert f"{result['tiny']['rmse_ab']['mean']:.2f}" in printed


def test_mean_colors_and_samples_are_tables(run, tmp_path, capsys):
    csv, sheet = tmp_path / "means.csv", tmp_path / "samples.png"
    argv = [str(run), "grey", "--data=demo", "--size=32", "--limit=4", "--metrics", "rmse_ab"]
    assert evaluate.main([*argv, f"--mean_chroma={csv}", "--draws=2", f"--draws_sheet={sheet}"]) == 0
    printed = capsys.readouterr().out
    assert "| MSE | " in printed
    assert "| tiny | 0.00 ± 0.00 |" in printed  # a regressor has no noise
    assert len(csv.read_text().splitlines()) == 1 + 2 * 4
    assert Image.open(sheet).width > 32 * 4


def test_photographs_are_grouped_by_their_names(run, photos, tmp_path, capsys):
    """Photographs in a sub-folder and those beside it are two groups; without --group, there are twelve."""
    argv = ["--split=all", f"--data={photos}", "--size=32", "--metrics", "rmse_ab"]
    found = {}
    for name, more in {"two": ["--group", "deep|photo"], "each": []}.items():
        out = tmp_path / f"{name}.json"
        assert evaluate.main(["grey", "original", *argv, f"--json={out}", *more]) == 0
        found[name] = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert "2 groups (`deep|photo` names the group). No difference is marked" in printed
    assert found["each"]["protocol"]["groups"] == 12
    assert found["two"]["grey"]["rmse_ab"]["mean"] == found["each"]["grey"]["rmse_ab"]["mean"]
    assert found["two"]["grey"]["rmse_ab"]["low"] != found["each"]["grey"]["rmse_ab"]["low"]
    out = tmp_path / "compared"
    argv = [str(run), f"again={run}/best.safetensors", *argv, f"--out={out}", "--photos=2", "--group", "deep|photo"]
    assert compare.main(argv) == 0
    whole = json.loads((out / "results.json").read_text())
    assert whole["protocol"]["groups"] == 2
    assert all(pair["groups"] == 2 and not pair["significant"] for pair in whole["comparison"]["paired"])
    assert "2 groups (`deep|photo` names the group). No difference is marked" in (out / "table.md").read_text()


def test_a_row_that_cannot_be_read_does_not_spoil_the_others(run, tmp_path, capsys):
    argv = ["--data=demo", "--size=32", "--metrics", "rmse_ab"]
    assert evaluate.main([f"mine={run}", f"{tmp_path}/none.safetensors", *argv]) == 1
    captured = capsys.readouterr()
    assert "| mine | " in captured.out
    assert "none.safetensors is not a run folder" in captured.err


def test_compare_writes_table_grid_and_curves(run, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [str(run), f"again={run}/best.safetensors", "--data=demo", "--seen=demo", f"--out={out}", "--photos=3"]
    assert compare.main([*argv, "--metrics", "rmse_ab", "auc"]) == 0
    assert {"report.html", "table.md", "results.json", "grid.png", "curves.png"} <= {p.name for p in out.iterdir()}
    table = (out / "table.md").read_text()
    for row in ("grey", "mean", "shuffled", "original", "tiny", "again"):
        assert f"| {row} | " in table
    width, height = Image.open(out / "grid.png").size
    assert width > 4 * 32  # grey, two models, original
    assert height > 5 * 32  # three photographs, and two that were seen in training


def test_a_classifier_gets_a_row_for_each_temperature(run, tmp_path, capsys):
    argv = ["--family=classification", "--model.width=0.25", "--steps=6", "--data.size=32", "--batch_size=8"]
    argv += [f"--run={tmp_path / 'c'}", "--sample_every=6"]
    assert train.main(argv) == 0
    assert (tmp_path / "c" / "bins" / "00000006.png").exists()
    (line,) = read_metrics(tmp_path / "c", "diagnosis")
    assert {"greyest_bins/prior", "greyest_bins/true", "greyest_bins/most_likely"} <= set(line)
    out, argv = tmp_path / "out.json", ["--data=demo", "--size=32", "--metrics", "rmse_ab", "auc_rebalanced"]
    argv += ["--temperature", "0.1", "1", f"--json={out}"]
    assert evaluate.main([str(run), str(tmp_path / "c"), "grey", *argv]) == 0
    result = json.loads(out.read_text())
    assert set(result) == {"tiny", "c T=0.1", "c T=1", "grey", "protocol"}
    assert result["c T=0.1"]["rmse_ab"]["mean"] > result["c T=1"]["rmse_ab"]["mean"]  # the mode is off by more
    assert "`auc_rebalanced` weights each pixel by 1 / p of its true color" in capsys.readouterr().out
    assert evaluate.main([str(run), "grey", *argv]) == 2
    assert "requires a classification model" in capsys.readouterr().err


def test_a_source_that_was_trained_on_is_measured_where_it_was_not(photos, tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["--family=baselines", "--model.network=resnet18", "--steps=1", "--data.size=32", "--batch_size=2"]
    assert train.main([*argv, f"--run={run}", f"--data.train={photos}", "--data.val_fraction=0.3"]) == 0
    out = tmp_path / "out.json"
    assert evaluate.main([str(run), f"--data={photos}", "--metrics", "mae_ab", f"--json={out}"]) == 0
    protocol = json.loads(out.read_text())["protocol"]
    held_out = {p.name for p in list_photos(str(photos)).of_split("val", 0.3)}
    assert protocol["split"] == "val"
    assert protocol["count"] == len(held_out)
    assert protocol["size"] == 32
    assert "the rest is measured" in capsys.readouterr().err


def lightness(rgb):
    return rgb8_to_lab(torch.from_numpy(rgb).permute(2, 0, 1))[0]


def write_odd_files(folder):
    """Pictures of every kind, and things that are none: name -> whether it can be colorized."""
    folder.mkdir()
    rgb = photo_array(5, 60, 90)
    Image.fromarray(rgb[:1, :1]).save(folder / "one.png")
    Image.fromarray(rgb).resize((1250, 750)).save(folder / "large.jpg", quality=90)
    Image.fromarray(np.linspace(0, 65535, 5400).reshape(60, 90).astype(np.uint16)).save(folder / "grey16.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    Image.fromarray(rgb).quantize(32).save(folder / "palette.png", transparency=5)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(folder / "rotated.jpg", exif=exif.tobytes(), quality=90)
    Image.fromarray(rgb).convert("1").save(folder / "bilevel.tif", compression="group4")
    Image.fromarray(rgb[:1]).save(folder / "line.webp")
    good = {p.name: True for p in folder.iterdir()}
    (folder / "cut.jpg").write_bytes((folder / "large.jpg").read_bytes()[:3000])
    (folder / "text.jpg").write_text("this is text")
    (folder / "empty.png").write_bytes(b"")
    return good | {"cut.jpg": False, "text.jpg": False, "empty.png": False}


def test_colorize_odd_files(run, tmp_path, capsys):
    expected = write_odd_files(tmp_path / "in")
    out = tmp_path / "out"
    argv = [str(tmp_path / "in"), str(tmp_path / "nowhere"), f"--weights={run}", "--anyway", f"--out={out}"]
    assert colorize.main(argv) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed[-1] == "8 colorized, 0 skipped, 4 refused"
    assert {p.name for p in out.iterdir()} == {name for name, good in expected.items() if good}
    for name in (name for name, good in expected.items() if good):
        before, after = open_image(tmp_path / "in" / name), open_image(out / name)
        assert before.rgb.shape == after.rgb.shape
        share = float(((lightness(before.rgb) - lightness(after.rgb)).abs() <= 1).float().mean())
        assert share >= 0.999, (name, share)
        assert (before.alpha is None) == (after.alpha is None)
    for name in (name for name, good in expected.items() if not good):
        assert sum(name in line for line in printed) == 1, name


def test_colorize_keeps_what_exists(run, tmp_path, capsys):
    Image.fromarray(photo_array(1)).save(tmp_path / "a.png")
    argv = [str(tmp_path / "a.png"), f"--weights={run}", "--anyway"]
    assert colorize.main(argv) == 0
    made = (tmp_path / "a.color.png").read_bytes()
    assert colorize.main(argv) == 0
    assert "exists already" in capsys.readouterr().err
    assert colorize.main([*argv, "--overwrite"]) == 0
    assert (tmp_path / "a.color.png").read_bytes() == made
    assert colorize.main([*argv, f"--out={tmp_path}/named.webp"]) == 0
    assert open_image(tmp_path / "named.webp").format == "WEBP"
    assert colorize.main([*argv, str(tmp_path / "a.color.png"), f"--out={tmp_path}/one.png"]) == 2
    capsys.readouterr()
    assert colorize.main([*argv, f"--out={tmp_path}/x.gif"]) == 2
    assert "x.gif names no picture format" in capsys.readouterr().err
    assert colorize.main([str(tmp_path), f"--weights={run}", "--anyway", "--overwrite"]) == 0
    assert not list(tmp_path.glob("*.color.color.*"))  # a folder's earlier results are not colorized again


def test_large_pictures_go_in_strips_without_seams(run):
    from common.predictor import PredictorConfig, colorize_photo
    from common.registry import load_colorizer

    colorizer = load_colorizer(run)
    rgb = photo_array(7, 700, 600)
    size = colorizer.card["size"]
    whole = colorize_photo(colorizer, rgb, PredictorConfig(size))
    strips = colorize_photo(colorizer, rgb, PredictorConfig(size, strip_pixels=20_000))
    assert np.abs(whole.astype(int) - strips).max() <= 1  # sums in another order
    assert (whole != strips).mean() < 1e-3


@pytest.mark.parametrize(
    ("main", "argv", "says"),
    [
        (evaluate.main, ["grey"], "--data"),
        (evaluate.main, ["grey", "--data", "demo", "--draws", "1"], "--draws: must be 2 samples or more, got 1"),
        (evaluate.main, ["grey", "--data", "demo", "--draws_sheet", "a.png"], "must be 2 samples or more, got none"),
        (evaluate.main, ["grey", "--data", "demo", "--draws", "2"], "--draws compares samples of models"),
        (evaluate.main, ["grey", "--data", "demo", "--draws", "2", "--draws_sheet", "a.gif"], "a .png or .jpg file"),
        (evaluate.main, ["grey", "--data", "demo", "--size", "5"], "size is 5"),
        (evaluate.main, ["grey", "--data", "demo", "--metrics", "psnrr"], "'psnrr' is not a metric"),
        (evaluate.main, ["grai", "--data", "demo"], "row grai is not a run folder, a weights file"),
        (evaluate.main, ["gray", "--data", "demo"], "did you mean 'grey'?"),
        (evaluate.main, ["grey", "--data", "nowhere"], "source nowhere"),
        (evaluate.main, ["grey", "--data", "demo", "--temperature", "0"], "must be a number above 0"),
        (evaluate.main, ["grey", "--data", "demo", "--size", "32", "--prior", "none.json"], "prior none.json cannot"),
        (compare.main, ["grey", "--data", "demo", "--out", "x"], "no model is given"),
        (colorize.main, ["LICENSE", "--weights", "nowhere"], "nowhere do not exist"),
        (benchmark.main, ["infer"], "invalid choice"),
        (evaluate.main, ["grey", "--data", "demo", "--limit", "0"], "error: --limit: must be a whole number above 0"),
        (
            evaluate.main,
            ["grey", "--data", "demo", "--group", "("],
            "--group: '(' is not a regular expression (missing )",
        ),
        (
            compare.main,
            ["x", "--data", "demo", "--out", "x", "--group", "*"],
            "--group: '*' is not a regular expression",
        ),
        (
            evaluate.main,
            ["grey", "--data", "demo", "--size", "32", "--group", "china"],
            "photograph grace_hopper.jpg has no match of the group expression 'china'",
        ),
        (evaluate.main, ["grey", "--data", "demo", "--val_fraction", "2"], "must be a number between 0 and 1"),
        (evaluate.main, ["grey", "--data", "demo", "--size", "32", "--json", "/proc/x"], "/proc/x cannot be written"),
    ],
)
def test_bad_command_lines_are_one_line(main, argv, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(argv) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("demo ")]
    assert len(printed) == 1
    assert printed[0].startswith("error: ")
    assert says in printed[0]


@pytest.mark.parametrize("name", ["train", "evaluate", "compare", "colorize", "benchmark", "compute_prior"])
def test_help_shows_a_runnable_example(name):
    shown = subprocess.run(
        [sys.executable, "-m", f"scripts.{name}", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert shown.returncode == 0
    assert "examples:" in shown.stdout
    assert f"python -m scripts.{name} " in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "pix2pix"])
def test_benchmark_train(tmp_path, capsys, monkeypatch, network):
    monkeypatch.setattr("common.training.budget._steps_within", lambda run, seconds: 6)
    argv = ["train", f"--network={network}", "--data=demo", "--size=32", "--seconds=1", "--rounds=1", "--batch_size=4"]
    assert benchmark.main([*argv, f"--json={tmp_path / 'b.json'}"]) == 0
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["ratio"] == pytest.approx(figures["engine"] / figures["usual"])
    printed = capsys.readouterr().out
    assert f"({figures['ratio']:.2f} times as fast)" in printed
    assert f"training {network} at 32 px" in printed


def test_every_command_calls_a_trained_model_model():
    """Older names of the option still work."""
    for option in ("--model", "--weights", "--run"):
        assert colorize.make_parser().parse_args(["a.png", option, "runs/a"]).model == "runs/a"
    for option in ("--model", "--models"):
        assert colorize_page.make_parser().parse_args([option, "runs/a", "runs/b"]).model == ["runs/a", "runs/b"]
        argv = ["sheet", option, "runs/a", "runs/b", "--data=demo", "--out=sheet"]
        assert turing._parser().parse_args(argv).models == ["runs/a", "runs/b"]

"""The real entry point of comparison: bad input costs a sentence, not the report."""

import json
import math
import shutil
import struct

import pandas
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scripts import compare, train
from tests.conftest import photo_array

TRAIN = ["--family=baselines", "--model.network=resnet18", "--data.size=32", "--batch_size=8", "--eval_every=2"]
MEASURE = ["--metrics", "rmse_ab", "colorfulness_ratio", "--photos=2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one experiment, and a run whose folder says that it should go on."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        assert train.main([*TRAIN, "--steps=4", f"--run={root}/tiny_s{seed}", f"--seed={seed}"]) == 0
    shutil.copytree(root / "tiny_s0", root / "cut")
    config = root / "cut" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 4", "steps: 400"))
    return root


def printed(capsys):
    """What was said on stderr as errors."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return [line for line in captured.err.splitlines() if line.startswith("error: ")]


def test_a_whole_report(runs, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [f"{runs}/tiny_s0", f"{runs}/tiny_s1", "--data=demo", f"--out={out}", "--grid_seed=4", *MEASURE]
    assert compare.main(argv) == 0
    assert printed(capsys) == []
    assert {path.name for path in out.iterdir()} == {
        "report.html", "table.md", "table.csv", "table.tex", "results.json", "grid.png", "curves.png"
    }  # fmt: skip
    whole = json.loads((out / "results.json").read_text())
    assert whole["comparison"]["groups"] == {"tiny": ["tiny_s0", "tiny_s1"]}
    cell = whole["comparison"]["numbers"]["tiny"]["rmse_ab"]
    each = [whole[f"tiny_s{i}"]["rmse_ab"]["mean"] for i in (0, 1)]
    assert cell["mean"] == pytest.approx(sum(each) / 2)
    assert cell["sd_seeds"] == pytest.approx(abs(each[0] - each[1]) / math.sqrt(2))
    page = (out / "report.html").read_text()
    assert "Random selection, seed 4" in page
    assert "Training losses" in page
    assert "Seeds of one experiment are compared as one model: tiny (2)." in page
    assert "group" in set(pandas.read_csv(out / "table.csv").kind)


def test_everything_wrong_at_once(runs, tmp_path, capsys):
    """A missing run, weights that do not load, an unfinished run, small photographs, unknown metrics."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(6):
        Image.fromarray(photo_array(i, 20 if i < 2 else 40, 48)).save(photos / f"{i}.png")
    bent = tmp_path / "bent.safetensors"
    weights = runs / "tiny_s0" / "weights.safetensors"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if not k.endswith("weight")}, bent, metadata=metadata)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(struct.pack("<Q", 2) + b"{}")
    argv = [f"{runs}/tiny_s0", f"{runs}/cut", f"{tmp_path}/gone", str(bent), str(foreign), f"--data={photos}"]
    argv += ["--size=32", f"--out={tmp_path}/out", "--photos=2", "--metrics", "rmse_ab", "rmse_abb", "auc"]
    assert compare.main(argv) == 1
    lines = printed(capsys)
    assert len(lines) == 6
    for line, word in zip(
        lines,
        ["did you mean 'rmse_ab'?", "gone is not a run folder", "do not fit", "has no card of this project",
         "cut is at step 4 of 400", "2 of 6 photographs are smaller than 32 px"],
        strict=True,
    ):  # fmt: skip
        assert word in line
    whole = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(whole) == {"tiny_s0", "tiny_s0 (2)", "grey", "mean", "shuffled", "original", "protocol", "comparison"}
    assert set(whole["grey"]) == {"rmse_ab", "auc"}
    assert [f"error: {remark}" for remark in whole["comparison"]["remarks"]] == lines
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("smaller than 32 px") == 1


def test_models_of_other_sizes_are_measured_at_one(runs, tmp_path, capsys):
    argv = [f"{runs}/tiny_s0", "--data=demo", "--size=48", f"--out={tmp_path}", *MEASURE]
    assert compare.main(argv) == 0
    assert printed(capsys) == []
    assert "trained at another size than the 48 px measured: tiny_s0 (32 px)." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (float("nan"), "broken.safetensors hold NaN or infinity"),
        (1e38, "broken cannot colorize pictures of 32 px (it predicts colors that are not finite"),
    ],
)
def test_a_model_that_diverged_does_not_spoil_the_others(runs, tmp_path, capsys, factor, says):
    source = runs / "tiny_s1" / "weights.safetensors"
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    broken = {key: value * factor if value.is_floating_point() else value for key, value in load_file(source).items()}
    save_file(broken, tmp_path / "broken.safetensors", metadata=metadata)
    argv = [
        f"{runs}/tiny_s0",
        f"broken={tmp_path}/broken.safetensors",
        "--data=demo",
        f"--out={tmp_path}/out",
        *MEASURE,
    ]
    assert compare.main(argv) == 1
    (line,) = printed(capsys)
    assert says in line
    assert "broken" not in json.loads((tmp_path / "out" / "results.json").read_text())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["RUNS/none", "--data=demo"], "RUNS/none is not a run folder"),
        (["RUNS/tiny_s0", "--data=EMPTY"], "EMPTY"),
        (["RUNS/tiny_s0", "--data=demo", "--metrics", "psnrr"], "did you mean 'psnr'?"),
        (["all=RUNS/tiny_s0,", "--data=demo"], "no empty member"),
        (["RUNS/tiny_s0", "--data=demo", "--grid_seed=-1"], "--grid_seed"),
        (["RUNS/tiny_s0", "--data=demo", "--limit=3", "--out=/proc/x"], "/proc/x cannot be written"),
    ],
)
def test_nothing_to_compare_is_one_line(argv, says, runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    swapped = [a.replace("RUNS", str(runs)).replace("EMPTY", str(tmp_path / "empty")) for a in argv]
    assert compare.main([f"--out={tmp_path}/out", *swapped]) == 2
    (line,) = printed(capsys)
    assert says.replace("RUNS", str(runs)).replace("EMPTY", str(tmp_path / "empty")) in line

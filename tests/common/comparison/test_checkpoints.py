"""The checkpoints of a run over time, with the real entry points on a run of a moment."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from common.comparison.checkpoints import kept_checkpoints, own_validation
from common.training.logger import read_metrics
from common.utils.errors import UserError
from scripts import compare, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "kept"
    argv = ["--family=baselines", "--model.network=resnet18", "--steps=12", "--data.size=16", "--batch_size=8"]
    argv += ["--eval_every=12", "--log_every=2", "--keep_every=4", "--sample_every=0", f"--run={folder}"]
    assert train.main([*argv, "--data.val_fraction=0.3", "--optim.lr=0.003"]) == 0
    return folder


def test_every_kept_checkpoint_has_its_loss_epoch_and_time(run):
    found = kept_checkpoints(run)
    assert [c.step for c in found] == [4, 8, 12]  # the best and the last weights are those of step 12
    assert [c.title for c in found] == ["step 4", "step 8", "step 12"]
    loss = {line["step"]: line["loss/network"] for line in read_metrics(run, "train")}
    assert [c.loss for c in found] == pytest.approx([(loss[a] + loss[a + 2]) / 2 for a in (2, 6, 10)])
    photographs = found[0].step * 8 / found[0].epoch
    assert [c.epoch for c in found] == pytest.approx([c.step * 8 / photographs for c in found])
    assert photographs == pytest.approx(round(photographs))
    assert found[0].seconds < found[1].seconds < found[2].seconds
    assert own_validation(run) == ("demo", 0.3)


def test_best_and_last_weights_of_other_steps_are_shown_too(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "weights-00000008.safetensors").rename(folder / "best.safetensors")
    assert [c.title for c in kept_checkpoints(folder)] == ["step 4", "step 8 (best)", "step 12"]
    (folder / "metrics.jsonl").write_text("")
    assert [c.loss for c in kept_checkpoints(folder)] == [None] * 3


def test_the_script_writes_table_chart_and_grid(run, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [
        "--checkpoints",
        str(run),
        f"--out={out}",
        "--photos=2",
        "--bars",
        "--metrics",
        "rmse_ab",
        "colorfulness_ratio",
    ]
    assert compare.main(argv) == 0
    printed = capsys.readouterr().out
    table = (out / "checkpoints.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith("| step ")]
    assert [line.split(" | ")[0] for line in lines] == ["| step 4", "| step 8", "| step 12"]
    results = json.loads((out / "results.json").read_text())
    for line, title in zip(lines, ("step 4", "step 8", "step 12"), strict=True):
        assert f"{results[title]['rmse_ab']['mean']:.2f} ± " in line
    lowest = min(kept_checkpoints(run), key=lambda c: c.loss)
    assert f"The training loss is lowest at {lowest.title} " in printed
    means = {title: results[title]["rmse_ab"]["mean"] for title in ("step 4", "step 8", "step 12")}
    assert f"rmse_ab is best at {min(means, key=means.get)} " in printed
    assert re.search(r"\*\*[\d.]+ ± [\d.]+\*\*", table)
    assert "not finished" not in (out / "report.html").read_text()
    assert (out / "bars.png").exists()
    with Image.open(out / "checkpoints.png") as chart:
        assert np.asarray(chart.convert("L")).min() < 100
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 5 * 160  # grey, three checkpoints, the original


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--checkpoints=NONE", "--out=OUT"], "expected the folder of a run"),
        (["--checkpoints=RUN"], "required: --out"),
        (["--checkpoints=RUN", "--out=OUT", "grey"], "leave grey out"),
        (["--checkpoints=RUN", "--out=OUT", "--suite=x.yaml"], "leave --suite out"),
    ],
)
def test_bad_command_lines_are_one_sentence(argv, says, run, tmp_path, capsys):
    words = {"NONE": str(tmp_path / "none"), "RUN": str(run), "OUT": str(tmp_path / "out")}
    for short, whole in words.items():
        argv = [word.replace(f"={short}", f"={whole}") for word in argv]
    assert compare.main(argv) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_run_without_kept_checkpoints_says_how_to_keep_them(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for kept in folder.glob("weights-*.safetensors"):
        kept.unlink()
    with pytest.raises(UserError, match="--keep_every N"):
        kept_checkpoints(folder)

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.training import lr_finder
from common.training.lr_finder import CURVE, FOLDER, find_lr
from common.training.meter import NonFiniteLoss
from common.training.parser import parse_config
from common.utils.errors import UserError
from common.utils.progress import Progress
from scripts.train import main
from tests.common.training.test_loop import arguments, assert_same_state
from tests.conftest import ROOT

QUIET = Progress(quiet=True)
STEPS = 10


def config(file, run, *more):
    argv = ["--config", str(ROOT / "experiments" / file), "--data.size=32", "--batch_size=2", "--device=cpu"]
    return parse_config([*argv, "--run", str(run), *more], "", "train")


@pytest.mark.parametrize(
    ("file", "optimizer", "more"),
    [
        ("baselines/resnet18.yaml", "network", []),
        ("classification/rebalanced.yaml", "network", ["--model.width=0.25"]),
        ("gan/pix2pix_64.yaml", "generator", ["--model.generator.width=4", "--model.discriminator.width=4"]),
        ("gan/cyclegan_32.yaml", "generators", ["--model.generator.width=4", "--model.discriminator.width=4"]),
    ],
)
def test_every_family(file, optimizer, more, tmp_path):
    result = find_lr(config(file, tmp_path / "run", *more), STEPS, QUIET)
    assert result.optimizer == optimizer
    assert len(result.lrs) == len(result.losses) <= STEPS
    assert np.isfinite(result.losses).all()
    assert result.lrs[0] == pytest.approx(1e-7)
    ratios = np.diff(np.log10(result.lrs))
    np.testing.assert_allclose(ratios, 8 / STEPS, rtol=1e-6)  # exponentially, from 1e-7 to 10
    for suggestion in (result.valley, result.steep):
        assert np.abs(np.array(result.lrs) / suggestion - 1).min() < 1e-5  # one of the rates, in float32
    assert f"loss of the {optimizer}" in result.describe()
    written = sorted(p.name.split(".")[0] for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert written == ["", "events", "lr_find"]  # the marker of a run folder, TensorBoard and the curve: no state
    with Image.open(tmp_path / "run" / FOLDER / CURVE) as image:
        assert min(image.size) > 300
    events = EventAccumulator(str(tmp_path / "run" / FOLDER)).Reload()
    logged = events.Scalars(f"lr_find/loss/{optimizer}")
    assert [s.value for s in logged] == pytest.approx(result.losses)
    assert events.Tags()["images"] == ["lr_find"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["classification", "gan"])
def test_a_run_after_it_is_the_same(model, tmp_path):
    """Before the first step, and between two parts of a run."""
    assert main(arguments(model, tmp_path / "without", steps=4)) == 0
    assert main([*arguments(model, tmp_path / "with", steps=2), "--find_lr"]) == 0
    assert not (tmp_path / "with" / "state.pt").exists()
    assert main(arguments(model, tmp_path / "with", steps=4)) == 0
    assert_same_state(tmp_path / "without", tmp_path / "with")
    before = {p: p.read_bytes() for p in (tmp_path / "with").glob("*") if p.is_file()}
    assert main([*arguments(model, tmp_path / "with", steps=4), "--find_lr"]) == 0
    assert {p: p.read_bytes() for p in (tmp_path / "with").glob("*") if p.is_file()} == before


def test_the_script_prints_the_suggestions_and_where_the_curve_is(tmp_path, capsys):
    argv = ["--family=baselines", "--model.network=resnet18", "--data.size=16", "--batch_size=2", "--device=cpu"]
    assert main([*argv, "--run", str(tmp_path / "run"), "--find_lr"]) == 0
    out = capsys.readouterr().out
    assert "suggestions for optim.lr: valley " in out
    assert f"written: {tmp_path / 'run' / FOLDER / CURVE}" in out
    assert main([*argv, "--run", str(tmp_path / "run"), "--find_lr"]) == 0  # it replaces the earlier curve
    assert len(list((tmp_path / "run" / FOLDER).iterdir())) == 2


def test_the_schedule_and_the_average_of_the_run_are_not_used(tmp_path):
    """The first step would have a learning rate near 0 in the warm-up of the run."""
    more = ["--optim.warmup=0.5", "--optim.schedule=plateau", "--optim.plateau_factor=0.1", "--optim.ema=0.9"]
    plain = find_lr(config("baselines/resnet18.yaml", tmp_path / "plain", "--data.size=16"), STEPS, QUIET)
    other = find_lr(config("baselines/resnet18.yaml", tmp_path / "other", "--data.size=16", *more), STEPS, QUIET)
    assert (plain.lrs, plain.losses) == (other.lrs, other.losses)


def recorded(monkeypatch, losses):
    """`_record` on a run whose losses are given; None stands for a loss that is not finite."""
    remaining = iter(losses)

    def step(run, meter):
        loss = next(remaining)
        if loss is None:
            raise NonFiniteLoss("nan")
        meter._add("loss/network", torch.tensor(loss))

    monkeypatch.setattr(lr_finder, "train_step", step)
    run = SimpleNamespace(config=SimpleNamespace(optim=SimpleNamespace(lr=0.0)))
    return lr_finder._record(run, len(losses), QUIET)


def test_it_stops_where_the_loss_diverges(monkeypatch):
    _, lrs, losses = recorded(monkeypatch, [1.0] * 30 + [1000.0] * 30)
    assert len(lrs) == 31
    assert losses[:30] == pytest.approx([1.0] * 30)  # smoothing without bias
    _, lrs, _ = recorded(monkeypatch, [1.0] * 30 + [None] * 30)
    assert len(lrs) == 30
    _, lrs, _ = recorded(monkeypatch, [-1.0] * 30)  # a Wasserstein loss can be negative
    assert len(lrs) == 30


def test_suggestions_lie_where_the_loss_falls():
    """A loss that is constant, falls by the same amount per decade between 1e-4 and 1e-2, and rises again."""
    lrs = np.logspace(-7, 1, 100).tolist()
    losses = [float(np.interp(np.log10(lr), [-4, -2, -1, 1], [1.0, 0.2, 0.2, 3.0])) for lr in lrs]
    valley, steep = lr_finder._suggestions(lrs, losses, 100)
    assert 1e-4 < valley < 1e-2
    assert 0.9e-4 < steep < 1e-2


def test_a_loss_that_diverges_at_once_is_one_sentence(monkeypatch):
    with pytest.raises(UserError, match="diverged after 3 steps") as caught:
        lr_finder._suggestions([1e-7, 2e-7, 3e-7], [1.0, 2.0, 9.0], 100)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--find_lr=true"], "find_lr"), (["--find_lrs"], "unknown option --find_lrs"), (["--run", "{file}"], "{file}")],
)
def test_bad_input(more, says, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    more = [word.format(file=file) for word in more]
    argv = ["--family=baselines", "--model.network=cnn", "--data.size=16", "--run", str(tmp_path / "run"), "--find_lr"]
    assert main([*argv, *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says.format(file=file) in error


def test_fastai_is_imported_when_it_is_needed():
    code = "import sys, common.training.lr_finder; sys.exit('fastai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

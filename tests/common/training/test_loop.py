import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from common.colorizer import Objective
from common.training.logger import read_metrics
from common.training.meter import Meter, NonFiniteLoss
from common.training.step import clip_gradients
from common.utils.files import locked
from scripts.train import main
from tests.conftest import ROOT, photo_array

GAN = ["--family=gan", "--model.generator.width=8", "--model.discriminator={width: 8, receptive_field: 16}"]


def stages(*shares):
    """A recipe of three stages, the first of which freezes the encoder."""
    first, second, third = shares
    return (
        f"--model.stages=[{{train: generator, share: {first}, freeze_encoder: true}}, "
        f"{{train: discriminator, share: {second}, until_accuracy: 0.99}}, {{train: both, share: {third}}}]"
    )


TINY = {
    "cnn": ["--family", "baselines", "--model.network", "cnn"],
    "resnet18": ["--family", "baselines", "--model.network", "resnet18"],
    "classification": ["--family=classification", "--model.network=small", "--model.width=0.25"],
    "gan": [
        *GAN,
        "--model.discriminator.pool=6",
        "--model.discriminator.instance_noise=0.1",
        "--model.perceptual={weight: 1, layers: [relu1_1], random: true}",
    ],
    "cyclegan": [*GAN, "--model.method=cyclegan", "--model.loss.adversarial=lsgan", "--model.discriminator.pool=6"],
    # the state that is gone on from is of step 3 of 9: in the first, the second or the last stage
    "stage_of_the_generator": [*GAN, stages(0.6, 0.2, 0.2)],
    "stage_of_the_discriminator": [*GAN, stages(0.2, 0.6, 0.2)],
    "stage_of_both": [*GAN, stages(0.1, 0.1, 0.8)],
}


def arguments(model, run, *more, steps=9):
    return [
        *TINY[model], "--device=cpu", "--run", str(run), "--steps", str(steps), "--data.size=32", "--batch_size=4",
        "--log_every", "2", "--eval_every", "4", "--sample_every", "5", "--save_every", "3", "--optim.ema", "0.9",
        *more,
    ]  # fmt: skip


def state(run):
    return torch.load(run / "state.pt", weights_only=True)


def assert_same_state(one, other):
    one, other = state(one), state(other)
    assert one["step"] == other["step"]
    for part in ("weights", "ema"):
        assert all(torch.equal(one[part][key], other[part][key]) for key in one[part]), part
    for name, optimizer in one["optimizers"].items():
        for i, values in optimizer["state"].items():
            for key, value in values.items():
                assert torch.equal(value, other["optimizers"][name]["state"][i][key]), (name, key)
    assert one["plateau"] == other["plateau"]
    assert_same(one["training"], other["training"])
    assert one["scores"] == other["scores"]


def assert_same(one, other):
    """Plain values and tensors, however nested."""
    if isinstance(one, (dict, list)):
        assert len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


KILLED = """
import os, signal, sys
from common.utils.files import locked
from common.training.meter import Meter
from scripts.train import main
check = Meter.check
def dies(self, step, *rest, **options):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    check(self, step, *rest, **options)
Meter.check = dies
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", TINY)
def test_killed_and_resumed_equals_never_killed(model, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(model, tmp_path / "killed")], capture_output=True, cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert state(tmp_path / "killed")["step"] == 3
    assert main(arguments(model, tmp_path / "killed")) == 0
    assert main(arguments(model, tmp_path / "straight")) == 0
    assert_same_state(tmp_path / "killed", tmp_path / "straight")
    one, other = (load_file(tmp_path / n / "weights.safetensors") for n in ("killed", "straight"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    for kind in ("train", "val"):  # the log has every step once, too
        logs = [read_metrics(tmp_path / n, kind) for n in ("killed", "straight")]
        for line in logs[0] + logs[1]:
            line.pop("images_per_s", None)
        assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
        assert logs[0][-1] == pytest.approx(logs[1][-1], nan_ok=False)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    check = Meter.check

    def asked(self, step, *rest, **options):
        if step == 4 and not options:
            os.kill(os.getpid(), signal.SIGTERM)
        check(self, step, *rest, **options)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Meter, "check", asked)
        assert main(arguments("cnn", tmp_path / "a")) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "the same command resumes the run" in capsys.readouterr().err
    assert state(tmp_path / "a")["step"] == 5
    assert main(arguments("cnn", tmp_path / "a")) == 0
    assert main(arguments("cnn", tmp_path / "b")) == 0
    assert_same_state(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "resnet18", "classification", "gan", "cyclegan", "stage_of_both"])
def test_two_processes_equal_one(model, tmp_path):
    """Two gloo processes take the two shards that one process takes by accumulating twice.

    Batch norm and dropout work on a shard in both. The plain CNN has neither, so for it the whole batch at once is
    the same as well.
    """
    # SGD: Adam turns the rounding of a gradient that is truly zero (a bias before batch norm) into full steps
    more = ["--precision=fp32", "--optim.optimizer=sgd", "--optim.lr=0.02", "--optim.ema=0", "--eval_every=100"]
    more.append("--sample_every=0")
    if "gan" in model:  # a pool of past fakes is each process's own; games let roundings grow, the faster they move
        more += ["--model.discriminator.pool=0", "--model.discriminator.instance_noise=0", "--optim.lr=0.0002"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "--"]
    two = subprocess.run(
        [*command, "scripts.train", *arguments(model, tmp_path / "two", *more, steps=4)],
        capture_output=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert two.returncode == 0, two.stderr.decode()[-3000:]
    assert main(arguments(model, tmp_path / "one", *more, "--accumulate", "2", steps=4)) == 0
    others = ["one"]
    if model == "cnn":
        assert main(arguments(model, tmp_path / "whole", *more, steps=4)) == 0
        others.append("whole")
    weights = state(tmp_path / "two")["weights"]
    for other in others:
        for key, value in state(tmp_path / other)["weights"].items():
            if value.is_floating_point() and "running_" not in key:  # running statistics are the first process's own
                torch.testing.assert_close(weights[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.slow
def test_a_loss_that_diverges_stops_the_run_and_keeps_the_last_state(tmp_path, capsys):
    assert main(arguments("cnn", tmp_path / "a", "--optim.lr", "1e30", "--save_every", "1", "--optim.warmup", "0")) == 2
    told = capsys.readouterr().err
    assert "learning rate" in told
    assert "at step" in told
    kept = state(tmp_path / "a")
    assert kept["step"] >= 1
    assert all(value.isfinite().all() for value in kept["weights"].values())


def test_the_first_bad_step_is_named():
    meter = Meter(check_every=3)
    optimizers = {"network": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)}
    values = [1.0, float("nan"), float("inf")]
    for step, value in enumerate(values):
        meter.add(step, Objective("network", torch.tensor(value), {"l1": torch.tensor(value)}))
        if step < 2:
            meter.check(step, optimizers)
    with pytest.raises(NonFiniteLoss, match="l1 of the network became nan at step 1 with learning rate"):
        meter.check(2, optimizers)


@pytest.mark.slow
def test_a_run_leaves_what_people_look_at(tmp_path):
    run = tmp_path / "a"
    assert main(arguments("gan", run, "--keep_every", "4", "--fresh", "true")) == 0
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "state.pt", "weights.safetensors", "best.safetensors"} <= names
    assert {"weights-00000004.safetensors", "weights-00000008.safetensors"} <= names
    assert sorted(p.name for p in (run / "samples").iterdir()) == ["00000005.png", "00000009.png"]
    assert Image.open(run / "samples" / "00000009.png").size[0] > 300
    train = read_metrics(run, "train")
    assert {"l1", "adversarial", "real", "fake", "lr/generator", "images_per_s", "grad_norm/generator"} <= set(train[0])
    assert [line["step"] for line in train] == [2, 4, 6, 8, 9]
    assert [line["step"] for line in read_metrics(run, "val")] == [0, 4, 8, 9]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    assert [e.step for e in events.Scalars("val/rmse_ab")] == [0, 4, 8, 9]
    assert events.Tags()["images"] == ["samples"]
    assert any("config" in tag for tag in events.Tags()["tensors"])


@pytest.mark.slow
def test_early_stop_budget_and_finished_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("common.training.run.evaluate", constant_scores)
    run = tmp_path / "a"
    more = ["--early_stop", "2", "--eval_every", "1"]
    assert main(arguments("cnn", run, *more, steps=50)) == 0
    assert 3 <= state(run)["step"] <= 4
    assert "grey-brown" in capsys.readouterr().err  # the collapse alarm: colorfulness 0.1, three times


@pytest.mark.slow
def test_a_budget_becomes_steps_once(tmp_path, monkeypatch):
    """With the same measured speed, two runs with a budget are equal, also where one was stopped and resumed."""
    monkeypatch.setattr("common.training.budget._steps_within", lambda run, seconds: 7)
    more = ["--budget", "30s", "--eval_every", "100", "--sample_every", "0"]
    command = [*TINY["cnn"], "--data.size=32", "--batch_size=4", "--save_every=3", *more]
    assert main([*command, "--run", str(tmp_path / "a")]) == 0
    check = Meter.check

    def interrupted(self, step, *rest, **options):
        if step == 4 and not options:
            os.kill(os.getpid(), signal.SIGTERM)
        check(self, step, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "check", interrupted)
        assert main([*command, "--run", str(tmp_path / "b")]) == 128 + signal.SIGTERM
    monkeypatch.setattr("common.training.budget._steps_within", lambda run, seconds: 99)  # must not be asked again
    assert main([*command, "--run", str(tmp_path / "b")]) == 0
    assert state(tmp_path / "a")["step"] == 7
    assert_same_state(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_measuring_the_speed_leaves_the_run_as_it_was(tmp_path):
    """The steps that are timed are undone: a run with a budget has the weights of one with so many steps."""
    more = ["--sample_every=0", "--eval_every=50", "--save_every=1000"]
    command = [*TINY["stage_of_both"], "--data.size=32", "--batch_size=4", "--optim.ema=0.9", *more]
    assert main([*command, "--run", str(tmp_path / "a"), "--budget", "3s"]) == 0
    steps = state(tmp_path / "a")["step"]
    assert steps >= 1
    assert main([*command, "--run", str(tmp_path / "b"), "--steps", str(steps)]) == 0
    assert_same_state(tmp_path / "a", tmp_path / "b")


def constant_scores(predictors, pack, metrics, **options):
    class Result:
        table = {"model": {name: {"mean": 0.1} for name in metrics}}  # noqa: RUF012

    return Result


@pytest.mark.slow
def test_another_configuration_is_another_run(tmp_path, capsys):
    run = tmp_path / "a"
    assert main(arguments("cnn", run, steps=1)) == 0
    assert main(arguments("cnn", run, "--optim.lr", "0.5", steps=1)) == 2
    assert "was begun with optim.lr" in capsys.readouterr().err
    assert main(arguments("cnn", run, "--samples", "2", steps=2)) == 0  # what only looks may change
    assert state(run)["step"] == 2
    stranger = tmp_path / "photos"
    stranger.mkdir()
    (stranger / "precious.jpg").write_bytes(b"")
    assert main(arguments("cnn", stranger, "--fresh", "true", steps=1)) == 2
    assert (stranger / "precious.jpg").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--batch_size", "3", "--accumulate", "2"], "batch_size is 3"),
        (["--data.size", "20"], "takes multiples of 8"),
        (["--run", "/proc/nothing"], "cannot be written"),
        (["--optim.lr_ratio", "{critic: 0.5}"], "optim.lr_ratio names critic"),
    ],
)
def test_impossible_runs_are_one_line(tmp_path, capsys, more, says):
    assert main(arguments("cnn", tmp_path / "a", *more)) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert says in told


def test_a_mistake_does_not_cost_the_old_run(tmp_path):
    run = tmp_path / "a"
    assert main(arguments("cnn", run, steps=1)) == 0
    before = (run / "weights.safetensors").read_bytes()
    assert main(arguments("cnn", run, "--fresh", "true", "--data.train", "nowhere")) == 2
    assert (run / "weights.safetensors").read_bytes() == before


def test_a_run_folder_is_for_one_process_at_a_time(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    with locked(tmp_path / "a" / ".lock"):
        assert main(arguments("cnn", tmp_path / "a", steps=1)) == 2
    assert "another process is training" in capsys.readouterr().err
    assert main(arguments("cnn", tmp_path / "a", steps=1)) == 0


def test_other_photographs_are_another_run(tmp_path, photos, capsys):
    more = ["--data.train", str(photos), "--data.val_fraction", "0.3"]
    assert main(arguments("cnn", tmp_path / "a", *more, steps=1)) == 0
    for name in ("photo0.png", "photo3.png", "photo6.png", "photo9.png"):  # some are in the training part
        Image.fromarray(photo_array(77)).save(photos / name)
    assert main(arguments("cnn", tmp_path / "a", *more, steps=2)) == 2
    assert "are not those" in capsys.readouterr().err


@pytest.mark.slow
def test_validation_of_a_diverged_network_is_one_sentence(tmp_path, capsys):
    more = ["--optim.lr", "1e30", "--optim.warmup", "0", "--eval_every", "1"]
    assert main(arguments("cnn", tmp_path / "a", *more)) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_a_run_without_end_is_refused(tmp_path, capsys):
    assert main([*TINY["cnn"], "--run", str(tmp_path / "a"), "--data.size", "32"]) == 2
    assert "no end" in capsys.readouterr().err


def test_clipping():
    network = torch.nn.Linear(3, 1)
    network.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
    network.bias.grad = torch.zeros(1)
    assert float(clip_gradients(network, 0.0)) == 5
    assert float(clip_gradients(network, 1.0)) == 5
    assert float(network.weight.grad.norm()) == pytest.approx(1, rel=1e-4)


@pytest.mark.slow
def test_two_processes_take_the_same_timed_steps(tmp_path):
    """Their clocks differ, so the clock of the first decides: else one would wait for the other's gradients forever."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "--", "scripts.train"]
    more = ["--device=cpu", "--data.size=32", "--batch_size=4", "--sample_every=0", "--budget=8s"]
    two = subprocess.run(
        [*command, *TINY["cnn"], *more, "--run", str(tmp_path / "two")],
        capture_output=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=180,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr.decode()[-3000:]
    saved = state(tmp_path / "two")
    assert saved["step"] == saved["last_step"] >= 1


def test_a_hue_shift_changes_training_and_not_validation(tmp_path, capsys):
    logs = []
    for name, more in {"plain": [], "shifted": ["--augment.hue_shift=120"]}.items():
        argv = arguments("resnet18", tmp_path / name, *more, "--log_every=1", steps=1)
        assert main(argv) == 0
        printed = capsys.readouterr().err
        assert ("are turned by 120 degrees; those of the photographs for validation are not" in printed) == bool(more)
        logs.append([read_metrics(tmp_path / name, kind)[0] for kind in ("val", "train")])
    (val, train), (shifted_val, shifted_train) = logs
    assert val == shifted_val
    assert train["mse"] != pytest.approx(shifted_train["mse"], rel=1e-3)

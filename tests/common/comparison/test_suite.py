"""Suites: what is missing is trained, what was cut off goes on, what fails is told."""

import signal
import subprocess
import sys

import pytest
import torch
import yaml

from common.comparison.suite import read_suite, suite_configs, train_suite
from common.training.logger import read_metrics
from common.training.meter import Meter
from common.utils.progress import Progress
from scripts import compare
from tests.conftest import ROOT

CNN = str(ROOT / "experiments/baselines/cnn.yaml")
CLASSIFIER = str(ROOT / "experiments/classification/rebalanced.yaml")
SMALL = {"batch_size": 4, "steps": 6, "save_every": 3, "eval_every": 6, "sample_every": 0, "optim.ema": 0}


def write(folder, *entries, **more):
    suite = {
        "data": {"train": "demo", "size": 32}, "experiments": list(entries), "metrics": ["rmse_ab"],
        "runs": str(folder / "runs"), "out": str(folder / "out"),
    }  # fmt: skip
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite | more))
    return path


def two():
    small = {"config": CLASSIFIER, "model": {"width": 0.25}, **SMALL}
    return small | {"name": "one"}, small | {"name": "two", "model.rebalancing_lambda": 1.0}


def state(folder):
    return torch.load(folder / "state.pt", weights_only=True)


KILLED = """
import os, signal, sys
from common.training.meter import Meter
from scripts.compare import main
check, runs = Meter.check, []
def dies(self, step, *rest, **options):
    runs.append(step == 0)
    if sum(runs) == 2 and step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    check(self, step, *rest, **options)
Meter.check = dies
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_in_the_second_run_the_same_command_goes_on(tmp_path, capsys):
    suite = write(tmp_path, *two(), rows=["mean(one,two)", "grey"])
    command = [f"--suite={suite}"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    runs = tmp_path / "runs"
    assert (state(runs / "one")["step"], state(runs / "two")["step"]) == (6, 3)
    first = (runs / "one" / "state.pt").stat().st_mtime_ns

    assert compare.main(command) == 0
    told = capsys.readouterr().err
    assert "one, 1 of 2: trained already" in told
    assert "two resumes at step 3" in told
    assert (runs / "one" / "state.pt").stat().st_mtime_ns == first
    assert state(runs / "two")["step"] == 6
    table = (tmp_path / "out" / "table.md").read_text()
    for row in ("one", "two", "mean(one,two)", "grey", "original"):
        assert f"| {row} | " in table

    (tmp_path / "straight").mkdir()
    straight = write(tmp_path / "straight", *two())
    train_suite(read_suite(straight), progress=Progress(quiet=True))
    one, other = (state(tmp_path / part / "two")["weights"] for part in ("runs", "straight/runs"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [line["step"] for line in read_metrics(runs / "two", "val")] == [0, 6]

    written = (tmp_path / "out" / "table.md").stat().st_mtime_ns
    assert compare.main([*command, "--metrics", "psnr"]) == 0  # all is trained: it is only measured
    assert (tmp_path / "out" / "table.md").stat().st_mtime_ns > written
    assert "psnr" in (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().err.count("trained already") == 2


@pytest.mark.slow
def test_a_signal_reaches_the_run_and_is_saved(tmp_path, monkeypatch, capsys):
    check = Meter.check

    def asked(self, step, *rest, **options):
        if step == 1 and not options:
            signal.raise_signal(signal.SIGTERM)
        check(self, step, *rest, **options)

    monkeypatch.setattr(Meter, "check", asked)
    assert compare.main([f"--suite={write(tmp_path, *two())}"]) == 128 + signal.SIGTERM
    assert "stopped at step 2" in capsys.readouterr().err
    assert state(tmp_path / "runs" / "one")["step"] == 2
    assert not (tmp_path / "runs" / "two").exists()


@pytest.mark.slow
def test_a_run_that_diverges_is_told_and_the_others_go_on(tmp_path, capsys):
    wild = {"name": "wild", "optim": {"optimizer": "sgd", "lr": 1e30, "warmup": 0, "clip": 0}}
    good, other = two()
    suite = write(tmp_path, other | wild, good, rows=["mean(one,wild)", "stack(one,calm64)"])
    assert compare.main([f"--suite={suite}", "--stack_budget=1s"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "wild: " in errors[0]
    assert "lower optim.lr" in errors[0]
    assert "mean(one,wild) is left out" in errors[1]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| one | " in table
    assert "| stack(one,calm64) | " in table
    assert "wild" not in table
    assert [p.name[:17] for p in (tmp_path / "runs" / "stacks").iterdir()] == ["stack-one-calm64-"]

    changed = write(tmp_path, good | {"optim.lr": 0.5})  # another configuration under the same name
    done = train_suite(read_suite(changed), progress=Progress(quiet=True))
    assert done.rows == []
    assert "was begun with optim.lr 0.001, and now it is 0.5" in done.failures[0]


def test_seeds_are_runs_and_their_group_a_name(tmp_path, monkeypatch):
    entry = {"config": CNN, "seeds": [3, 4], "steps": 2}
    suite = read_suite(write(tmp_path, entry, rows=["mean(cnn)", "x=mean(cnn-seed3,mean(cnn))", "calm64", "cnn"]))
    configs = suite_configs(suite, "90s", {"data.margin": 0.5})
    assert {name: config.loop.seed for name, config in configs.items()} == {"cnn-seed3": 3, "cnn-seed4": 4}
    assert all(c.loop.budget == "90s" and c.loop.steps == 2 and c.data.margin == 0.5 for c in configs.values())
    monkeypatch.setattr("common.comparison.suite._train", lambda *_: None)
    a, b = (str(tmp_path / "runs" / name) for name in configs)
    assert train_suite(suite, progress=Progress(quiet=True)).rows == [
        f"cnn-seed3={a}", f"cnn-seed4={b}", f"mean(cnn)=mean({a},{b})", f"x=mean({a},mean({a},{b}))", "calm64",
    ]  # fmt: skip


def test_groups_of_a_model_are_changed_one_option_at_a_time(tmp_path):
    gan = {"config": str(ROOT / "experiments/gan/pix2pix_64.yaml"), "model": {"generator": {"width": 16}}}
    config = suite_configs(read_suite(write(tmp_path, gan)))["pix2pix_64"].to_dict()
    assert (config["model"]["generator"]["width"], config["model"]["generator"]["network"]) == (16, "unet")
    assert config["model"]["discriminator"]["receptive_field"] == 34


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_suites_of_the_house_can_be_trained(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    suite = read_suite(path)
    assert suite_configs(suite, "10m")
    assert suite.out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"experimnts": []}, "did you mean 'experiments'"),
        ({"data": {"trian": "demo"}}, "did you mean data.train"),
        ({"data": "demo"}, "data demo: expected a mapping"),
        ({"experiments": []}, "has no experiments"),
        ({"experiments": ["cnn.yaml"]}, "expected entries such as"),
        ({"experiments": [{"name": "x"}]}, "without 'config'"),
        ({"experiments": [{"config": "nowhere.yaml"}]}, "nowhere.yaml, which does not exist"),
        ({"experiments": [{"config": CNN}, {"config": CNN}]}, "two experiments called cnn"),
        ({"experiments": [{"config": CNN, "seeds": 3}]}, "the seeds 3: expected a list"),
        ({"experiments": [{"config": CNN, "seeds": [1, 1]}]}, "different whole numbers"),
        ({"experiments": [{"config": CNN, "name": "a/b"}]}, "calls an experiment 'a/b'"),
        ({"experiments": [{"config": CNN, "stps": 3}]}, "did you mean steps"),
        ({"experiments": [{"config": CNN, "run": "x"}]}, "a key 'run'"),
        ({"experiments": [{"config": CNN, "optim.lrr": 3}]}, "did you mean optim.lr"),
        ({"experiments": [{"config": CNN, "steps": "many"}]}, "steps is many: expected a whole number"),
        ({"data": {"size": 3}}, "data.size is 3"),
        ({"metrics": ["rmse"]}, "rmse"),
        ({"rows": "grey"}, "expected a list of names"),
        ({"rows": ["mean(cnn"]}, "not closed"),
    ],
)
def test_a_suite_that_cannot_be_is_one_sentence(change, told, tmp_path, capsys):
    suite = write(tmp_path, {"config": CNN, "steps": 1}, **change)
    assert compare.main([f"--suite={suite}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "runs").exists()


def test_a_command_line_that_does_not_go_together_is_one_sentence(tmp_path, capsys):
    suite = write(tmp_path, {"config": CNN, "steps": 1})
    for argv, told in (
        ([], "required: MODEL, --data, --out"),
        (["calm64", "--data=demo"], "required: --out"),
        (["calm64", "--data=demo", "--out=x", "--budget=1m"], "--budget requires --suite"),
        ([f"--suite={suite}", "--budget=soon"], "budget is soon: expected a time"),
        ([f"--suite={tmp_path}/none.yaml"], "cannot be read"),
    ):
        assert compare.main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert told in line


def test_the_command_line_wins_over_the_suite(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("common.comparison.suite._train", lambda config, *_: seen.update(config.to_dict()))
    suite = write(tmp_path, {"config": CNN, "steps": 1}, data={"train": "a", "val": "b", "size": 48}, rows=["nobody"])
    compare.main([f"--suite={suite}", "--train=c", "--data=demo", "--size=40", "--out=x", "--device=cpu"])
    assert (seen["data"]["train"], seen["data"]["val"], seen["data"]["size"]) == ("c", "demo", 40)
    assert seen["device"] == "cpu"
    compare.main([f"--suite={suite}", "--train=c", "--out=x"])
    assert (seen["data"]["train"], seen["data"]["val"], seen["data"]["size"]) == ("c", None, 48)

"""train_gan.sh: its own flags become experiments and options, which the training script takes."""

import shutil
import subprocess

import pytest

from common.training.parser import parse_config
from tests.conftest import ROOT


@pytest.fixture
def called(tmp_path):
    """Runs the script beside a set-up that names, as the Python to use, a program that prints its arguments."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "train_gan.sh", scripts)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    teller = tmp_path / "python"
    teller.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    teller.chmod(0o755)
    (scripts / "setup.sh").write_text(f"echo '{teller}'\n")
    return lambda *flags: subprocess.run(
        ["bash", str(scripts / "train_gan.sh"), *flags], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("flags", "run", "check"),
    [
        ([], "runs/pix2pix_64", lambda model: model["stages"] is None),
        (["--pretrain"], "runs/pretrain_64", lambda model: model["stages"][0]["train"] == "generator"),
        (["--perceptual"], "runs/pix2pix_64", lambda model: model["perceptual"]["weight"] > 0),
        (["--encoder", "resnet10t"], "runs/pix2pix_64", lambda model: model["generator"]["encoder"] == "resnet10t"),
        (["--cyclegan"], "runs/cyclegan_32", lambda model: model["method"] == "cyclegan"),
        (["--l1"], "runs/l1_64", lambda model: model["loss"]["adversarial_weight"] == 0),
        (["--perceptual", "--pretrain", "--encoder", "resnet10t"], "runs/pretrain_64",
         lambda m: m["perceptual"]["weight"] > 0 and m["generator"]["network"] == "timm" and m["stages"]),
    ],
)  # fmt: skip
def test_flags_become_options(called, flags, run, check):
    done = called(*flags, "--steps", "7", "--model.perceptual.network", "vgg19")
    assert done.returncode == 0, done.stderr
    module, name, *arguments = done.stdout.splitlines()
    assert (module, name) == ("-m", "scripts.train")
    config = parse_config(arguments, "", "train")
    assert config.family == "gan"
    assert config.loop.run == run
    assert config.loop.steps == 7
    assert config.model["perceptual"]["network"] == "vgg19"
    assert check(config.model)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--pretrain", "--cyclegan"], "exclude each other"),
        (["--encoder"], "--encoder names no network"),
    ],
)
def test_flags_that_make_no_sense_are_one_sentence(called, flags, says):
    done = called(*flags)
    assert done.returncode == 2
    (printed,) = done.stderr.splitlines()
    assert printed.startswith("error: ")
    assert says in printed

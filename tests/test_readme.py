"""The code in README.md does what README.md says of it."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.checkpoint import save_weights
from common.evaluation import metrics
from common.evaluation.metrics import Metric, Pictures
from common.photo import colorize, load_colorizer, open_image, save_image
from common.registry import build_colorizer
from scripts import export
from tests.conftest import ROOT, photo_array

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(word):
    (found,) = [text for text in BLOCKS if word in text]
    assert len([line for line in found.splitlines() if line.strip()]) < 30
    return found


def test_the_loss():
    entry = re.search(r"lambda .*mean\(\)", block("charbonnier"))[0]
    loss = eval(entry)
    zero = torch.zeros(2, 2, 4, 4)
    assert float(loss(zero + 0.5, zero)) == pytest.approx(0.5, rel=1e-4)


def test_the_metric():
    source = block("def hue_error").replace("{...,", "{**METRICS,")
    names = {"torch": torch, "Pictures": Pictures, "Tensor": torch.Tensor, "Metric": Metric, "METRICS": metrics.METRICS}
    exec(source, names)
    ab = torch.tensor([10.0, 10.0]).view(1, 2, 1, 1)  # 45 degrees
    turned = torch.tensor([-10.0, 10.0]).view(1, 2, 1, 1)  # 135 degrees
    rgb = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    value = names["METRICS"]["hue_error"].per_image(Pictures(ab, rgb), Pictures(turned, rgb))
    assert float(value) == pytest.approx(90, abs=1e-3)


@pytest.fixture(scope="module")
def with_linear(tmp_path_factory):
    """A copy of the checkout with README's family: its folder and its YAML, nothing else."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in ("common", "baselines", "classification", "gan", "scripts", "experiments", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, copy / file)
    (copy / "linear").mkdir()
    (copy / "linear" / "__init__.py").write_text(block("class Linear"))
    (config,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    (copy / "experiments" / "linear").mkdir()
    (copy / "experiments" / "linear" / "linear.yaml").write_text(config)
    return copy


def run_in(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )


def test_the_family_is_trained(with_linear):
    config = "--config=experiments/linear/linear.yaml"
    run = run_in(with_linear, "scripts.train", config, "--steps=3", "--data.size=32", "--run=r")
    assert run.returncode == 0, run.stderr
    assert "linear: network 0.00 M" in run.stderr
    assert (with_linear / "r" / "weights.safetensors").exists()


@pytest.mark.slow
def test_the_family_passes_the_tests_without_a_change_of_them(with_linear):
    """The contract on its YAML, and every test that looks at all families or all experiments."""
    run = run_in(with_linear, "pytest", "-p", "no:cacheprovider", "tests/test_experiments.py", "-k", "linear")
    assert run.returncode == 0, run.stdout[-3000:]
    run = run_in(
        with_linear, "pytest", "-p", "no:cacheprovider", "tests/test_house.py", "tests/common/training/test_config.py"
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_use_from_python(tmp_path, monkeypatch):
    colorizer = build_colorizer("baselines", network="resnet18")
    card = {"family": "baselines", "model": {"network": "resnet18"}, "size": 32}
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    save_weights(tmp_path / "runs/mine/weights.safetensors", colorizer.state_dict(), card)
    save_image(tmp_path / "old.jpg", photo_array(3))
    monkeypatch.chdir(tmp_path)
    exec(block("load_colorizer"), {})
    assert open_image(tmp_path / "old.color.png").rgb.shape == photo_array(3).shape


def test_the_use_of_an_exported_graph(tmp_path, monkeypatch):
    colorizer = build_colorizer("classification", width=0.25)
    card = {"family": "classification", "model": {"width": 0.25}, "size": 64}
    save_weights(tmp_path / "w.safetensors", colorizer.state_dict(), card)
    assert export.main([str(tmp_path / "w.safetensors"), f"--onnx={tmp_path / 'mine.onnx'}"]) == 0
    save_image(tmp_path / "old.jpg", photo_array(3))
    monkeypatch.chdir(tmp_path)
    exec(block("onnxruntime"), {})
    ours = colorize(load_colorizer(tmp_path / "w.safetensors"), open_image(tmp_path / "old.jpg").rgb)
    assert np.abs(open_image(tmp_path / "onnx.color.png").rgb.astype(float) - ours).mean() < 4  # not guided by edges


def test_every_file_that_it_names_is_there():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert "linear" in name or (ROOT / name).exists(), name
    for name in re.findall(r"(?:bash |--config )((?:scripts|experiments)/[\w./]+)", README):
        assert "linear" in name or (ROOT / name).exists(), name

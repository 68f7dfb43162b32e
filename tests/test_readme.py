"""The code in README.md does what README.md says of it."""

import re

import pytest
import torch

from common import metrics
from common.checkpoint import save_weights
from common.colorizer import Batch, Colorizer, Objective, build_colorizer
from common.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.metrics import Metric, Pictures
from tests.conftest import ROOT

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


def test_the_family():
    from collections.abc import Iterator

    names = {
        "Colorizer": Colorizer, "Objective": Objective, "Batch": Batch, "Iterator": Iterator, "nn": torch.nn,
        "F": torch.nn.functional, "Tensor": torch.Tensor, "L_to_unit": L_to_unit, "ab_from_unit": ab_from_unit,
        "ab_to_unit": ab_to_unit,
    }  # fmt: skip
    exec(block("class Linear"), names)
    torch.manual_seed(0)
    colorizer = names["build"](l1_weight=2.0)
    batch = Batch(torch.rand(2, 1, 8, 8) * 100, torch.rand(2, 2, 8, 8) * 50)
    (objective,) = colorizer.training_step(batch)
    assert objective.optimizer in colorizer.networks()
    torch.testing.assert_close(objective.loss, 2 * objective.terms["l1"])
    assert colorizer(batch.L).shape == batch.ab.shape


def test_the_use_from_python(tmp_path, monkeypatch):
    colorizer = build_colorizer("baselines", network="resnet18")
    card = {"family": "baselines", "model": {"network": "resnet18"}, "size": 32}
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    save_weights(tmp_path / "runs/mine/weights.safetensors", colorizer.state_dict(), (), card)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("load_colorizer"), names)
    assert names["ab"].shape == (1, 2, 64, 64)


def test_every_file_that_it_names_is_there():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?:bash |--config )((?:scripts|experiments)/[\w./]+)", README):
        assert (ROOT / name).exists(), name

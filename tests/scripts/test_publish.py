import json

import pytest
import torch

from classification.rebalancing import class_weights
from common.checkpoint import read_card, save_weights
from common.registry import build_colorizer, load_colorizer
from scripts import publish
from tests.conftest import ROOT


def made_card(model):
    """The card of a classifier, with paths of a machine in it."""
    config = {
        "run": "/home/somebody/runs/x",
        "data": {"train": "/home/somebody/a.tar,/home/b", "val": None, "cache": "/c"},
    }
    return {
        "family": "classification", "model": {"prior": "/home/p.json", **model}, "size": 32, "name": "x",
        "trained_on": {"source": "/home/somebody/a.tar,/home/b", "count": 5}, "validation": {"rmse_ab": 1.0},
        "config": config | {"model": {}},
    }  # fmt: skip


def save(path, **model):
    torch.manual_seed(0)
    colorizer = build_colorizer("classification", width=0.25, **model)
    colorizer.prior.copy_(torch.rand(261).softmax(dim=0))
    save_weights(path, colorizer.state_dict(), made_card({"width": 0.25, **model}))
    return path


def test_what_is_published_predicts_the_same_and_names_no_folder(tmp_path, capsys):
    weights, out = save(tmp_path / "w.safetensors"), tmp_path / "out.safetensors"
    assert publish.main([str(weights), "--name=mine", f"--out={out}"]) == 0
    assert out.stat().st_size < 0.6 * weights.stat().st_size
    card = read_card(out)
    assert card["name"] == "mine"
    assert card["trained_on"]["source"] == "a.tar,b"
    assert card["validation"] == {"rmse_ab": 1.0}
    assert "/" not in json.dumps(card)
    L = torch.rand(1, 1, 32, 32) * 100
    with torch.no_grad():
        torch.testing.assert_close(load_colorizer(out)(L), load_colorizer(weights)(L), atol=0.1, rtol=0)


def test_a_shift_adds_the_weights_logarithm_to_the_logits(tmp_path):
    weights, out = save(tmp_path / "w.safetensors", rebalancing_lambda=1.0), tmp_path / "out.safetensors"
    argv = [str(weights), "--name=mine", f"--out={out}", "--shift=0.5", "--temperature=0.7", "--data=demo"]
    assert publish.main(argv) == 0
    before, after = load_colorizer(weights), load_colorizer(out)
    assert after.temperature == 0.7
    L = torch.rand(1, 1, 32, 32) * 100
    with torch.no_grad():
        added = (after.logits(L) - before.logits(L)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(added, 0.5 * class_weights(before.prior).log(), atol=2e-2, rtol=0)
    assert after.card["validation"]["rmse_ab"] != 1.0
    assert after.card["measured_on"].endswith("photographs of demo")


def test_shifting_is_for_classifiers_trained_without_rebalancing(tmp_path, capsys):
    weights, out = save(tmp_path / "w.safetensors"), tmp_path / "out.safetensors"
    argv = ["--name=mine", f"--out={out}"]
    assert publish.main([str(weights), *argv, "--shift=0.5"]) == 2
    assert "was trained with rebalancing" in capsys.readouterr().err
    assert publish.main([str(weights), *argv, "--shift=2"]) == 2
    assert "--shift is 2: expected a share" in capsys.readouterr().err
    assert publish.main([str(weights), "--name=mine", f"--out={tmp_path / 'no' / 'x.safetensors'}"]) == 2
    assert "in a folder that exists" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("path", sorted((ROOT / "common" / "weights").glob("*.safetensors")), ids=lambda p: p.stem)
def test_installed_models_paint_and_say_where_they_are_from(path):
    colorizer = load_colorizer(path.stem)
    assert colorizer.card["name"] == path.stem
    assert "/" not in colorizer.card["trained_on"]["source"]
    assert {"rmse_ab", "colorfulness_ratio"} <= set(colorizer.card["validation"])
    with torch.no_grad():
        ab = colorizer(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 100)
    assert float(ab.norm(dim=1).mean()) > 1


def test_there_is_an_installed_model():
    from scripts.colorize import DEFAULT_MODEL

    assert (ROOT / "common" / "weights" / f"{DEFAULT_MODEL}.safetensors").exists()

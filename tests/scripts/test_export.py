import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from common.checkpoint import published_state, save_weights
from common.registry import build_colorizer, load_colorizer
from scripts import export

MODELS = {
    "resnet18": ("baselines", {"network": "resnet18"}),
    "classifier": ("classification", {"network": "small", "width": 0.25}),
    "unet": ("gan", {"size": 32, "generator": {"width": 8}, "discriminator": {"receptive_field": 16}}),
}


@pytest.fixture(params=MODELS)
def weights(request, tmp_path):
    torch.manual_seed(0)
    family, model = MODELS[request.param]
    colorizer = build_colorizer(family, **model)
    card = {"family": family, "model": model, "size": 32, "name": request.param}
    save_weights(tmp_path / "w.safetensors", published_state(colorizer), card)
    return tmp_path / "w.safetensors"


@pytest.mark.slow
def test_the_graph_predicts_what_torch_predicts(weights, tmp_path, capsys):
    file = tmp_path / "w.onnx"
    assert export.main([str(weights), f"--onnx={file}"]) == 0
    assert "largest difference from PyTorch at" in capsys.readouterr().out
    colorizer = load_colorizer(weights)
    (card,) = [json.loads(p.value) for p in onnx.load(file).metadata_props if p.key == "card"]
    assert card == colorizer.card
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    n = colorizer.multiple
    for shape in ((1, 1, n, 4 * n), (3, 1, 3 * n, 2 * n)):
        L = torch.rand(shape) * 100
        with torch.no_grad():
            expected = colorizer(L).numpy()
        (found,) = session.run(None, {"L": L.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_a_graph_that_is_off_is_refused(monkeypatch, tmp_path, capsys):
    family, model = MODELS["classifier"]
    colorizer = build_colorizer(family, **model)
    card = {"family": family, "model": model, "size": 32}
    save_weights(tmp_path / "w.safetensors", colorizer.state_dict(), card)
    real = export.to_onnx

    def changed(colorizer, opset):
        found = real(colorizer, opset)
        with torch.no_grad():
            colorizer.quantizer.ab_bins.mul_(-1)
            colorizer.network[-1].bias.copy_(torch.linspace(-3, 3, 261))
        return found

    monkeypatch.setattr(export, "to_onnx", changed)
    assert export.main([str(tmp_path / "w.safetensors"), f"--onnx={tmp_path / 'w.onnx'}"]) == 2
    assert "differs from PyTorch by" in capsys.readouterr().err
    assert not (tmp_path / "w.onnx").exists()


def test_what_cannot_be_exported_is_one_sentence(tmp_path, capsys):
    for argv in (["nowhere", "--onnx=x.onnx"], ["nowhere", f"--onnx={tmp_path}/no/x.onnx"], ["nowhere"]):
        assert export.main(argv) == 2
        (printed,) = capsys.readouterr().err.splitlines()
        assert printed.startswith("error: ")

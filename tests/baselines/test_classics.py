"""The small systems that people build first: layer tables, parameter counts and laws."""

import pytest
import torch
from torch import nn

from baselines.fusion import Classifier, Fusion
from baselines.strided import CHANNELS, MeanChroma, Transposed
from common.checkpoint import parameter_count
from common.color.lab import L_to_unit, lab_to_rgb
from common.colorizer import Batch
from common.networks.fully_connected import FullyConnected
from common.registry import build_colorizer
from common.training.parser import config_from_dict
from common.utils.errors import UserError

NARROW = (8, 16, 32, 64, 128, 256)


@pytest.mark.parametrize("channels", [CHANNELS, NARROW])
def test_counts_of_the_strided_networks(channels):
    pairs = sum(before * after for before, after in zip((1, *channels), channels, strict=False))
    down = 16 * pairs + 2 * sum(channels)  # 4x4 kernels, scale and shift of batch norm
    assert parameter_count(MeanChroma(64, channels)) == down + 2 * (channels[-1] + 1)
    up = 16 * (pairs - channels[0]) + 2 * sum(channels[:-1]) + (16 * channels[0] + 1) * 2
    assert parameter_count(Transposed(64, channels)) == down + up


def test_published_counts_of_the_strided_networks():
    assert parameter_count(MeanChroma(64)) == 3_837_890
    assert parameter_count(MeanChroma(64, NARROW)) == 700_018
    assert parameter_count(Transposed(64)) == 7_673_218
    maps = []
    network = MeanChroma(64)
    for layer in network.down:
        layer.register_forward_hook(lambda layer, _, out: maps.append(tuple(out.shape[1:])))
    network(torch.zeros(2, 1, 64, 64))
    assert maps[::3] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (256, 2, 2), (512, 1, 1)]


def test_the_mean_chroma_is_one_color_at_any_size():
    network = MeanChroma(64, NARROW).eval()
    out = network(torch.rand(2, 1, 64, 64))
    assert torch.equal(out, out[:, :, :1, :1].expand_as(out))
    wide = network(torch.rand(1, 1, 40, 96))
    assert wide.shape == (1, 2, 40, 96)
    assert wide.std(dim=(2, 3)).max() < 1e-6


def test_the_loss_on_pixels_trains_the_mean_color():
    """Its gradient is that of the squared error of the means, because the variance of the pixels is constant."""
    torch.manual_seed(0)
    batch = Batch(torch.rand(4, 1, 64, 64) * 100, torch.randn(4, 2, 64, 64) * 30)
    colorizer = build_colorizer("baselines", network="mean_chroma", channels=[4] * 6)
    (objective,) = colorizer.training_step(batch)
    weight = colorizer.network.linear.weight
    (found,) = torch.autograd.grad(objective.loss, weight)
    means = (colorizer(batch.L).mean(dim=(2, 3)) - batch.ab.mean(dim=(2, 3))) / 110
    (expected,) = torch.autograd.grad(means.square().mean(), weight)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_the_sigmoid_is_a_tanh_of_half():
    torch.manual_seed(0)
    tanh, sigmoid = Transposed(64, NARROW), Transposed(64, NARROW, "sigmoid")
    sigmoid.load_state_dict(tanh.state_dict())
    last = tanh.up[-1]
    last.weight.data /= 2
    last.bias.data /= 2
    x = torch.rand(2, 1, 64, 128)
    torch.testing.assert_close(sigmoid.eval()(x), tanh.eval()(x))


def test_layers_of_the_fully_connected_network():
    with torch.device("meta"):
        network = FullyConnected(64)
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)
    assert network.linear.in_features == 33_856
    assert network.linear.out_features == 8_192
    assert parameter_count(network.linear) == 277_356_544
    convolutions = [layer for layer in network.convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [8, 16, 32, 64, 128, 16]
    assert {(layer.kernel_size, layer.padding) for layer in convolutions} == {((4, 4), (0, 0))}
    assert parameter_count(FullyConnected(32).linear) == 6_424_576


def test_dropout_follows_each_batch_norm():
    layers = list(FullyConnected(32, dropout=0.3).convolutions)
    after = [layers[i + 1] for i, layer in enumerate(layers) if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.p for layer in after] == [0.3] * 6
    assert not any(isinstance(layer, nn.Dropout) for layer in FullyConnected(32).modules())


def test_the_fully_connected_classifier_has_logits_at_a_quarter():
    colorizer = build_colorizer("classification", network="fully_connected", size=32).eval()
    linear = colorizer.network.linear
    assert (linear.in_features, linear.out_features) == (3_136, 2_048)  # as for two numbers per pixel
    assert colorizer.logits(torch.rand(2, 1, 32, 32) * 100).shape == (2, 261, 8, 8)
    assert colorizer(torch.rand(1, 1, 64, 96) * 100).shape == (1, 2, 64, 96)


def test_an_exact_rgb_prediction_has_the_true_ab():
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 16, 16)
    colorizer = build_colorizer("baselines", target="rgb")
    colorizer.network = torch.nn.Module()
    colorizer.network.forward = lambda L: 2 * rgb - 1
    lab = colorizer.lab(torch.zeros(1, 1, 16, 16))
    torch.testing.assert_close(colorizer(lab[:, :1]), lab[:, 1:])
    (objective,) = colorizer.training_step(Batch(lab[:, :1], lab[:, 1:]))
    assert objective.loss.item() < 1e-8
    darker = Batch(lab[:, :1] - 1.0, lab[:, 1:])
    assert colorizer.hooks.diagnose(darker).scalars["lightness/rmse"] == pytest.approx(1.0, abs=1e-4)


def test_the_loss_of_rgb_is_on_rgb():
    colorizer = build_colorizer("baselines", target="rgb", loss="l1")
    colorizer.network.forward = lambda L: torch.zeros(1, 3, 8, 8)  # middle grey
    lab = torch.tensor([50.0, 40.0, -20.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    (objective,) = colorizer.training_step(Batch(lab[:, :1], lab[:, 1:]))
    assert objective.loss.item() == pytest.approx(float((2 * lab_to_rgb(lab) - 1).abs().mean()), rel=1e-5)


def test_layers_of_the_fusion():
    plain, fused = Fusion(), Fusion(Classifier("tf_efficientnet_lite0"))
    assert parameter_count(plain) == 6_317_794
    assert parameter_count(fused) == 6_317_794 + 256 * 1000  # 1,000 more inputs of the 1x1 convolution
    assert not list(fused.classifier.parameters())
    assert plain.encoder(torch.zeros(1, 1, 32, 48)).shape == (1, 256, 4, 6)
    assert not any(module.training for module in fused.train().classifier.network.modules())


def test_the_classifier_reaches_every_position():
    torch.manual_seed(0)
    network = Fusion(Classifier("resnet18", size=32)).eval()
    x = torch.rand(1, 1, 32, 32) - 0.5
    expected = network.classifier.network(
        (0.5 * torch.ones(1, 3, 32, 32) - network.classifier.mean) / network.classifier.std
    )
    grey = torch.full((1, 1, 64, 64), float(L_to_unit(torch.tensor(53.3890))))  # sRGB 0.5
    torch.testing.assert_close(network.classifier(grey), expected, atol=2e-3, rtol=1e-3)
    before = network(x)
    network.classifier.forward = lambda L: torch.ones(1, 1000) * 30
    assert (network(x) != before).float().mean() > 0.99


@pytest.mark.parametrize(
    ("family", "model", "size", "text"),
    [
        ("baselines", {"network": "mean_chroma"}, 32, "is 32: 6 strided convolutions .* a multiple of 64"),
        ("baselines", {"network": "transposed"}, 96, "is 96: 6 strided convolutions"),
        ("baselines", {"network": "transposed", "channels": [8, 0]}, 64, r"model.channels is \[8, 0\]: expected"),
        ("baselines", {"network": "transposed", "channels": []}, 64, r"model.channels is \[\]: expected"),
        ("baselines", {"network": "fully_connected"}, 128, "is 128: expected 32 or 64"),
        ("classification", {"network": "fully_connected"}, 24, "is 24: expected 32 or 64"),
        ("baselines", {"network": "fully_connected", "dropout": 1.0}, 32, "model.dropout is 1.0: expected"),
        ("baselines", {"network": "fusion", "encoder_size": 8}, 32, "model.encoder_size is 8: expected 32"),
        ("baselines", {"network": "fusion", "encoder": "resnet_18"}, 32, "model.encoder is resnet_18: expected a name"),
        ("baselines", {"network": "fully_connected", "loss": "cross_entropy"}, 32, "--family classification"),
        ("baselines", {"target": "rgb", "loss": "perceptual"}, 32, "model.target is rgb: expected losses on pixels"),
    ],
)
def test_bad_options_are_one_sentence(family, model, size, text):
    config = config_from_dict({"family": family, "model": model, "data": {"size": size}})
    with pytest.raises(UserError, match=text) as caught:
        build_colorizer(config.family, **config.model)
    assert "\n" not in str(caught.value)


def test_the_classifier_of_the_paper_is_known_by_name(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(UserError, match=r"of inception_resnet_v2 cannot be loaded .* set model.pretrained"):
        build_colorizer("baselines", network="fusion", encoder="inception_resnet_v2", pretrained=True)


def test_older_configs_of_baselines_have_the_new_options():
    from common.registry import upgraded

    old = {"network": "cnn", "loss": "mse"}
    assert upgraded("baselines", old) == upgraded("baselines", old | {"size": 64})
    sized = {"network": "mean_chroma", "size": 64}
    assert upgraded("baselines", sized)["size"] == 64

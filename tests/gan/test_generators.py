import pytest
import torch
from torch import nn

from common.checkpoint import parameter_count
from common.utils.errors import UserError
from gan.encoder_unet import SelfAttention, TimmUNet, init_icnr
from gan.generators import GeneratorConfig, build_generator, halvings
from gan.unet import UNet, init_pix2pix


def test_published_parameter_count():
    """pix2pix's own number, with its three channels in and out: 54.41 M."""
    assert parameter_count(UNet(depth=8, in_channels=3, out_channels=3)) / 1e6 == pytest.approx(54.41, abs=0.01)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_unet_ends_in_one_pixel(size):
    network = UNet(depth=halvings(size), width=4).eval()
    shapes = []
    network.down[-1].register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-2:]))
    out = network(torch.zeros(1, 1, size, size))
    assert shapes == [(1, 1)]
    assert out.shape == (1, 2, size, size)
    assert out.abs().max() <= 1


def test_initialization():
    torch.manual_seed(0)
    network = init_pix2pix(UNet(depth=5, width=32))
    weights = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_dropout_is_in_the_widest_decoder_blocks():
    network = UNet(depth=8)
    places = [i for i, block in enumerate(network.up) if isinstance(block[-1], nn.Dropout)]
    assert places == [1, 2, 3]  # after the innermost: CD512-CD512-CD512
    assert not any(isinstance(m, nn.Dropout) for m in UNet(depth=8, dropout=0.0).modules())


def test_without_skips_the_bottleneck_is_all_there_is():
    """Two pictures that the innermost layer cannot tell apart come out alike; with skips they do not."""
    for network, alike in ((UNet(5, 4, skips=False), True), (UNet(5, 4), False)):
        network.eval()
        network.down[-1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        out = network(torch.rand(2, 1, 32, 32))
        assert torch.equal(out[0], out[1]) is alike


def test_dropout_at_test_is_noise_but_a_picture_stays_itself():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 64).expand(2, -1, -1, -1)
    off, on = UNet(6, 4), UNet(6, 4, dropout_at_test=True)
    on.load_state_dict(off.state_dict())
    found = on.eval()(x)
    assert torch.equal(found, on(x))
    torch.testing.assert_close(found[0], found[1])  # wherever it stands in a batch
    assert not torch.allclose(on(x), off.eval()(x))
    assert not torch.equal(on.train()(x), on(x))


def test_noise_channels_are_seen():
    torch.manual_seed(0)
    network = UNet(4, 4, noise_channels=2)
    x = torch.rand(1, 1, 16, 16).expand(2, -1, -1, -1)
    assert network.down[0][1].in_channels == 3
    found = network.eval()(x)
    assert torch.equal(found, network(x))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.equal(network.train()(x), network(x))


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
@pytest.mark.parametrize("up", ["shuffle", "bilinear"])
def test_a_unet_on_any_timm_encoder(encoder, up):
    network = TimmUNet(encoder, up=up, width=8, norm="none")
    with torch.no_grad():  # timm's residual branches begin at zero
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    size = 2 * network.multiple
    out = network(torch.rand(2, 1, size, size))
    assert out.shape == (2, 2, size, size)
    out.square().mean().backward()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()]
    assert sum(reached) > 0.9 * len(reached)


class Blanked(nn.Module):
    """An encoder one of whose feature maps is empty."""

    def __init__(self, encoder, which):
        super().__init__()
        self.encoder, self.which = encoder, which

    def forward(self, x):
        return [m * (i != self.which) for i, m in enumerate(self.encoder(x))]


def test_every_scale_of_the_encoder_reaches_the_output():
    """Blanking any one feature map changes what comes out: no skip is left unwired."""
    torch.manual_seed(0)
    network = TimmUNet("resnet18", width=8).eval()
    network.last.weight.data.mul_(50)
    x = torch.rand(1, 1, 32, 32)
    whole, encoder = network(x), network.encoder
    for i in range(5):
        network.encoder = Blanked(encoder, i)
        assert not torch.equal(network(x), whole), i


def test_icnr_starts_as_nearest_neighbor_upsampling():
    conv = nn.Conv2d(6, 5 * 4, 1)
    init_icnr(conv, 2)
    x = torch.rand(1, 6, 3, 3)
    out = nn.PixelShuffle(2)(conv(x))
    torch.testing.assert_close(out, nn.Upsample(scale_factor=2)(out[..., ::2, ::2]))


def test_self_attention_is_the_formula_and_begins_as_the_identity():
    torch.manual_seed(0)
    layer = SelfAttention(16)
    x = torch.rand(2, 16, 3, 5)
    assert torch.equal(layer(x), x)
    layer.gain.data.fill_(0.7)
    q, k, v = (m(x).flatten(2) for m in (layer.query, layer.key, layer.value))
    weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)  # [N, here, there]
    expected = x + 0.7 * (v @ weights.transpose(1, 2)).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("options", "size", "says"),
    [
        ({}, 50, "is 50: the U-Net halves it"),
        ({}, 0, "is 0: the U-Net halves it"),
        ({"depth": 7}, 64, "model.generator.depth is 7: at 64 px, expected 3 to 6"),
        ({"network": "timm"}, 48, "is 48: this generator halves it until it is 32 times smaller"),
        ({"network": "timm", "encoder": "resnet81"}, 64, "did you mean 'resnet18'"),
        ({"network": "timm", "attention": 3}, 64, "with resnet18, expected 0 or one of 2, 4, 8, 16, 32"),
        ({"network": "timm", "depth": 4}, 64, "model.generator.depth is 4: the network timm does not use it"),
        ({"pretrained": True}, 64, "model.generator.pretrained is True: the network unet does not use it"),
        ({"encoder": "convnext_tiny"}, 64, "the network unet does not use it: its options are width, depth"),
        (
            {"network": "dynamic_unet", "width": 8},
            64,
            "dynamic_unet does not use it: its options are pretrained",
        ),
        ({"network": "timm", "encoder": "swin_tiny_patch4_window7_224"}, 64, "no feature maps at every size"),
        ({"network": "timm", "encoder": "vit_tiny_patch16_224"}, 64, "no feature maps at every size"),
        ({"dropout": 1.0}, 64, "model.generator.dropout is 1.0"),
        ({"width": 0}, 64, "model.generator.width is 0"),
        ({"noise_channels": -1}, 64, "model.generator.noise_channels is -1"),
    ],
)
def test_bad_options_are_one_sentence(options, size, says):
    with pytest.raises(UserError) as caught:
        build_generator(GeneratorConfig(**options), size)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", refused)
    with pytest.raises(UserError, match=r"weights of resnet10t cannot be loaded through timm .*put them into"):
        build_generator(GeneratorConfig("timm", encoder="resnet10t", pretrained=True), 64)


def refused(*arguments, **options):
    raise OSError("no network")

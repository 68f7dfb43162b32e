import math

import pytest
import torch
import torch.nn.functional as F

from common.checkpoint import parameter_count
from common.colorizer import Batch, build_colorizer, frozen
from common.errors import UserError
from common.lab import L_to_unit, ab_to_unit
from gan.adversarial import halvings
from gan.losses import adversarial_loss
from gan.patchgan import LAYERS, PatchGAN
from gan.unet import UNet, init_pix2pix


def test_published_parameter_counts():
    """pix2pix's own numbers, with its three channels in and out: 54.41 M and 2.77 M."""
    assert parameter_count(UNet(depth=8, in_channels=3, out_channels=3)) / 1e6 == pytest.approx(54.41, abs=0.01)
    assert parameter_count(PatchGAN(70, in_channels=6)) / 1e6 == pytest.approx(2.77, abs=0.005)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_unet_ends_in_one_pixel(size):
    network = UNet(depth=halvings(size), width=4).eval()
    shapes = []
    network.down[-1].register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-2:]))
    out = network(torch.zeros(1, 1, size, size))
    assert shapes == [(1, 1)]
    assert out.shape == (1, 2, size, size)
    assert out.abs().max() <= 1


@pytest.mark.parametrize("receptive_field", LAYERS)
def test_receptive_fields_by_gradient(receptive_field):
    """The pixels whose change can move one logit are a square of exactly that side."""
    torch.manual_seed(0)
    network = PatchGAN(receptive_field, width=2, norm="none").double()
    for parameter in network.parameters():  # positive weights: no path cancels another
        parameter.data.abs_().add_(0.01)
    size = max(64, 2 * receptive_field)
    lab = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = network(lab)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    touched = lab.grad.abs().sum(dim=(0, 1)) > 0
    assert int(touched.any(dim=0).sum()) == receptive_field
    assert int(touched.any(dim=1).sum()) == receptive_field


@pytest.mark.parametrize("receptive_field", [r for r in LAYERS if r > 1])
def test_the_smallest_size_of_a_receptive_field(receptive_field):
    """What build refuses is just what cannot be computed."""
    smallest = 3 * 2 ** LAYERS[receptive_field]
    network = PatchGAN(receptive_field, width=2, norm="none")
    assert network(torch.zeros(1, 3, smallest, smallest)).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, smallest - 1, smallest - 1))


def test_patches_of_70_give_30x30_logits_at_256():
    assert PatchGAN(70, width=2)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_initialisation():
    torch.manual_seed(0)
    network = init_pix2pix(UNet(depth=5, width=32))
    weights = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, torch.nn.Conv2d)])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_dropout_is_in_the_widest_decoder_blocks():
    network = UNet(depth=8)
    places = [i for i, block in enumerate(network.up) if isinstance(block[-1], torch.nn.Dropout)]
    assert places == [1, 2, 3]  # after the innermost: CD512-CD512-CD512
    assert not any(isinstance(m, torch.nn.Dropout) for m in UNet(depth=8, dropout=0.0).modules())


def test_adversarial_losses():
    logits = torch.tensor([[0.3, -2.0]])
    assert float(adversarial_loss("vanilla", logits, True)) == pytest.approx(
        sum(math.log(1 + math.exp(-x)) for x in (0.3, -2.0)) / 2
    )
    assert float(adversarial_loss("vanilla", logits, False)) == pytest.approx(
        sum(math.log(1 + math.exp(x)) for x in (0.3, -2.0)) / 2
    )
    assert float(adversarial_loss("lsgan", logits, True)) == pytest.approx(((0.7) ** 2 + 9) / 2)
    assert float(adversarial_loss("lsgan", logits, False)) == pytest.approx((0.09 + 4) / 2)
    assert adversarial_loss("vanilla", logits.bfloat16(), True).dtype == torch.float32


def small(**options):
    torch.manual_seed(0)
    model = {"size": 16, "width": 4, "discriminator_width": 4, "receptive_field": 16, "dropout": 0.0, "norm": "none"}
    return build_colorizer("gan", **model | options)


def test_the_objectives_are_pix2pixs():
    colorizer = small(l1_weight=10.0, adversarial_weight=3.0)
    batch = Batch(torch.rand(2, 1, 16, 16) * 100, torch.rand(2, 2, 16, 16) * 80 - 40)
    generator, discriminator = colorizer.training_step(batch)
    L, real = L_to_unit(batch.L), ab_to_unit(batch.ab)
    with torch.no_grad():
        fake = colorizer.generator(L)
        said_real, said_fake = (colorizer.discriminator(torch.cat([L, ab], 1)) for ab in (real, fake))
    bce = F.binary_cross_entropy_with_logits
    l1, fooled = F.l1_loss(fake, real), bce(said_fake, torch.ones_like(said_fake))
    torch.testing.assert_close(generator.loss, 10 * l1 + 3 * fooled)
    expected = (bce(said_real, torch.ones_like(said_real)) + bce(said_fake, torch.zeros_like(said_fake))) / 2
    torch.testing.assert_close(discriminator.loss, expected)


def test_the_discriminator_sees_lightness():
    colorizer = small()
    ab = torch.zeros(1, 2, 16, 16)
    logits = [colorizer.discriminator(torch.cat([torch.full((1, 1, 16, 16), v), ab], 1)) for v in (-1.0, 1.0)]
    assert not torch.allclose(*logits)


def test_frozen_passes_gradients_through_and_restores():
    colorizer = small()
    lab = torch.rand(1, 3, 16, 16, requires_grad=True)
    with frozen(colorizer.discriminator) as judge:
        judge(lab).sum().backward()
    assert lab.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in colorizer.discriminator.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 50}, "is 50: the U-Net halves it"),
        ({"size": 0}, "is 0: the U-Net halves it"),
        ({"receptive_field": 33}, "model.receptive_field is 33: it takes 1, 16, 34, 70, 142, 286"),
        ({"size": 32, "receptive_field": 142}, "at 32 px it takes 1, 16, 34, 70"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"l1_weight": 0.0, "adversarial_weight": 0.0}, "one must be above 0"),
        ({"l1_wieght": 1.0}, "did you mean 'l1_weight'"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        small(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)

import pytest
import torch
from torch import nn

from common.checkpoint import parameter_count
from common.utils.errors import UserError
from gan.patchgan import LAYERS, DiscriminatorConfig, MultiScale, PatchGAN, build_discriminator


def test_published_parameter_count():
    assert parameter_count(PatchGAN(70, in_channels=6)) / 1e6 == pytest.approx(2.77, abs=0.005)


def test_patches_of_70_give_30x30_logits_at_256():
    assert PatchGAN(70, width=2)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def touched(network, size, pick):
    """The side of the square of pixels whose change can move the logit in the middle."""
    for parameter in network.parameters():  # positive weights: no path cancels another
        parameter.data.abs_().add_(0.01)
    lab = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = pick(network(lab))
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = lab.grad.abs().sum(dim=(0, 1)) > 0
    sides = int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())
    assert sides[0] == sides[1]
    return sides[0]


@pytest.mark.parametrize("receptive_field", LAYERS)
def test_receptive_fields_by_gradient(receptive_field):
    torch.manual_seed(0)
    network = PatchGAN(receptive_field, width=2, norm="none").double()
    assert touched(network, max(64, 2 * receptive_field), lambda logits: logits) == receptive_field


def test_the_second_scale_sees_twice_as_far():
    torch.manual_seed(0)
    network = build_discriminator(DiscriminatorConfig(34, width=2, norm="none", scales=2), 128).double()
    assert isinstance(network, MultiScale)
    assert touched(network, 128, lambda logits: logits[0]) == 34
    assert touched(network, 128, lambda logits: logits[1]) == 68


@pytest.mark.parametrize("receptive_field", [r for r in LAYERS if r > 1])
def test_the_smallest_size_of_a_receptive_field(receptive_field):
    """What is refused is just what cannot be computed."""
    smallest = 3 * 2 ** LAYERS[receptive_field]
    config = DiscriminatorConfig(receptive_field, width=2, norm="none")
    assert build_discriminator(config, smallest)(torch.zeros(1, 3, smallest, smallest)).shape == (1, 1, 1, 1)
    with pytest.raises(UserError, match=f"receptive_field is {receptive_field}: at {smallest - 1} px, expected"):
        build_discriminator(config, smallest - 1)
    with pytest.raises(RuntimeError):
        PatchGAN(receptive_field, width=2, norm="none")(torch.zeros(1, 3, smallest - 1, smallest - 1))


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    network = build_discriminator(DiscriminatorConfig(16, width=8, norm="none", spectral_norm=True), 32)
    for _ in range(30):  # power iterations
        network(torch.rand(2, 3, 32, 32))
    network.eval()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    gains = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in convolutions]
    assert gains == pytest.approx([1.0] * len(gains), abs=0.02)


def test_lightness_is_seen_when_it_is_conditional():
    assert build_discriminator(DiscriminatorConfig(16, conditional=True), 32).body[0].in_channels == 3
    assert build_discriminator(DiscriminatorConfig(16, conditional=False), 32).body[0].in_channels == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"receptive_field": 33}, "model.discriminator.receptive_field is 33: expected 1, 16, 34, 70, 142, 286"),
        ({"receptive_field": 142}, "at 32 px, expected one of 1, 16, 34, 70"),
        ({"receptive_field": 70, "scales": 2}, "at 16 px (its smallest scale), expected one of 1, 16, 34"),
        ({"updates": 0}, "model.discriminator.updates is 0"),
        ({"pool": -1}, "model.discriminator.pool is -1"),
        ({"instance_noise": -0.1}, "model.discriminator.instance_noise is -0.1"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        build_discriminator(DiscriminatorConfig(**options), 32)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)

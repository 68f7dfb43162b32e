import pytest
import torch
import torch.nn.functional as F

from common.checkpoint import published_state
from common.color.lab import L_to_unit, ab_to_unit
from common.utils.errors import UserError
from tests.gan.conftest import SIZE, small


def cycle(**options):
    return small(method="cyclegan", **{"loss": {"adversarial": "lsgan"}} | options)


@pytest.fixture
def unpaired(batch):
    torch.manual_seed(2)
    return batch._replace(grey=torch.rand(4, 1, SIZE, SIZE) * 100)


def test_the_objectives_are_cyclegans(unpaired):
    colorizer = cycle(loss={"adversarial": "lsgan", "cycle_weight": 10.0, "identity_weight": 4.0})
    generators, discriminators = colorizer.training_step(unpaired)
    painter, greyer = colorizer.generators.painter, colorizer.generators.greyer
    color, grey = torch.cat([L_to_unit(unpaired.L), ab_to_unit(unpaired.ab)], 1), L_to_unit(unpaired.grey)
    bare = lambda L: torch.cat([L, torch.zeros_like(L), torch.zeros_like(L)], 1)  # noqa: E731
    with torch.no_grad():
        painted = torch.cat([grey, painter(bare(grey))], 1)
        greyed = greyer(color)
        cycles = F.l1_loss(torch.cat([greyed, painter(bare(greyed))], 1), color) + F.l1_loss(greyer(painted), grey)
        identity = F.l1_loss(painter(color), color[:, 1:]) + F.l1_loss(greyer(bare(grey)), grey)
        judges = colorizer.discriminators
        said = [judges.color(painted), judges.grey(greyed), judges.color(color), judges.grey(grey)]
    fooled = sum((x - 1).square().mean() for x in said[:2])
    torch.testing.assert_close(generators.loss, 10 * cycles + 4 * identity + fooled)
    wrong = sum((x - 1).square().mean() for x in said[2:]) + sum(x.square().mean() for x in said[:2])
    torch.testing.assert_close(discriminators.loss, wrong / 2)


def test_four_networks_two_optimizers():
    colorizer = cycle()
    assert set(colorizer.networks()) == {"generators", "discriminators"}
    assert colorizer.discriminators.color.body[0].in_channels == 3
    assert colorizer.discriminators.grey.body[0].in_channels == 1
    assert {key.split(".")[1] for key in published_state(colorizer)} == {"painter"}


def test_the_pairs_never_meet(unpaired):
    """Nothing of the generators' objective changes when the grey photographs change places."""
    colorizer = cycle()
    losses = [next(colorizer.training_step(b)).loss for b in (unpaired, unpaired._replace(grey=unpaired.grey.flip(0)))]
    torch.testing.assert_close(*losses)


def test_the_identity_can_be_left_out(unpaired):
    objective = next(cycle(loss={"identity_weight": 0.0}).training_step(unpaired))
    assert set(objective.terms) == {"cycle_color", "cycle_grey", "adversarial_color", "adversarial_grey"}


def test_forward_keeps_the_painter_alone(unpaired):
    colorizer = cycle().eval()
    with torch.no_grad():
        ab = colorizer(unpaired.L)
    assert ab.shape == unpaired.ab.shape
    colorizer.generators.greyer = None
    assert torch.equal(colorizer(unpaired.L), ab)


def test_the_diagnosis_closes_the_cycles(unpaired):
    with torch.no_grad():
        scalars = cycle().eval().hooks.diagnose(unpaired).scalars
    assert scalars["cycle_color"] > 0
    assert 0 <= scalars["accuracy/fake"] <= 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stages": [{"train": "both", "share": 1.0}]}, "model.stages is given: the method cyclegan does not use it"),
        ({"perceptual": {"weight": 1.0}}, "model.perceptual.weight is given"),
        ({"loss": {"adversarial": "wgan-gp"}}, "takes vanilla, lsgan or hinge"),
        ({"loss": {"cycle_weight": 0.0}}, "needs both above 0"),
        ({"discriminator": {"conditional": False}}, "always gets L and ab"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        cycle(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)

import math

import pytest
import torch
from torch import nn

from common.utils.errors import UserError
from gan.losses import ADVERSARIAL, LossConfig, accuracy, gradient_penalty, mean_over_scales

X = torch.tensor([[0.3, -2.0]])


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("game", "real", "fake", "fool"),
    [
        ("vanilla", softplus(-0.3) + softplus(2), softplus(0.3) + softplus(-2), softplus(-0.3) + softplus(2)),
        ("lsgan", 0.7**2 + 9, 0.09 + 4, 0.7**2 + 9),
        ("hinge", 0.7 + 3, 1.3 + 0, -0.3 + 2),
        ("wgan-gp", -0.3 + 2, 0.3 - 2, -0.3 + 2),
    ],
)
def test_closed_forms(game, real, fake, fool):
    rules = ADVERSARIAL[game]
    assert float(rules.real(X, 1.0)) == pytest.approx(real / 2)
    assert float(rules.fake(X)) == pytest.approx(fake / 2)
    assert float(rules.generator(X)) == pytest.approx(fool / 2)


def test_label_smoothing_is_the_best_answer():
    """Told 0.9, a discriminator is happiest at the logit of 0.9."""
    for game, best in (("vanilla", math.log(9)), ("lsgan", 0.9)):
        at = [float(ADVERSARIAL[game].real(torch.tensor([best + d]), 0.9)) for d in (-0.1, 0.0, 0.1)]
        assert at[1] < min(at[0], at[2])


def test_losses_are_fp32_and_the_mean_of_scales():
    loss = mean_over_scales(ADVERSARIAL["lsgan"].fake, (X.bfloat16(), torch.full((3, 3), 2.0)))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(((0.3**2 + 4) / 2 + 4) / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("game", "real", "fake", "expected"),
    [
        ("vanilla", [1.0, -1.0], [-3.0, -3.0], (0.5, 1.0)),
        ("lsgan", [0.6, 0.4], [0.6, 0.4], (0.5, 0.5)),
        ("hinge", [2.0, 2.0], [2.0, 2.0], (1.0, 0.0)),
        ("wgan-gp", [7.0, 7.0], [5.0, 5.0], (1.0, 1.0)),
    ],
)
def test_accuracy(game, real, fake, expected):
    found = accuracy(ADVERSARIAL[game], torch.tensor(real), torch.tensor(fake))
    assert tuple(map(float, found)) == expected


class Slope(nn.Module):
    """A critic whose gradient is known: slope times the sum of the picture."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, picture):
        return (self.slope * picture).sum(dim=(1, 2, 3), keepdim=True)


def test_gradient_penalty_of_a_known_slope():
    """3 * 4 * 4 pixels of gradient s: a norm of s * sqrt(48); and the penalty's own gradient."""
    real, fake = torch.rand(2, 5, 3, 4, 4).unbind(0)
    critic = Slope(0.5)
    penalty = gradient_penalty(critic, real, fake)
    norm = 0.5 * math.sqrt(48)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-5)
    penalty.backward()
    assert critic.slope.grad.item() == pytest.approx(2 * (norm - 1) * math.sqrt(48), rel=1e-5)


def test_gradient_penalty_is_fp32_under_autocast():
    torch.manual_seed(0)
    critic = nn.Conv2d(3, 1, 3).requires_grad_(True)
    real, fake = torch.rand(2, 4, 3, 8, 8).unbind(0)
    torch.manual_seed(1)
    exact = gradient_penalty(critic, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient_penalty(critic, real, fake), exact)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"l1_weight": -1.0}, "model.loss.l1_weight is -1.0"),
        ({"label_smoothing": 0.6}, "expected a number in [0, 0.5)"),
        ({"label_smoothing": 0.1, "adversarial": "hinge"}, "and 0 with hinge"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        LossConfig(**options)
    assert says in str(caught.value)

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from common.color.guided_upsampling import GuidedUpsampling, guided_coefficients, working_size
from common.color.lab import rgb8_to_lab
from common.colorizer import Colorizer
from common.predictor import PredictorConfig, colorize_photo


class Painter(Colorizer):
    """Predicts colors far outside the gamut from lightness."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.5, -3.0]).view(1, 2, 1, 1))

    def forward(self, L):
        return (L - 50) * self.weight

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6), st.integers(1, 40))
def test_lightness_survives_any_picture(height, width, seed, coarse):
    rng = np.random.default_rng(seed)
    rgb = np.repeat(np.repeat(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), 1, 0), 1, 1)
    rgb[: height // 2] //= 1 + coarse % 7
    out = colorize_photo(Painter(), rgb, PredictorConfig(16))
    assert out.shape == rgb.shape
    before, after = (rgb8_to_lab(torch.from_numpy(x).permute(2, 0, 1))[0] for x in (rgb, out))
    assert float((before - after).abs().max()) <= 1


def two_halves(size):
    """A dark blue and a bright yellow half, with a sharp border in the middle."""
    L, ab = torch.full((1, 1, size, size), 30.0), torch.zeros(1, 2, size, size)
    L[..., size // 2 :] = 80
    ab[:, 1, :, : size // 2], ab[:, 1, :, size // 2 :] = -40, 60
    return L, ab


def test_color_bleeds_less_over_an_edge_than_bilinear():
    L, ab = two_halves(256)
    small = F.interpolate(ab, size=(32, 32), mode="area")
    # blur the border over three pixels of the small picture, as networks do
    small = F.avg_pool2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    bilinear = F.interpolate(small, size=(256, 256), mode="bilinear")
    guided = GuidedUpsampling(L, bilinear, 8, (256, 256)).strip(L, 0)
    squared = [(x - ab).square().mean().item() for x in (guided, bilinear)]
    assert squared[0] < 0.5 * squared[1]
    jump = [float(x[0, 1, 128, 128] - x[0, 1, 128, 127]) for x in (guided, bilinear)]  # the true jump is 100
    assert jump[0] > 50
    assert jump[1] < 5


def test_flat_regions_keep_the_predicted_color():
    ab = torch.full((1, 2, 64, 64), 20.0)
    L = torch.full((1, 1, 64, 64), 55.0)
    torch.testing.assert_close(GuidedUpsampling(L, ab, 8, (64, 64)).strip(L, 0), ab)


def test_the_filter_reproduces_a_linear_dependence():
    torch.manual_seed(0)
    L = torch.rand(1, 1, 40, 40) * 100
    ab = torch.cat([0.4 * L - 10, -0.2 * L + 3], dim=1)
    fitted = guided_coefficients(L, ab, radius=3, epsilon=1e-6)
    torch.testing.assert_close(fitted[:, :2] * L + fitted[:, 2:], ab, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 80), (100, 80)), ((3000, 5000), (307, 512)), ((1, 9000), (1, 512))]
)
def test_working_size(size, expected):
    assert working_size(*size) == expected

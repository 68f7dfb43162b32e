import numpy as np
import pytest
import torch

from common.colorizer import Colorizer
from common.evaluation.draws import difference_of_draws, drawn, draws_columns
from common.evaluation.evaluate import model_predictor
from common.registry import build_colorizer


class TwoColors(Colorizer):
    """One color for even seeds of the noise, another one for odd seeds."""

    noise_seed = 0

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Conv2d(1, 2, 1)

    def forward(self, L):
        ab = torch.tensor([4.0, 3.0] if self.noise_seed % 2 else [1.0, -1.0])
        return ab.view(1, 2, 1, 1).expand(len(L), -1, *L.shape[2:])

    def training_step(self, batch):
        raise NotImplementedError


def test_the_difference_is_the_mean_over_pairs(demo_pack):
    colorizer = TwoColors()
    found = difference_of_draws(model_predictor(colorizer), colorizer, demo_pack, 3, limit=5)
    between = np.sqrt((3**2 + 4**2) / 2)  # rmse over two channels of the colors' difference
    assert found["mean"] == pytest.approx(between * 2 / 3, rel=0.02)  # of three pairs, two differ; dark pixels: gamut
    assert colorizer.noise_seed == 0


def test_a_model_without_noise_does_not_differ(demo_pack):
    colorizer = build_colorizer("baselines", network="cnn").eval()
    found = difference_of_draws(model_predictor(colorizer), colorizer, demo_pack, 2, limit=3)
    assert found["mean"] == found["low"] == found["high"] == 0


@pytest.mark.parametrize("noise", [{"noise_channels": 1, "dropout": 0.0}, {"dropout_at_test": True}])
def test_noise_and_dropout_of_a_gan_make_samples(noise):
    torch.manual_seed(0)
    generator = {"width": 4, "depth": 5} | noise
    colorizer = build_colorizer("gan", size=32, generator=generator).eval()
    L = torch.rand(2, 1, 32, 32) * 100
    with torch.no_grad():
        first = colorizer(L)
        with drawn(colorizer, 1):
            second = colorizer(L)
        assert torch.equal(colorizer(L), first)
    assert not torch.equal(first, second)


def test_the_sheet_shows_each_sample(demo_pack):
    colorizer = TwoColors()
    columns = draws_columns(model_predictor(colorizer), colorizer, demo_pack, 3, photos=2)
    assert list(columns) == ["grey", "sample 1", "sample 2", "sample 3", "original"]
    assert np.array_equal(columns["sample 1"], columns["sample 3"])
    assert not np.array_equal(columns["sample 1"], columns["sample 2"])

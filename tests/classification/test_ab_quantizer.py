import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classification.ab_quantizer import ABQuantizer
from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

GRIDS = (5, 10, 20)


def dense(quantizer, indices, weights):
    """A sparse distribution [N, h, w, 5] as probabilities of all bins [N, Q, h, w]."""
    full = weights.new_zeros(*indices.shape[:-1], quantizer.num_bins)
    return full.scatter_add_(-1, indices, weights).movedim(-1, 1)


def at(a, b):
    return torch.tensor([a, b], dtype=torch.float32).view(1, 2, 1, 1)


def test_soft_weights_of_a_point_on_a_bin():
    """Itself, and its four neighbors at one grid step: 1 and exp(-g^2 / 2 sigma^2), normalized."""
    quantizer = ABQuantizer(10)
    indices, weights = quantizer.soft_encode(at(20, -10))
    side = math.exp(-(10**2) / (2 * 5**2))
    assert weights.flatten().tolist() == pytest.approx([1 / (1 + 4 * side)] + [side / (1 + 4 * side)] * 4)
    places = {tuple(quantizer.ab_bins[i].tolist()) for i in indices.flatten()}
    assert places == {(20, -10), (10, -10), (30, -10), (20, 0), (20, -20)}
    assert tuple(quantizer.ab_bins[indices.flatten()[0]].tolist()) == (20, -10)


@pytest.mark.parametrize("grid", GRIDS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_encoded_and_decoded_is_the_color_again(grid, data):
    """Within half a grid step for every sRGB color, and exactly for a bin that has all its neighbors."""
    quantizer = ABQuantizer(grid)
    values = st.integers(0, 255)
    rgb = data.draw(st.lists(st.tuples(values, values, values), min_size=1, max_size=30))
    ab = rgb8_to_lab(torch.tensor(rgb, dtype=torch.uint8).T[None, :, None])[:, 1:]
    logits = dense(quantizer, *quantizer.soft_encode(ab)).clamp(min=1e-30).log()
    again = quantizer.annealed_mean(logits, temperature=1)
    assert float((again - ab).norm(dim=1).max()) <= 0.5 * grid
    middle = at(2 * grid, grid) if grid == 5 else at(0, 0)
    logits = dense(quantizer, *quantizer.soft_encode(middle)).clamp(min=1e-30).log()
    torch.testing.assert_close(quantizer.annealed_mean(logits, 1), middle, atol=1e-4, rtol=0)


def test_the_dense_form_is_a_distribution():
    quantizer = ABQuantizer(10)
    ab = torch.randn(2, 2, 3, 4) * 40
    full = dense(quantizer, *quantizer.soft_encode(ab))
    assert full.shape == (2, 261, 3, 4)
    torch.testing.assert_close(full.sum(dim=1), torch.ones(2, 3, 4))
    assert int((full > 0).sum(dim=1).max()) <= 5
    assert torch.equal(full.argmax(dim=1), quantizer.nearest(ab))


def test_temperature_one_is_the_mean_and_towards_zero_the_mode():
    torch.manual_seed(0)
    quantizer = ABQuantizer(10)
    logits = torch.randn(2, 261, 3, 4) * 2
    p = torch.softmax(logits, dim=1)
    mean = torch.einsum("nqhw,qc->nchw", p, quantizer.ab_bins)
    torch.testing.assert_close(quantizer.annealed_mean(logits, 1), mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        quantizer.annealed_mean(logits, 1e-4), quantizer.ab_bins[logits.argmax(dim=1)].movedim(-1, 1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(quantizer.distribution(logits), p)
    # between the two, the paper's f_T(z) = exp(log(z) / T) / sum exp(log(z) / T)
    sharpened = p ** (1 / 0.38)
    sharpened /= sharpened.sum(dim=1, keepdim=True)
    torch.testing.assert_close(quantizer.distribution(logits, 0.38), sharpened, atol=1e-6, rtol=1e-3)


def test_two_equal_peaks_have_their_middle_as_mean():
    quantizer = ABQuantizer(10)
    logits = torch.full((1, 261, 1, 1), -50.0)
    one, other = (int(quantizer.nearest(at(*place))) for place in ((60, 40), (-40, 40)))
    logits[0, one] = logits[0, other] = 0
    for temperature in (0.1, 0.38, 1):
        assert quantizer.annealed_mean(logits, temperature).flatten().tolist() == pytest.approx([10, 40], abs=1e-3)


def test_decoding_is_in_fp32_under_autocast():
    quantizer = ABQuantizer(10)
    logits = torch.randn(1, 261, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer.annealed_mean(logits, 0.38)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, quantizer.annealed_mean(logits, 0.38), atol=0, rtol=0)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_must_be_above_zero(temperature):
    with pytest.raises(UserError, match=f"temperature is {temperature}: expected a number above 0"):
        ABQuantizer(10).annealed_mean(torch.zeros(1, 261, 1, 1), temperature)


def test_sigma_follows_the_grid_and_must_be_above_zero():
    assert [ABQuantizer(grid).sigma for grid in GRIDS] == [2.5, 5, 10]
    with pytest.raises(UserError, match="sigma is 0"):
        ABQuantizer(10, sigma=0)

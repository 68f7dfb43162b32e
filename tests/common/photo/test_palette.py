import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_lab
from common.photo.palette import _gain, transfer_palette
from common.utils.errors import UserError
from tests.conftest import photo_array


def normal(mean, covariance, seed=0, size=(60, 70)):
    """ab [1, 2, h, w] with exactly this mean and covariance."""
    x = np.random.default_rng(seed).normal(size=(2, size[0] * size[1]))
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x, bias=True)), x - x.mean(axis=1, keepdims=True))
    x = np.linalg.cholesky(np.array(covariance, dtype=float)) @ x + np.array(mean)[:, None]
    return torch.from_numpy(x.reshape(1, 2, *size)).float()


def mid(ab):
    return torch.full_like(ab[:, :1], 50.0)


def moments(ab):
    x = ab[0].flatten(1).double()
    return x.mean(dim=1), torch.cov(x, correction=0)


def picture(ab, L=50.0):
    return ab_to_rgb8(torch.full_like(ab[:, :1], L), ab)[0].permute(1, 2, 0).numpy()


def lab_of(rgb):
    lab = rgb8_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None])
    return lab[:, :1], lab[:, 1:]


REFERENCE = picture(normal((6, 12), [[60, -25], [-25, 90]], seed=3))


@pytest.mark.parametrize("covariance", [[[70, -10], [-10, 80]], [[150, -60], [-60, 90]], [[300, 0], [0, 40]]])
def test_mean_and_covariance_become_the_references(covariance):
    ab = normal((-8, 3), covariance)
    mean, found = moments(transfer_palette(ab, mid(ab), REFERENCE))
    wanted_mean, wanted = moments(lab_of(REFERENCE)[1])
    torch.testing.assert_close(mean, wanted_mean, atol=0.01, rtol=0)
    torch.testing.assert_close(found, wanted, atol=0.3, rtol=0)


def test_the_map_is_the_closed_form_for_covariances_that_commute():
    """Diagonal ones: the ratio of the standard deviations, as Reinhard's."""
    gain = _gain(torch.diag(torch.tensor([4.0, 9.0])).double(), torch.diag(torch.tensor([9.0, 1.0])).double())
    torch.testing.assert_close(gain, torch.diag(torch.tensor([1.5, 1 / 3])).double())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=8, max_size=8))
def test_the_map_is_symmetric_positive_and_bounded(numbers):
    """As the gradient of a convex function must be, which makes it the map of least change; also where flat."""
    roots = torch.tensor(numbers, dtype=torch.float64).view(2, 2, 2)
    covariance, wanted = (r @ r.T for r in roots)
    gain = _gain(covariance, wanted)
    torch.testing.assert_close(gain, gain.T, atol=1e-6, rtol=0)
    values = torch.linalg.eigvalsh(gain)
    assert values.min() > -1e-9
    assert values.max() <= 1.6 + 1e-9
    if values.max() < 1.59 and min(torch.linalg.eigvalsh(c).min() for c in (covariance, wanted)) > 0.26:
        torch.testing.assert_close(gain @ covariance @ gain, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_photographs_own_palette_changes_nothing(seed):
    rgb = photo_array(seed, 90, 120)
    L, ab = lab_of(rgb)
    torch.testing.assert_close(transfer_palette(ab, L, rgb), ab, atol=1e-3, rtol=0)


def test_a_grey_reference_is_refused():
    ab = normal((0, 0), [[20, 0], [0, 20]])
    for grey in (np.full((30, 30, 3), 128, np.uint8), np.zeros((5, 5, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)):
        with pytest.raises(UserError, match="reference is grey, so it has no color to transfer"):
            transfer_palette(ab, mid(ab), grey)


def test_a_grey_prediction_becomes_the_references_mean_color():
    ab = torch.zeros(1, 2, 40, 50)
    out = transfer_palette(ab, mid(ab), REFERENCE)
    expected = moments(lab_of(REFERENCE)[1])[0].float()
    torch.testing.assert_close(out, expected.view(1, 2, 1, 1).expand_as(out), atol=1e-3, rtol=0)


def test_noise_is_not_amplified():
    for spread in (1e-6, 0.1, 1.0):
        ab = torch.randn(1, 2, 50, 50, generator=torch.Generator().manual_seed(0)) * spread
        out = transfer_palette(ab, mid(ab), REFERENCE)
        assert out.isfinite().all()
        assert (out.std(dim=(2, 3)) <= 1.61 * ab.std(dim=(2, 3)) + 1e-4).all()


def test_colors_on_one_line():
    """A sepia reference, and a prediction without one of its dimensions."""
    line = torch.linspace(-20, 20, 3000).view(1, 1, 50, 60)
    flat = torch.cat([line, 0 * line], dim=1)
    sepia = picture(torch.cat([0.3 * line, 0.9 * line], dim=1) + torch.tensor([8.0, 22.0]).view(1, 2, 1, 1))
    out = transfer_palette(flat, mid(flat), sepia)
    assert out.isfinite().all()
    mean, covariance = moments(out)
    torch.testing.assert_close(mean, moments(lab_of(sepia)[1])[0], atol=0.05, rtol=0)
    assert torch.linalg.eigvalsh(covariance).max() < 1.61**2 * 134


def test_black_and_white_stay():
    ab = normal((0, 0), [[20, 0], [0, 20]])
    L = mid(ab).clone()
    L[..., :20, :], L[..., 40:, :] = 0, 100
    out = transfer_palette(ab, L, REFERENCE)
    assert torch.equal(out[..., :20, :], ab[..., :20, :])
    assert torch.equal(out[..., 40:, :], ab[..., 40:, :])
    assert not torch.allclose(out[..., 20:40, :], ab[..., 20:40, :], atol=1)


def test_margins_of_the_reference_do_not_count():
    framed = np.zeros((100, 110, 3), dtype=np.uint8)
    framed[20:80, 20:90] = REFERENCE
    ab = normal((-8, 3), [[70, 20], [20, 50]])
    plain = transfer_palette(ab, mid(ab), REFERENCE)
    torch.testing.assert_close(transfer_palette(ab, mid(ab), framed), plain, atol=1e-3, rtol=0)


def test_a_black_photograph_and_a_tiny_one():
    for L in (torch.zeros(1, 1, 8, 8), torch.full((1, 1, 1, 1), 50.0)):
        ab = torch.zeros(1, 2, *L.shape[-2:])
        assert transfer_palette(ab, L, REFERENCE).isfinite().all()


def test_a_large_reference_is_sampled():
    large = np.repeat(np.repeat(REFERENCE, 20, axis=0), 20, axis=1)
    ab = normal((-8, 3), [[70, 20], [20, 50]])
    mean = moments(transfer_palette(ab, mid(ab), large))[0]
    torch.testing.assert_close(mean, moments(lab_of(REFERENCE)[1])[0], atol=0.5, rtol=0)

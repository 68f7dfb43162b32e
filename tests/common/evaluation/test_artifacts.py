import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from common.color.lab import rgb8_to_lab
from common.evaluation.artifacts import bleeding, blotch, gamut_share
from common.evaluation.pictures import Pictures, predicted_pictures
from tests.conftest import photo_array

SIZE = 48


def truth_of(L, ab):
    """A true picture from L [H, W] and ab [2, H, W]; its 8-bit sRGB is not used."""
    L, ab = torch.tensor(np.array(L)).float()[None, None], torch.tensor(np.array(ab)).float()[None]
    return predicted_pictures(L, ab)


def guess(true, ab):
    return predicted_pictures(true.L, torch.tensor(np.array(ab)).float()[None])


def two_colors(axis=1):
    """Dark and red next to light and blue, with a sharp border across the middle."""
    right = (np.arange(SIZE) >= SIZE // 2).astype(float)
    right = np.broadcast_to(right, (SIZE, SIZE)) if axis == 1 else np.broadcast_to(right[:, None], (SIZE, SIZE))
    return 35 + 30 * right, np.stack([20 - 30 * right, 10 - 35 * right])


def blurred(ab, sigma):
    return np.stack([gaussian_filter(plane, sigma, mode="nearest") for plane in ab]) if sigma else ab


@pytest.mark.parametrize("axis", [0, 1])
def test_bleeding_rises_with_the_blur_of_a_border(axis):
    L, ab = two_colors(axis)
    true = truth_of(L, ab)
    values = [float(bleeding(guess(true, blurred(ab, sigma)), true)) for sigma in (0, 1, 2, 4, 8)]
    assert values[0] == 0
    assert values == sorted(values)
    assert np.diff(values).min() > 0.01
    assert values[-1] < 2 / 3  # of a jump, a ramp has lost two thirds


def test_bleeding_of_one_and_a_half_pixels_by_the_error_function():
    """The three middle pixels and all nine of a blurred jump, by the integral of the Gaussian."""
    from scipy.special import erf

    L, ab = two_colors()
    true = truth_of(L, ab)
    steps = [erf(reach / (2.0 * np.sqrt(2))) for reach in (1.5, 4.5)]
    assert float(bleeding(guess(true, blurred(ab, 2)), true)) == pytest.approx(1 - steps[0] / steps[1], abs=0.02)


def test_pale_and_wrong_colors_with_sharp_borders_do_not_bleed():
    L, ab = two_colors()
    true = truth_of(L, ab)
    for other in (0.3 * ab, -ab, ab[::-1] + 7):
        assert float(bleeding(guess(true, other), true)) == pytest.approx(0, abs=1e-6)
    over = ab[:, :, np.clip(np.arange(SIZE) - 3, 0, None)]  # runs three pixels over the border, and ends sharply there
    assert float(bleeding(guess(true, over), true)) == 1


def test_bleeding_is_not_measured_without_borders():
    L, ab = two_colors()
    colored, grey, flat = truth_of(L, ab), truth_of(L, 0 * ab), truth_of(0 * L + 50, ab)
    assert bleeding(guess(colored, 0 * ab), colored).isnan()  # no step is painted
    assert bleeding(guess(grey, ab), grey).isnan()  # a grey photograph
    assert bleeding(guess(flat, ab), flat).isnan()  # no lightness edge
    small = Pictures(colored.ab[..., :8, :8], colored.rgb[..., :8, :8], L=colored.L[..., :8, :8])
    assert bleeding(small, small).isnan()


def blob(amplitude, radius=6.0):
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    hill = amplitude * np.exp(-(x**2 + y**2) / (2 * radius**2))
    return np.stack([hill, -hill])


def test_a_blob_of_color_in_a_smooth_place_is_a_blotch():
    L = np.broadcast_to(np.linspace(40, 60, SIZE), (SIZE, SIZE))
    for base in (0.0, 15.0):  # a grey photograph, and one of one color
        ab = np.full((2, SIZE, SIZE), base)
        true = truth_of(L, ab)
        values = [float(blotch(guess(true, ab + blob(a)), true)) for a in (0, 5, 10, 20)]
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values[1] > 0.3
        assert values[2] == pytest.approx(2 * values[1], rel=1e-3)
        assert values[3] == pytest.approx(4 * values[1], rel=1e-3)
    assert float(blotch(guess(true, np.full_like(ab, -10)), true)) == pytest.approx(0, abs=1e-6)


def test_a_blob_in_the_original_or_in_texture_is_no_blotch():
    L = np.full((SIZE, SIZE), 50.0)
    true = truth_of(L, blob(20))
    assert float(blotch(true, true)) == 0
    assert float(blotch(guess(true, 0.5 * blob(20)), true)) == pytest.approx(0, abs=1e-6)
    rough = truth_of(np.random.default_rng(0).uniform(0, 100, (SIZE, SIZE)), blob(0))
    assert blotch(guess(rough, blob(20)), rough).isnan()


def test_fine_noise_is_less_of_a_blotch_than_a_patch_of_the_same_strength():
    true = truth_of(np.full((96, 96), 50.0), np.zeros((2, 96, 96)))
    noise = np.random.default_rng(0).normal(size=(2, 96, 96))
    patches = blurred(noise, 5)
    patches *= noise.std() / patches.std()
    fine, coarse = (float(blotch(guess(true, 5 * x), true)) for x in (noise, patches))
    assert coarse > 1.5 * fine


def test_share_of_pixels_outside_of_srgb():
    L = np.full((SIZE, SIZE), 50.0)
    L[:12] = 99.0  # nearly white: hardly any color fits
    true = truth_of(L, np.zeros((2, SIZE, SIZE)))
    color = np.stack([np.full((SIZE, SIZE), 30.0), np.full((SIZE, SIZE), 20.0)])
    assert float(gamut_share(guess(true, color), true)) == pytest.approx(12 / SIZE)
    assert float(gamut_share(guess(true, 5 * color), true)) == 1
    assert float(gamut_share(guess(true, 0 * color), true)) == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_the_original_has_no_artifacts(seed):
    rgb = torch.from_numpy(np.stack([photo_array(seed + i, SIZE, SIZE) for i in range(2)])).permute(0, 3, 1, 2)
    lab = rgb8_to_lab(rgb)
    true = Pictures(lab[:, 1:], rgb, L=lab[:, :1])
    for metric in (gamut_share, bleeding, blotch):
        values = metric(true, true)
        assert bool((values.isnan() | (values == 0)).all()), metric
        torch.testing.assert_close(metric(true, true._replace(L=None)), values, equal_nan=True, atol=1e-4, rtol=0)

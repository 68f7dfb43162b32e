import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import lab2rgb, rgb2lab

from common.color.gamut import ab_to_rgb8, fit_gamut
from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit, lab_to_rgb, rgb8_to_L, rgb8_to_lab, rgb_to_lab


def planes(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3)))


@pytest.fixture
def colors():
    """A picture of random colors and the corners of the sRGB cube."""
    rng = np.random.default_rng(0)
    rgb = rng.random((2, 50, 60, 3))
    rgb[0, 0, :8] = [[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    return rgb


def test_rgb_to_lab_is_scikit_images(colors):
    expected = rgb2lab(colors)
    assert np.abs(rgb_to_lab(planes(colors).float()).numpy() - np.moveaxis(expected, -1, 1)).max() < 1e-3
    assert np.abs(rgb_to_lab(planes(colors)).numpy() - np.moveaxis(expected, -1, 1)).max() < 1e-9


def test_lab_to_rgb_is_scikit_images(colors):
    lab = rgb2lab(colors)
    expected = np.moveaxis(lab2rgb(lab), -1, 1)
    assert np.abs(lab_to_rgb(planes(lab)).numpy() - expected).max() < 1e-6
    assert np.abs(lab_to_rgb(planes(lab).float()).numpy() - expected).max() < 1e-4


def test_the_table_for_8_bits_equals_the_formula():
    rgb = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 40, 40), dtype=np.uint8))
    torch.testing.assert_close(rgb8_to_lab(rgb), rgb_to_lab(rgb / 255), atol=1e-4, rtol=0)


def test_every_8_bit_color_survives_the_round_trip():
    wrong = 0
    for red in range(0, 256, 32):
        parts = torch.meshgrid(torch.arange(red, red + 32), torch.arange(256), torch.arange(256), indexing="ij")
        rgb = torch.stack(parts).to(torch.uint8).reshape(3, 32 * 256, 256)
        lab = rgb8_to_lab(rgb)
        wrong += int((ab_to_rgb8(lab[:1], lab[1:]) != rgb).sum())
    assert wrong == 0


def test_gradients():
    torch.manual_seed(0)
    rgb = (torch.rand(1, 3, 3, 4, dtype=torch.float64) * 0.9 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, rgb)
    lab = rgb_to_lab(rgb.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lab_to_rgb(x, clip=False), lab)


def test_gradients_are_finite_at_black_and_white():
    rgb = torch.stack([torch.zeros(3), torch.ones(3)]).T[None, :, None].contiguous().requires_grad_()
    rgb_to_lab(rgb).sum().backward()
    assert rgb.grad.isfinite().all()
    lab = torch.tensor([[0.0, 0, 0], [100, 0, 0], [50, 200, -200]]).T[None, :, None].contiguous().requires_grad_()
    lab_to_rgb(lab).sum().backward()
    assert lab.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_under_autocast(colors, dtype):
    rgb = planes(colors).float()
    expected = rgb_to_lab(rgb)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = rgb_to_lab(rgb)
        back = lab_to_rgb(got)
    assert got.dtype == back.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(back, rgb, atol=1e-4, rtol=0)
    assert rgb_to_lab(rgb.to(dtype)).dtype == torch.float32


@pytest.mark.parametrize(
    ("rgb", "error"),
    [
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), TypeError),
        (torch.full((1, 3, 2, 2), 1.5), ValueError),
        (torch.full((1, 3, 2, 2), -0.1), ValueError),
        (torch.full((1, 3, 2, 2), float("nan")), ValueError),
        (torch.zeros(1, 4, 2, 2), ValueError),
        (torch.zeros(2, 2), ValueError),
    ],
)
def test_refuses(rgb, error):
    with pytest.raises(error):
        rgb_to_lab(rgb)


def test_table_refuses_floats():
    with pytest.raises(TypeError, match="rgb_to_lab"):
        rgb8_to_lab(torch.zeros(3, 2, 2))


def test_scalings():
    assert L_to_unit(torch.tensor([0.0, 100.0])).tolist() == [-1, 1]
    ab = torch.tensor([-110.0, 0.0, 55.0])
    torch.testing.assert_close(ab_from_unit(ab_to_unit(ab)), ab)
    assert ab_to_unit(ab).tolist() == [-1, 0, 0.5]


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 100), st.floats(-180, 180), st.floats(0, 200))
def test_gamut_keeps_lightness_and_hue(L, hue, chroma):
    angle = np.deg2rad(hue)
    L_t = torch.tensor(L, dtype=torch.float32).view(1, 1, 1, 1)
    ab = torch.tensor([chroma * np.cos(angle), chroma * np.sin(angle)], dtype=torch.float32).view(1, 2, 1, 1)
    fitted = fit_gamut(L_t, ab)
    # the same direction, never longer
    assert float(fitted.norm()) <= float(ab.norm()) + 1e-4
    cross = fitted[0, 0] * ab[0, 1] - fitted[0, 1] * ab[0, 0]
    assert abs(float(cross)) < 1e-2
    # inside sRGB: clipping changes almost nothing, and the rounded picture has the given lightness
    free = lab_to_rgb(torch.cat([L_t, fitted], dim=1), clip=False)
    assert float(free.min()) > -2e-3
    assert float(free.max()) < 1 + 2e-3
    assert abs(float(rgb8_to_lab(ab_to_rgb8(L_t, ab))[0, 0]) - L) < 0.5


def test_fit_gamut_does_not_change_colors_inside(colors):
    lab = rgb_to_lab(planes(colors).float())
    torch.testing.assert_close(fit_gamut(lab[:, :1], lab[:, 1:]), lab[:, 1:], atol=0.05, rtol=0)


def test_gamut_reaches_the_border():
    """The result is the most chromatic color that fits: 2 % more of it does not."""
    L, ab = torch.full((1, 1, 1, 1), 50.0), torch.tensor([150.0, 80.0]).view(1, 2, 1, 1)
    fitted = fit_gamut(L, ab)
    beyond = lab_to_rgb(torch.cat([L, fitted * 1.02], dim=1), clip=False)
    assert float(beyond.min()) < -1e-3 or float(beyond.max()) > 1 + 1e-3


def test_rgb8_to_L_is_the_L_of_rgb8_to_lab():
    line = torch.arange(0, 256, 5, dtype=torch.uint8)
    cube = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).reshape(3, 52, -1)
    torch.testing.assert_close(rgb8_to_L(cube), rgb8_to_lab(cube)[:1], atol=2e-4, rtol=0)
    with pytest.raises(TypeError, match="takes uint8"):
        rgb8_to_L(cube.float())
